"""Programs that make system calls and execute another one, run as they are."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from isula_edge.sys.elf_calls import MACHINES, Call, code
from isula_edge.sys.elf_program import elf_program

if TYPE_CHECKING:
    from pathlib import Path

# the one of the other machine needs its emulator
EACH = pytest.mark.parametrize(
    "machine",
    [
        machine if machine == os.uname().machine else pytest.param(machine, marks=pytest.mark.qemu)
        for machine in MACHINES
        if machine == os.uname().machine or os.uname().machine == "x86_64"
    ],
)
UMASK = Call("umask", (0o27,))
FAILING = (47, 99, 0, 0, 0)
"""Arguments of prctl: no such operation on ambient capabilities."""


def run(
    folder: Path, machine: str, calls: list[Call], *words: str
) -> subprocess.CompletedProcess[str]:
    path = folder / f"program-{machine}"
    path.write_bytes(elf_program(MACHINES[machine], b"", code(machine, calls)))
    path.chmod(0o755)
    return subprocess.run([path, *words], capture_output=True, text=True, check=False, timeout=60)


@EACH
def test_it_makes_its_calls_and_executes_its_arguments(tmp_path: Path, machine: str) -> None:
    script = 'umask; echo "$0 $*"; exit 42'
    done = run(tmp_path, machine, [UMASK], "/bin/sh", "-c", script, "zero", "a b")
    assert (done.returncode, done.stdout) == (42, "0027\nzero a b\n")


@EACH
def test_a_call_that_fails_ends_it_where_it_is_needed(tmp_path: Path, machine: str) -> None:
    words = ("/bin/sh", "-c", "umask")
    assert run(tmp_path, machine, [Call("prctl", FAILING), UMASK], *words).returncode == 126
    done = run(tmp_path, machine, [Call("prctl", FAILING, needed=False), UMASK], *words)
    assert (done.returncode, done.stdout) == (0, "0027\n")


@EACH
def test_numbers_of_32_bits(tmp_path: Path, machine: str) -> None:
    """The group 4294967295 stays what it is."""
    file = tmp_path / "file"
    file.touch()
    own = file.stat()
    calls = [Call("fchown", (1, own.st_uid, 0xFFFFFFFF))]
    with file.open("w") as stream:
        path = tmp_path / f"program-{machine}"
        path.write_bytes(elf_program(MACHINES[machine], b"", code(machine, calls)))
        path.chmod(0o755)
        done = subprocess.run([path, "/bin/true"], stdout=stream, check=False, timeout=60)
    assert done.returncode == 0
    assert (file.stat().st_uid, file.stat().st_gid) == (own.st_uid, own.st_gid)


@EACH
def test_what_is_not_there_and_what_cannot_be_executed(tmp_path: Path, machine: str) -> None:
    assert run(tmp_path, machine, [UMASK], "/no/such/program").returncode == 127
    (tmp_path / "plain").write_text("")
    assert run(tmp_path, machine, [UMASK], str(tmp_path / "plain")).returncode == 126
