"""The program that gives a container's init its terminal: a valid ELF file that works."""

from __future__ import annotations

import io
import os
import stat
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from isula_edge import errors
from isula_edge.runtime import ctty
from tests.unit.profile import machines
from tests.unit.profile.machines import EVERY, RUNNING, code_of

PF_X, PF_W, PF_R = 1, 2, 4


@EVERY
def test_the_header_is_that_of_a_static_executable(machine: str) -> None:
    elf = ELFFile(io.BytesIO(ctty.build(machine)))
    name, bits = code_of(machine).profile.elf
    assert elf.elfclass == bits
    assert elf.little_endian
    assert elf["e_type"] == "ET_EXEC"
    assert elf["e_machine"] == name
    assert elf["e_version"] == "EV_CURRENT"
    sizes = (64, 56, 1) if bits == 64 else (52, 32, 1)
    assert (elf["e_ehsize"], elf["e_phentsize"], elf["e_phnum"]) == sizes
    assert elf.num_sections() == 0


@EVERY
def test_one_segment_holds_all_of_it_and_cannot_be_written(machine: str) -> None:
    data = ctty.build(machine)
    (segment,) = ELFFile(io.BytesIO(data)).iter_segments()
    assert segment["p_type"] == "PT_LOAD"
    assert segment["p_flags"] == PF_R | PF_X
    assert segment["p_offset"] == 0
    assert segment["p_filesz"] == segment["p_memsz"] == len(data)
    # pages of arm64 are up to 64 KiB
    assert segment["p_align"] == 0x10000
    assert segment["p_vaddr"] % segment["p_align"] == segment["p_offset"]


@EVERY
def test_it_begins_right_after_the_name_of_the_gate(machine: str) -> None:
    data = ctty.build(machine)
    elf = ELFFile(io.BytesIO(data))
    (segment,) = elf.iter_segments()
    entry = elf["e_entry"] - segment["p_vaddr"]
    assert 0 < entry < len(data)
    assert entry % 4 == 0
    begin = code_of(machine).data - segment["p_vaddr"]
    assert data[begin:entry].rstrip(b"\0") == ctty.GATE.encode()
    assert data[entry - 1] == 0


@EVERY
def test_it_is_a_few_hundred_bytes(machine: str) -> None:
    assert len(ctty.build(machine)) < 512


@pytest.mark.parametrize("machine", ["sparc64", "vax"])
def test_a_machine_without_code_is_named(machine: str) -> None:
    with pytest.raises(errors.Unimplemented, match="no terminal helper") as found:
        ctty.build(machine)
    assert found.value.ref == machine
    assert "--runtime runc" in found.value.hint


def test_it_is_installed_once(tmp_path: Path) -> None:
    folder = tmp_path / "libexec"
    path = ctty.install(str(folder), "x86_64")
    assert path == f"{folder}/ctty-x86_64"
    first = os.stat(path)
    assert stat.S_IMODE(first.st_mode) == 0o755
    assert ctty.install(str(folder), "x86_64") == path
    assert os.stat(path).st_ino == first.st_ino


def test_a_program_of_another_version_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "ctty-aarch64"
    path.write_bytes(b"old")
    assert ctty.install(str(tmp_path), "aarch64") == str(path)
    assert path.read_bytes() == ctty.build("aarch64")
    assert stat.S_IMODE(path.stat().st_mode) == 0o755


def run(folder: Path, machine: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs it without a terminal, so that all it does is to execute its arguments."""
    path = Path(ctty.install(str(folder), machine))
    given = {"A": "1", "B": "two words"}
    return machines.run(machine, path, *words, stdin=subprocess.DEVNULL, env=given)


@RUNNING
def test_it_executes_its_arguments_with_all_of_the_environment(
    tmp_path: Path, machine: str
) -> None:
    done = run(tmp_path, machine, "/bin/sh", "-c", 'echo "$A/$B/$0/$#/$*"', "zero", "a b", "c")
    assert (done.returncode, done.stdout) == (0, "1/two words/zero/2/a b c\n")


@RUNNING
def test_the_exit_status_is_the_programs(tmp_path: Path, machine: str) -> None:
    assert run(tmp_path, machine, "/bin/sh", "-c", "exit 42").returncode == 42


@RUNNING
def test_a_program_that_is_not_there_is_127(tmp_path: Path, machine: str) -> None:
    assert run(tmp_path, machine, "/no/such/program").returncode == 127


@RUNNING
def test_a_program_that_cannot_be_executed_is_126(tmp_path: Path, machine: str) -> None:
    (tmp_path / "plain").write_text("")
    assert run(tmp_path, machine, str(tmp_path / "plain")).returncode == 126


@RUNNING
def test_it_takes_its_terminal_and_waits_for_no_gate(tmp_path: Path, machine: str) -> None:
    """In a session of its own the terminal of its input becomes its controlling terminal."""
    path = Path(ctty.install(str(tmp_path), machine))
    master, slave = os.openpty()
    try:
        done = machines.run(
            machine, path, "/bin/sh", "-c", "echo seen >/dev/tty", stdin=slave,
            start_new_session=True,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert os.read(master, 100).strip() == b"seen"
    finally:
        os.close(master)
        os.close(slave)
