"""Emulators that the kernel knows: entries of binfmt_misc over fixture directories."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from isula_edge.profile import emulator
from tests.unit.profile import elves

if TYPE_CHECKING:
    from pathlib import Path

# what qemu-user-static registers
MAGIC = {
    "qemu-aarch64": "7f454c460201010000000000000000000200b700",
    "qemu-x86_64": "7f454c4602010100000000000000000002003e00",
    "qemu-arm": "7f454c4601010100000000000000000002002800",
}
MASK = "ffffffffffffff00fffffffffffffffffeffffff"


def entry(name: str, *, first: str = "enabled", flags: str = "OCF", mask: str = MASK) -> str:
    return (
        f"{first}\ninterpreter /usr/bin/{name}-static\nflags: {flags}\noffset 0\n"
        f"magic {MAGIC[name]}\nmask {mask}\n"
    )


@pytest.fixture
def folder(binfmt: Path) -> Path:
    (binfmt / "qemu-aarch64").write_text(entry("qemu-aarch64"))
    (binfmt / "qemu-arm").write_text(entry("qemu-arm", first="disabled"))
    (binfmt / "jar").write_text("enabled\ninterpreter /usr/bin/java\nflags: \nextension .jar\n")
    return binfmt


def test_enabled_entries_with_a_magic_are_listed(folder: Path) -> None:
    (found,) = emulator.entries(str(folder))
    assert (found.name, found.path, found.flags, found.offset) == (
        "qemu-aarch64", "/usr/bin/qemu-aarch64-static", "OCF", 0,
    )  # fmt: skip
    assert found.magic == bytes.fromhex(MAGIC["qemu-aarch64"])
    assert found.mask == bytes.fromhex(MASK)
    assert emulator.entries() == [found]


def test_an_entry_without_mask_and_flags(binfmt: Path) -> None:
    text = "enabled\ninterpreter /opt/my run\nflags: \noffset 2\nmagic 4142\n"
    (binfmt / "mine").write_text(text)
    (found,) = emulator.entries()
    assert (found.path, found.flags, found.mask) == ("/opt/my run", "", b"\xff\xff")
    assert found.matches(b"xxAB")
    assert not found.matches(b"ABxx")
    assert not found.matches(b"xxA")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "enabled\n",
        "enabled\ninterpreter /x\nflags: \noffset 0\nmagic xyz\n",
        "enabled\ninterpreter /x\nflags: \noffset far\nmagic 7f\n",
        "\udcff\n",
    ],
)
def test_an_entry_that_makes_no_sense_is_passed_over(folder: Path, text: str) -> None:
    (folder / "broken").write_text(text, errors="surrogateescape")
    assert [found.name for found in emulator.entries()] == ["qemu-aarch64"]


def test_an_entry_that_cannot_be_read_holds_up_no_other(folder: Path) -> None:
    """As one that is taken away meanwhile."""
    (folder / "aaa").symlink_to("no-such-entry")
    (folder / "zzz").mkdir()
    assert [found.name for found in emulator.entries()] == ["qemu-aarch64"]


@pytest.mark.parametrize(
    ("data", "handled"),
    [
        (elves.header(elves.AARCH64), True),
        # a shared object (type 3, position independent) too: the mask leaves that bit out
        (elves.header(elves.AARCH64)[:16] + b"\x03" + elves.header(elves.AARCH64)[17:], True),
        (elves.header(elves.ARM, 32), False),
        (elves.header(elves.X86_64), False),
        (elves.header(elves.AARCH64, big=True), False),
        (elves.header(elves.AARCH64)[:19], False),
        (b"#!/bin/sh\n", False),
    ],
)
def test_which_programs_are_handled(folder: Path, data: bytes, handled: bool) -> None:
    assert emulator.handles(data) is handled
    assert emulator.handles(data, str(folder)) is handled


def test_binfmt_misc_switched_off_handles_nothing(folder: Path) -> None:
    (folder / "status").write_text("disabled\n")
    assert emulator.entries() == []
    assert not emulator.handles(elves.header(elves.AARCH64))
    assert emulator.registered() == []


def test_binfmt_misc_that_is_not_mounted_handles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulator, "BINFMT", str(tmp_path / "absent"))
    assert emulator.entries() == []
    assert emulator.entries(str(tmp_path / "absent")) == []
    assert emulator.registered() == []


def test_registered_architectures_have_go_words(folder: Path) -> None:
    assert [(name, found.path) for name, found in emulator.registered()] == [
        ("arm64", "/usr/bin/qemu-aarch64-static")
    ]
    (folder / "qemu-x86_64").write_text(entry("qemu-x86_64"))
    assert [name for name, _ in emulator.registered()] == ["arm64", "amd64"]


@pytest.mark.parametrize(
    ("machine", "bits", "program"),
    [
        ("EM_AARCH64", 64, "qemu-aarch64-static"),
        ("EM_X86_64", 64, "qemu-x86_64-static"),
    ],
)
def test_advice_names_the_program_and_its_flags(machine: str, bits: int, program: str) -> None:
    text = emulator.advice(machine, bits)
    assert program in text
    assert "flags F and OC" in text
    assert "qemu-user-static" in text


def test_advice_for_what_no_profile_knows() -> None:
    assert emulator.advice("EM_S390", 64) == "pull the image for this platform"


@pytest.mark.parametrize(
    ("machine", "program"), [("EM_ARM", "qemu-arm-static"), ("EM_386", "qemu-i386-static")]
)
def test_advice_for_32_bit_programs_names_an_emulator_that_runs_them(
    machine: str, program: str
) -> None:
    assert program in emulator.advice(machine, 32)
