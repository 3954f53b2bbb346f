"""What the first bytes of a program say, and programs that this machine cannot run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isula_edge import errors
from isula_edge.profile import elf
from isula_edge.profile.profile import load
from tests.unit.profile import elves

if TYPE_CHECKING:
    from pathlib import Path

HEADERS = [
    (elves.header(elves.X86_64), "EM_X86_64", 64, "x86_64 (64 bit)"),
    (elves.header(elves.AARCH64), "EM_AARCH64", 64, "aarch64 (64 bit)"),
    (elves.header(elves.ARM, 32), "EM_ARM", 32, "arm (32 bit)"),
    (elves.header(elves.I386, 32), "EM_386", 32, "386 (32 bit)"),
    (elves.header(elves.RISCV), "EM_RISCV", 64, "riscv (64 bit)"),
    (elves.header(elves.S390, big=True), "EM_S390", 64, "s390 (64 bit)"),
    (elves.header(elves.PPC64, big=True), "EM_PPC64", 64, "ppc64 (64 bit)"),
    # x32: the machine is x86-64, the file is not
    (elves.header(elves.X86_64, 32), "EM_X86_64", 32, "x86_64 (32 bit)"),
    (elves.header(0xFEED), "EM_65261", 64, "65261 (64 bit)"),
]


@pytest.mark.parametrize(("data", "machine", "bits", "text"), HEADERS)
def test_headers_of_processors(data: bytes, machine: str, bits: int, text: str) -> None:
    found = elf.read_header(data)
    assert found is not None
    assert (found.machine, found.bits, str(found)) == (machine, bits, text)
    assert found.data == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x7fELF",
        elves.header(elves.X86_64)[:19],
        b"#!/bin/sh\necho this is a script\n",
        b"MZ" + bytes(62),
        b"\x7fELG" + bytes(60),
        b"\x7fELF\x00\x01" + bytes(58),
        b"\x7fELF\x03\x01" + bytes(58),
    ],
)
def test_other_files_have_no_header(data: bytes) -> None:
    assert elf.read_header(data) is None


def test_twenty_bytes_are_enough() -> None:
    found = elf.read_header(elves.header(elves.AARCH64)[:20])
    assert found is not None
    assert found.machine == "EM_AARCH64"


@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda tail: b"\x7fELF" + tail))
def test_any_bytes_can_be_looked_at(data: bytes) -> None:
    found = elf.read_header(data)
    assert found is None or found.bits in (32, 64)


@pytest.fixture
def program(tmp_path: Path, binfmt: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Path of a program, on a machine whose own interpreter is nothing known."""
    del binfmt
    monkeypatch.setattr(elf, "_own", lambda: (b"\0\0", b"\0\0"))
    return tmp_path / "program"


@pytest.mark.parametrize(
    ("machine", "data"),
    [
        ("x86_64", elves.header(elves.X86_64)),
        ("x86_64", elves.header(elves.I386, 32)),
        ("aarch64", elves.header(elves.AARCH64)),
        ("aarch64", elves.header(elves.ARM, 32)),
    ],
)
def test_native_programs_pass(program: Path, machine: str, data: bytes) -> None:
    program.write_bytes(data)
    elf.check_executable(str(program), load(machine))


@pytest.mark.parametrize(
    ("machine", "data", "named"),
    [
        ("x86_64", elves.header(elves.AARCH64), r"aarch64 \(64 bit\)"),
        ("x86_64", elves.header(elves.ARM, 32), r"arm \(32 bit\)"),
        ("x86_64", elves.header(elves.X86_64, 32), r"x86_64 \(32 bit\)"),
        ("aarch64", elves.header(elves.X86_64), r"x86_64 \(64 bit\)"),
        ("aarch64", elves.header(elves.I386, 32), r"386 \(32 bit\)"),
        ("aarch64", elves.header(elves.S390, big=True), r"s390 \(64 bit\)"),
    ],
)
def test_foreign_programs_are_refused_by_name(
    program: Path, machine: str, data: bytes, named: str
) -> None:
    program.write_bytes(data)
    with pytest.raises(errors.CommandNotExecutable, match=f"program is a program for {named}"):
        elf.check_executable(str(program), load(machine))


