"""Programs that make system calls and execute another one, run as they are."""

from __future__ import annotations

import io
import os
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest
from elftools.elf.elffile import ELFFile

from isula_edge.profile.code import Call, find
from tests.unit.profile.machines import EVERY, RUNNING, code_of, run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

UMASK = Call("umask", (0o27,))
FAILING = (47, 99, 0, 0, 0)
"""Arguments of prctl: no such operation on ambient capabilities."""


def made(folder: Path, machine: str, calls: Sequence[Call] = ()) -> Path:
    code = code_of(machine)
    return written(folder, code.program(b"", code.executing(calls)))


def written(folder: Path, program: bytes) -> Path:
    path = folder / "program"
    path.write_bytes(program)
    path.chmod(0o755)
    return path


@EVERY
def test_it_is_a_static_executable_of_one_segment(machine: str) -> None:
    code = code_of(machine)
    data = code.program(bytes(8), code.executing())
    elf = ELFFile(io.BytesIO(data))
    assert (elf["e_machine"], elf.elfclass) == code.profile.elf
    assert (elf["e_type"], elf["e_flags"]) == ("ET_EXEC", code.profile.elf_flags)
    (segment,) = elf.iter_segments()
    assert (segment["p_type"], segment["p_flags"]) == ("PT_LOAD", 5)
    assert segment["p_filesz"] == segment["p_memsz"] == len(data)
    assert elf["e_entry"] == code.data + 8


@RUNNING
def test_it_makes_its_calls_and_executes_its_arguments(tmp_path: Path, machine: str) -> None:
    script = 'umask; echo "$0 $*"; exit 42'
    path = made(tmp_path, machine, [UMASK])
    done = run(machine, path, "/bin/sh", "-c", script, "zero", "a b")
    assert (done.returncode, done.stdout) == (42, "0027\nzero a b\n")


@RUNNING
def test_the_environment_is_its_own_or_another(tmp_path: Path, machine: str) -> None:
    code = code_of(machine)
    words = ("/bin/sh", "-c", 'echo "$A/$B"')
    path = made(tmp_path, machine)
    assert run(machine, path, *words, env={"A": "1", "B": "x y"}).stdout == "1/x y\n"
    text = b"A=2\0B=3\0"
    table = struct.pack(f"<3{code.pointer}", code.data, code.data + 4, 0)
    given = code.executing((), code.data + len(text))
    path = written(tmp_path, code.program(text + table, given))
    assert run(machine, path, *words, env={"A": "1", "B": "x y"}).stdout == "2/3\n"


@RUNNING
def test_a_call_that_fails_ends_it_where_it_is_needed(tmp_path: Path, machine: str) -> None:
    words = ("/bin/sh", "-c", "umask")
    done = run(machine, made(tmp_path, machine, [Call("prctl", FAILING), UMASK]), *words)
    assert (done.returncode, done.stdout, done.stderr) == (126, "", "")
    done = run(
        machine, made(tmp_path, machine, [Call("prctl", FAILING, needed=False), UMASK]), *words
    )
    assert (done.returncode, done.stdout) == (0, "0027\n")


@RUNNING
def test_what_fails_is_said_before_it_ends(tmp_path: Path, machine: str) -> None:
    code, text = code_of(machine), b"the kernel refuses it\n"
    call = Call("prctl", FAILING, said=(code.data, len(text)))
    path = written(tmp_path, code.program(text + bytes(-len(text) % 4), code.executing([call])))
    done = run(machine, path, "/bin/true")
    assert (done.returncode, done.stderr) == (126, text.decode())


@RUNNING
def test_numbers_of_32_bits(tmp_path: Path, machine: str) -> None:
    """The group 4294967295 stays what it is."""
    file = tmp_path / "file"
    file.touch()
    own = file.stat()
    path = made(tmp_path, machine, [Call("fchown", (1, own.st_uid, 0xFFFFFFFF))])
    with file.open("w") as stream:
        options = {"capture_output": False, "stdout": stream}
        assert run(machine, path, "/bin/true", **options).returncode == 0
    assert (file.stat().st_uid, file.stat().st_gid) == (own.st_uid, own.st_gid)


@RUNNING
def test_what_is_not_there_and_what_cannot_be_executed(tmp_path: Path, machine: str) -> None:
    path = made(tmp_path, machine, [UMASK])
    assert run(machine, path, "/no/such/program").returncode == 127
    (tmp_path / "plain").write_text("")
    assert run(machine, path, str(tmp_path / "plain")).returncode == 126


@RUNNING
def test_it_sleeps_for_ever(tmp_path: Path, machine: str) -> None:
    code = code_of(machine)
    path = written(tmp_path, code.program(b"", code.sleep))
    with pytest.raises(subprocess.TimeoutExpired):
        run(machine, path, timeout=0.5)


@RUNNING
def test_a_result_is_told_by_the_parent_and_the_child_goes_on(tmp_path: Path, machine: str) -> None:
    """Without a new process: what prctl answers is taken for what clone does."""
    code = code_of(machine)
    get_keepcaps = code.call("prctl", 7, 0, 0, 0, 0)
    set_keepcaps = code.call("prctl", 8, 1, 0, 0, 0)
    going_on = code.parent + code.executing()
    path = written(tmp_path, code.program(b"", get_keepcaps + going_on))
    assert run(machine, path, "/bin/sh", "-c", "exit 5").returncode == 5
    path = written(tmp_path, code.program(b"", set_keepcaps + get_keepcaps + going_on))
    done = run(machine, path, "/bin/sh", "-c", "exit 5")
    assert (done.returncode, done.stdout) == (0, "\1\0\0\0")


def test_a_machine_without_profile_has_no_code() -> None:
    assert find("sparc64") is None


def test_this_machine_is_the_default() -> None:
    assert find() is find(os.uname().machine)
    assert find() is not None
