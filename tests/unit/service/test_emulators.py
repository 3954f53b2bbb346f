"""Emulators: which there are, and what is written to the kernel, over a made-up binfmt_misc."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.profile import emulator
from isula_edge.profile.profile import Profile, all_profiles, load, named
from isula_edge.service import emulators
from isula_edge.service.emulators import Emulators, check_program
from tests.unit.profile import elves
from tests.unit.profile.machines import MACHINES, code_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OTHERS = [item for item in all_profiles() if item.elf not in load().native]


def profile_of(architecture: str) -> Profile:
    found = named(architecture)
    assert found is not None
    return found


def program(machine: str = "") -> bytes:
    """A static program."""
    code = code_of(machine or load().machines[0])
    return code.program(b"", code.sleep)


def entry(
    profile: Profile, *, flags: str = "OCF", first: str = "enabled", path: str = "/opt/emulator"
) -> str:
    magic, mask = emulator.pattern(profile)
    return (
        f"{first}\ninterpreter {path}\nflags: {flags}\noffset 0\n"
        f"magic {magic.hex()}\nmask {mask.hex()}\n"
    )


class Kernel:
    """A folder that takes down what is written to it, and a PATH with emulators."""

    def __init__(self, folder: Path) -> None:
        self.binfmt, self.programs = folder / "binfmt_misc", folder / "bin"
        self.binfmt.mkdir()
        self.programs.mkdir()
        (self.binfmt / "status").write_text("enabled\n")
        (self.binfmt / "register").write_text("")

    def put(self, name: str, text: str) -> None:
        (self.binfmt / name).write_text(text)

    def said(self, name: str = "register") -> str:
        return (self.binfmt / name).read_text()

    def install(self, name: str, data: bytes) -> Path:
        path = self.programs / name
        path.write_bytes(data)
        path.chmod(0o755)
        return path


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    found = Kernel(tmp_path)
    monkeypatch.setattr("isula_edge.profile.emulator.BINFMT", str(found.binfmt))
    monkeypatch.setenv("PATH", str(found.programs))
    return found


class Reaper:
    """Takes down what is run."""

    def __init__(self) -> None:
        self.ran: list[list[str]] = []

    async def run(self, argv: list[str], **_options: Any) -> tuple[int, bytes, bytes]:
        self.ran.append(argv)
        return 1, b"", b""


def install(word: str, *, force: bool = False) -> dict[str, Any]:
    return asyncio.run(Emulators(Reaper()).install(word, force=force))  # type: ignore[arg-type]


def rows() -> dict[str, dict[str, Any]]:
    return {row["arch"]: row for row in Emulators(Reaper()).list()}  # type: ignore[arg-type]


OTHER = pytest.mark.parametrize("profile", OTHERS, ids=lambda profile: str(profile.name))


@OTHER
def test_it_is_registered_by_magic_and_held_open(kernel: Kernel, profile: Profile) -> None:
    path = kernel.install(f"{profile.emulator}-static", program())
    found = install(profile.architecture)
    assert found["changed"]
    name, kind, offset, magic, mask, interpreter, flags = kernel.said()[1:].split(":")
    assert (name, kind, offset) == (profile.emulator, "M", "")
    assert (interpreter, flags) == (str(path), "OCF")

    def plain(text: str) -> bytes:
        assert re.fullmatch(r"(\\x[0-9a-f]{2})+", text)
        return bytes.fromhex(text.replace("\\x", ""))

    made = emulator.Entry(name, interpreter, flags, 0, plain(magic), plain(mask))
    machine, bits = profile.elf_machine, profile.elf[1]
    assert made.matches(elves.header(machine, bits))
    assert not made.matches(elves.header(machine, bits, big=True))
    assert not made.matches(elves.header(machine, 96 - bits))
    assert not made.matches(elves.header(elves.S390, bits))
    assert not made.matches(program())


@OTHER
def test_every_word_for_an_architecture_does(kernel: Kernel, profile: Profile) -> None:
    kernel.install(profile.emulator, program())
    for word in (profile.machines[0], f"linux/{profile.architecture}", profile.architecture):
        kernel.put("register", "")
        install(word)
        assert kernel.said().startswith(f":{profile.emulator}:")


def test_the_static_one_of_two_is_taken(kernel: Kernel) -> None:
    profile = OTHERS[0]
    kernel.install(profile.emulator, elves.dynamic(load().elf_machine, "/lib/ld.so"))
    kernel.install(f"{profile.emulator}-static", program())
    install(profile.architecture)
    assert f"/{profile.emulator}-static:OCF" in kernel.said()


def test_what_is_registered_with_the_flag_is_left_alone(kernel: Kernel) -> None:
    profile = OTHERS[0]
    kernel.install(profile.emulator, program())
    # by whatever name
    kernel.put("other-name", entry(profile))
    found = install(profile.architecture)
    assert (found["changed"], found["path"]) == (False, "/opt/emulator")
    assert kernel.said() == ""
    # but by force
    assert install(profile.architecture, force=True)["changed"]
    assert kernel.said("other-name") == "-1"
    assert kernel.said().startswith(f":{profile.emulator}:")


def test_without_the_flag_it_is_replaced_by_force_only(kernel: Kernel) -> None:
    profile = OTHERS[0]
    kernel.install(profile.emulator, program())
    kernel.put("theirs", entry(profile, flags="OC"))
    with pytest.raises(errors.FailedPrecondition) as caught:
        install(profile.architecture)
    assert "theirs was registered by somebody else without the flag F" in str(caught.value)
    assert f"isula emulator install --force {profile.architecture}" in caught.value.hint
    assert kernel.said() == ""
    row = rows()[profile.architecture]
    assert (row["state"], row["flags"]) == ("unusable", "OC")
    assert "without flag F" in row["reason"]
    assert install(profile.architecture, force=True)["changed"]
    assert kernel.said("theirs") == "-1"


def test_one_that_is_switched_off_is_switched_on(kernel: Kernel) -> None:
    profile = OTHERS[0]
    kernel.install(profile.emulator, program())
    kernel.put(profile.emulator, entry(profile, first="disabled"))
    assert install(profile.architecture)["changed"]
    assert kernel.said(profile.emulator) == "1"
    assert kernel.said() == ""


@pytest.mark.parametrize("text", ["enabled\ninterpreter /x\nextension .x\n", None])
def test_the_name_is_taken_by_something_else(kernel: Kernel, text: str | None) -> None:
    profile, stranger = OTHERS[0], profile_of(load().architecture)
    kernel.install(profile.emulator, program())
    kernel.put(profile.emulator, text or entry(stranger))
    with pytest.raises(errors.FailedPrecondition, match="for other programs"):
        install(profile.architecture)
    assert install(profile.architecture, force=True)["changed"]
    assert kernel.said(profile.emulator) == "-1"
    assert kernel.said().startswith(f":{profile.emulator}:")


def test_what_is_not_installed_is_named_with_its_package(kernel: Kernel) -> None:
    profile = OTHERS[0]
    with pytest.raises(errors.NotFound, match=f"{profile.emulator}-static is not installed") as it:
        install(profile.architecture)
    assert "qemu-user-static" in it.value.hint
    row = rows()[profile.architecture]
    assert (row["state"], row["reason"]) == ("absent", "package qemu-user-static")


@pytest.mark.parametrize("word", [load().architecture, load().machines[0]])
def test_this_machine_needs_none_for_itself(kernel: Kernel, word: str) -> None:
    for force in (False, True):
        with pytest.raises(errors.InvalidArgument, match="itself"):
            install(word, force=force)
    assert rows()[load().architecture]["state"] == "native"


def test_what_most_processors_run_needs_force(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = load("aarch64")
    monkeypatch.setattr(emulators, "load", lambda: host)
    kernel.install("qemu-arm", program("aarch64"))
    with pytest.raises(errors.FailedPrecondition, match="most of them") as caught:
        install("arm")
    assert "--force" in caught.value.hint
    assert rows()["arm"]["state"] == "native"
    assert install("arm", force=True)["changed"]
    assert kernel.said().startswith(":qemu-arm:")


@pytest.mark.parametrize(
    ("word", "text"), [("s390x", "no profile for architecture s390x"), ("a/b/c/d", "Invalid plat")]
)
def test_an_unknown_architecture(kernel: Kernel, word: str, text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=text):
        install(word)


FOREIGN = next(word for word in MACHINES if load(word).elf not in load().native)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: elves.dynamic(load().elf_machine, "/lib/ld.so"), "it is not static"),
        (lambda: program(FOREIGN), "it is a program for"),
        (lambda: b"#!/bin/sh\n", "it is no whole ELF program"),
        (lambda: b"", "it is no whole ELF program"),
        (lambda: program()[:40], "it is no whole ELF program"),
        (lambda: b"\x7fELF" + b"\xff" * 200, "it is no whole ELF program"),
    ],
    ids=["dynamic", "of another machine", "script", "empty", "cut off", "damaged"],
)
def test_an_emulator_of_no_use_is_refused(
    kernel: Kernel, make: Callable[[], bytes], why: str
) -> None:
    profile = OTHERS[0]
    path = kernel.install(f"{profile.emulator}-static", make())
    with pytest.raises(errors.FailedPrecondition, match=why) as caught:
        install(profile.architecture)
    assert str(path) in str(caught.value)
    assert "qemu-user-static" in caught.value.hint
    assert kernel.said() == ""
    row = rows()[profile.architecture]
    assert row["state"] == "unusable"
    assert why in row["reason"]


def test_one_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(errors.FailedPrecondition, match="it cannot be read: Is a directory"):
        check_program(str(tmp_path), load())


@OTHER
def test_a_path_that_the_kernel_would_misread(profile: Profile) -> None:
    with pytest.raises(errors.FailedPrecondition, match="no path with a colon"):
        emulators.rule(profile, "/opt/a:b")


@pytest.mark.parametrize("profile", all_profiles(), ids=lambda profile: str(profile.name))
def test_the_kernel_takes_the_line(profile: Profile) -> None:
    """At most 1920 bytes, and no part longer than 256."""
    assert len(emulators.rule(profile, "/usr/bin/" + "e" * 200)) < 512


def test_what_is_installed_is_listed(kernel: Kernel) -> None:
    profile = OTHERS[0]
    path = kernel.install(f"{profile.emulator}-static", program())
    row = rows()[profile.architecture]
    assert (row["state"], row["path"], row["flags"]) == ("available", str(path), "")
    kernel.put(profile.emulator, entry(profile))
    row = rows()[profile.architecture]
    assert (row["state"], row["path"], row["flags"]) == ("registered", "/opt/emulator", "OCF")
    assert [*rows()] == sorted(item.architecture for item in all_profiles())


def test_it_is_taken_back(kernel: Kernel) -> None:
    profile = OTHERS[0]
    found = Emulators(Reaper())  # type: ignore[arg-type]
    with pytest.raises(errors.NotFound, match=f"registered for {profile.architecture}"):
        asyncio.run(found.remove(profile.architecture))
    kernel.put("theirs", entry(profile))
    answer = asyncio.run(found.remove(profile.architecture))
    assert answer == {"arch": profile.architecture, "names": ["theirs"]}
    assert kernel.said("theirs") == "-1"


def test_binfmt_misc_that_is_switched_off(kernel: Kernel) -> None:
    profile = OTHERS[0]
    kernel.install(profile.emulator, program())
    kernel.put("status", "disabled\n")
    with pytest.raises(errors.FailedPrecondition, match="binfmt_misc is switched off") as caught:
        install(profile.architecture)
    assert "/status" in caught.value.hint


@pytest.fixture
def unmounted(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """A kernel whose binfmt_misc is not mounted: the calls of mount(2)."""
    (kernel.binfmt / "register").unlink()
    (kernel.binfmt / "status").unlink()
    calls: list[tuple[str, ...]] = []

    def mount(*words: str) -> None:
        calls.append(words)
        kernel.put("status", "enabled\n")
        kernel.put("register", "")

    monkeypatch.setattr("isula_edge.sys.syscalls.mount", mount)
    return calls


def test_it_is_mounted(
    kernel: Kernel, unmounted: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = OTHERS[0]
    kernel.install(profile.emulator, program())
    monkeypatch.setattr(emulators, "_known_to_kernel", lambda: True)
    assert install(profile.architecture)["changed"]
    assert unmounted == [("binfmt_misc", str(kernel.binfmt), "binfmt_misc")]
    install(profile.architecture, force=True)
    assert len(unmounted) == 1


def test_a_mount_that_is_refused(
    kernel: Kernel, unmounted: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = OTHERS[0]
    kernel.install(profile.emulator, program())
    monkeypatch.setattr(emulators, "_known_to_kernel", lambda: True)

    def refuse(*_words: str) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("isula_edge.sys.syscalls.mount", refuse)
    with pytest.raises(errors.PermissionDenied, match="cannot mount binfmt_misc"):
        install(profile.architecture)


def test_a_kernel_without_it(
    kernel: Kernel, unmounted: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    profile, reaper = OTHERS[0], Reaper()
    kernel.install(profile.emulator, program())
    monkeypatch.setattr(emulators, "_known_to_kernel", lambda: False)
    which = shutil.which
    monkeypatch.setattr(
        "shutil.which",
        lambda name, **more: "/sbin/modprobe" if name == "modprobe" else which(name, **more),
    )
    with pytest.raises(errors.Unimplemented, match="this kernel has no binfmt_misc") as caught:
        asyncio.run(Emulators(reaper).install(profile.architecture))  # type: ignore[arg-type]
    assert "CONFIG_BINFMT_MISC" in caught.value.hint
    # its module was tried
    assert reaper.ran == [["/sbin/modprobe", "-q", "binfmt_misc"]]
    assert unmounted == []


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (22, errors.Unimplemented, "does not take the registration"),
        (1, errors.PermissionDenied, "Operation not permitted"),
        (30, errors.PermissionDenied, "Read-only file system"),
        (12, errors.Internal, "Cannot allocate memory"),
    ],
)
def test_what_the_kernel_refuses(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, number: int, kind: type, text: str
) -> None:
    profile = OTHERS[0]
    kernel.install(profile.emulator, program())
    real = open

    def refuse(path: Any, mode: str = "r", **options: Any) -> Any:
        if str(path).endswith("/register"):
            raise OSError(number, os.strerror(number))
        return real(path, mode, **options)

    monkeypatch.setattr(emulators, "open", refuse, raising=False)
    with pytest.raises(kind, match=text):
        install(profile.architecture)