def test_a_foreign_program_with_an_emulator_passes(program: Path, binfmt: Path) -> None:
    program.write_bytes(elves.header(elves.AARCH64))
    (binfmt / "qemu-aarch64").write_text(
        "enabled\ninterpreter /usr/bin/qemu\nflags: F\noffset 18\nmagic b700\n"
    )
    elf.check_executable(str(program), load("x86_64"))
    program.write_bytes(elves.header(elves.ARM, 32))
    with pytest.raises(errors.CommandNotExecutable):
        elf.check_executable(str(program), load("x86_64"))


def test_the_engines_own_kind_passes_whatever_the_profile_says(program: Path) -> None:
    program.write_bytes(elves.header(elves.S390, big=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(elf, "_own", lambda: (b"\x02\x02", b"\x00\x16"))
        elf.check_executable(str(program), load("x86_64"))


def test_the_running_interpreter_is_of_its_own_kind() -> None:
    with open("/proc/self/exe", "rb") as file:
        data = file.read(20)
    assert elf._own() == (data[4:6], data[18:20])
    elf.check_executable("/proc/self/exe")


@pytest.mark.parametrize(
    "data",
    [b"", b"#!/bin/sh\n", b"\x7fELF", elves.header(elves.S390, big=True)[:19], b"plain text"],
)
def test_what_is_no_whole_elf_header_is_left_to_the_kernel(program: Path, data: bytes) -> None:
    program.write_bytes(data)
    elf.check_executable(str(program), load("x86_64"))


def test_what_cannot_be_read_is_left_to_the_kernel(tmp_path: Path) -> None:
    elf.check_executable(str(tmp_path / "absent"), load("x86_64"))
    elf.check_executable(str(tmp_path), load("x86_64"))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"#!/bin/sh\nexit\n", "/bin/sh"),
        (b"#!/usr/bin/env python3\n", "/usr/bin/env"),
        (b"#! \t/bin/bash -e\n", "/bin/bash"),
        (b"#!/bin/sh", "/bin/sh"),
        (b"#!\n", ""),
        (elves.dynamic(elves.X86_64, "/lib64/ld-linux-x86-64.so.2"), "/lib64/ld-linux-x86-64.so.2"),
        (elves.dynamic(elves.AARCH64, "/lib/ld-musl-aarch64.so.1"), "/lib/ld-musl-aarch64.so.1"),
        (elves.header(elves.X86_64), ""),
        (elves.dynamic(elves.X86_64, "/lib/ld.so")[:70], ""),
        (b"\x7fELF", ""),
        (b"plain text", ""),
        (b"", ""),
    ],
)
def test_the_interpreter_of_a_program(tmp_path: Path, data: bytes, expected: str) -> None:
    program = tmp_path / "program"
    program.write_bytes(data)
    assert elf.interpreter(str(program)) == expected


def test_what_cannot_be_read_has_no_interpreter(tmp_path: Path) -> None:
    assert elf.interpreter(str(tmp_path / "absent")) == ""
    assert elf.interpreter(str(tmp_path)) == ""


DAMAGED = {
    "name that is no UTF-8": elves.dynamic(elves.X86_64, "/lib/x").replace(b"/lib", b"/\xff\xfe/"),
    "program headers beyond all files": elves.header(elves.X86_64, phnum=1)[:32]
    + b"\xff" * 8
    + elves.dynamic(elves.X86_64, "/lib/x")[40:],
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_program_has_no_interpreter(tmp_path: Path, data: bytes) -> None:
    program = tmp_path / "program"
    program.write_bytes(data)
    assert elf.interpreter(str(program)) == ""
