"""The program that holds a process id namespace: a valid ELF file of few instructions."""

from __future__ import annotations

import io
import os
import signal
import struct
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from isula_edge import errors
from isula_edge.pod import pause
from isula_edge.sys.elf_program import BASE
from isula_edge.sys.process import stat_fields
from tests.rig import until
from tests.unit.profile.machines import EVERY, code_of


@EVERY
def test_it_is_a_static_executable_that_cannot_be_written(machine: str) -> None:
    data = pause.build(machine)
    elf = ELFFile(io.BytesIO(data))
    code = code_of(machine)
    assert (elf["e_type"], elf["e_machine"]) == ("ET_EXEC", code.profile.elf[0])
    (segment,) = elf.iter_segments()
    assert segment["p_flags"] == 5
    assert segment["p_filesz"] == segment["p_memsz"] == len(data)
    assert len(data) < 1024
    # entered behind the action of SIGCHLD
    assert elf["e_entry"] == code.data + 32
    assert struct.unpack_from("<Q", data, code.data - BASE) == (1,)


@EVERY
def test_what_it_asks_of_the_kernel_in_order(machine: str) -> None:
    """The calls are those of the profile, with the arguments that the program has."""
    found, code = pause.build(machine), code_of(machine)
    at = 0
    for call in (
        code.call("clone", 0x20000011, 0, 0, 0, 0) + code.parent,
        code.call("close", 1),
        code.call("setgroups", 0, 0),
        code.call("setresgid", 65534, 65534, 65534),
        code.call("setresuid", 65534, 65534, 65534),
        code.call("prctl", 38, 1, 0, 0),
        code.call("rt_sigaction", 17, code.data, 0, 8),
    ):
        at = found.index(call, at) + len(call)
    assert found[at:] == code.sleep


@pytest.mark.native  # qemu-user refuses clone with new namespaces
@pytest.mark.root
def test_it_tells_the_pid_of_a_child_that_has_given_everything_up(tmp_path: Path) -> None:
    path = tmp_path / "pause"
    path.write_bytes(pause.build())
    path.chmod(0o755)
    told = subprocess.run([path], stdout=subprocess.PIPE, check=True, timeout=60).stdout
    (pid,) = struct.unpack("<I", told)
    try:
        # it is told before the child is done
        until(lambda: stat_fields(pid)[:1] == [b"S"], "the child sleeping")
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
        assert status["Uid"] == status["Gid"] == "\t".join(["65534"] * 4)
        assert (status["CapEff"], status["NoNewPrivs"]) == ("0" * 16, "1")
        assert status["NSpid"].split() == [str(pid), "1"]
        assert int(status["SigIgn"], 16) == 1 << 16  # SIGCHLD
    finally:
        os.kill(pid, signal.SIGKILL)


def test_this_machine_is_the_default() -> None:
    assert pause.build() == pause.build(os.uname().machine)


@pytest.mark.parametrize("machine", ["sparc64", "vax", "X86_64"])
def test_a_machine_without_code_is_named(machine: str) -> None:
    with pytest.raises(errors.Unimplemented, match=machine) as caught:
        pause.build(machine)
    assert caught.value.hint
