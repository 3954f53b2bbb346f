"""The program that holds a process id namespace: a valid ELF file of few instructions."""

from __future__ import annotations

import io
import itertools
import os
import re
import struct

import pytest
from elftools.elf.elffile import ELFFile

from isula_edge import errors
from isula_edge.pod import pause
from isula_edge.sys.elf_program import BASE, HEADERS

MACHINES = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}
EVERY = pytest.mark.parametrize("machine", MACHINES)
CALLS = {
    "x86_64": [56, 1, 231, 3, 116, 119, 117, 157, 13, 34],
    "aarch64": [220, 64, 94, 57, 159, 149, 147, 167, 134, 73],
}
"""clone, write, exit_group; close, setgroups, setresgid, setresuid, prctl, rt_sigaction, sleep."""


def test_every_machine_with_code_is_tested() -> None:
    assert set(pause.MACHINES) == set(MACHINES)


@EVERY
def test_it_is_a_static_executable_that_cannot_be_written(machine: str) -> None:
    data = pause.build(machine)
    elf = ELFFile(io.BytesIO(data))
    assert (elf["e_type"], elf["e_machine"]) == ("ET_EXEC", MACHINES[machine])
    (segment,) = elf.iter_segments()
    assert segment["p_flags"] == 5
    assert segment["p_filesz"] == segment["p_memsz"] == len(data)
    assert len(data) < 1024
    # entered behind the action of SIGCHLD
    assert elf["e_entry"] == BASE + HEADERS + 32
    assert struct.unpack_from("<Q", data, HEADERS) == (1,)


def code(machine: str) -> bytes:
    return pause.build(machine)[HEADERS + 32 :]


@EVERY
def test_what_it_asks_of_the_kernel_in_order(machine: str) -> None:
    data = code(machine)
    if machine == "x86_64":
        found = [
            struct.unpack("<I", match[1])[0]
            for match in re.finditer(rb"\xb8(.{4})\x0f\x05", data, re.DOTALL)
        ]
    else:
        words = struct.unpack(f"<{len(data) // 4}I", data)
        found = []
        for before, word in itertools.pairwise(words):
            if word == 0xD4000001:
                # movz x8, NUMBER
                assert before >> 21 == 0xD2800000 >> 21
                assert before & 0x1F == 8
                found.append((before >> 5) & 0xFFFF)
    assert found == CALLS[machine]


def test_the_child_of_x86_64_is_where_the_jump_leads() -> None:
    data = code("x86_64")
    place = data.index(bytes.fromhex("85c0 74")) + 4
    child = place + data[place - 1]
    # mov edi, 1: close(1)
    assert data[child : child + 10] == bytes.fromhex("bf01000000 b803000000")
    assert data.endswith(bytes.fromhex("b822000000 0f05 ebf7"))


def test_the_child_of_aarch64_is_where_the_jump_leads() -> None:
    data = code("aarch64")
    words = struct.unpack(f"<{len(data) // 4}I", data)
    (place,) = (number for number, word in enumerate(words) if word >> 24 == 0x34)
    child = place + ((words[place] >> 5) & 0x7FFFF)
    # movz x0, 1; movz x8, 57: close(1)
    assert words[child : child + 2] == (0xD2800020, 0xD2800728)
    offset = words[-1] & 0x3FFFFFF
    assert words[-1] >> 26 == 0b000101
    again = len(words) - 1 + offset - (1 << 26)
    assert child < again < len(words) - 1


def test_this_machine_is_the_default() -> None:
    machine = os.uname().machine
    if machine not in MACHINES:
        pytest.skip(f"no code for {machine}")
    assert pause.build() == pause.build(machine)


@pytest.mark.parametrize("machine", ["riscv64", "armv7l", "X86_64"])
def test_a_machine_without_code_is_named(machine: str) -> None:
    with pytest.raises(errors.Unimplemented, match=machine) as caught:
        pause.build(machine)
    assert caught.value.hint
