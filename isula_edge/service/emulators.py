"""Emulators of other architectures: which there are, and registering them with the kernel.

An emulator is a program of qemu-user that the kernel starts for programs of another
architecture (binfmt_misc).  It is registered with the flags OCF: F opens it at once, so that
it is found whatever root file system a container has; O and C let programs that change the
user keep their credentials.  This is a state of the kernel: a reboot ends it, and all engines
of the machine share it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.profile import emulator
from isula_edge.profile import platform as platforms
from isula_edge.profile.profile import all_profiles, load, named
from isula_edge.sys import syscalls

if TYPE_CHECKING:
    from isula_edge.profile.profile import Profile
    from isula_edge.sys.process import Reaper

__all__ = ["FLAGS", "Emulators", "check_program", "rule"]

FLAGS = "OCF"
_MODPROBE_S = 20.0


class Emulators:
    """What a user does with emulators.  One change is made at a time."""

    def __init__(self, reaper: Reaper) -> None:
        self._reaper = reaper
        self._changes = asyncio.Lock()

    def list(self) -> list[dict[str, Any]]:
        """A row for each architecture that has a profile.

        ``{"arch", "name", "path", "flags", "state", "reason"}``; ``state`` is "native" (this
        machine's own), "registered", "available" (installed, not registered), "unusable" or
        "absent", and ``reason`` says why it is one of the last two.
        """
        return [_row(item) for item in sorted(all_profiles(), key=lambda item: item.architecture)]

    async def install(self, word: str, *, force: bool = False) -> dict[str, Any]:
        """Registers the emulator of an architecture: its row, with ``changed``.

        What is registered already with flag F stays as it is.  ``force`` replaces whatever
        is registered for the architecture, also by somebody else.
        """
        profile = _profile(word)
        _require_foreign(profile, force=force)
        path = _installed(profile)
        check_program(path, load())
        async with self._changes:
            await self._mount()
            changed = await asyncio.to_thread(_register, profile, path, force)
        return {**_row(profile), "changed": changed}

    async def remove(self, word: str) -> dict[str, Any]:
        """Takes back what is registered for an architecture: ``{"arch", "names"}``."""
        profile = _profile(word)
        async with self._changes:
            found = _matching(profile)
            if not found:
                raise errors.NotFound(
                    f"no emulator is registered for {profile.architecture}",
                    kind="emulator",
                    ref=word,
                )
            for entry in found:
                _write(entry.name, "-1")
        return {"arch": profile.architecture, "names": [entry.name for entry in found]}

    async def _mount(self) -> None:
        """Makes binfmt_misc available; Unimplemented where the kernel has none."""
        if not os.path.exists(f"{emulator.BINFMT}/register"):
            modprobe = shutil.which("modprobe", path="/usr/sbin:/sbin:/usr/bin:/bin")
            if not _known_to_kernel() and modprobe:
                await self._reaper.run([modprobe, "-q", "binfmt_misc"], timeout_s=_MODPROBE_S)
            if not _known_to_kernel():
                raise errors.Unimplemented(
                    "this kernel has no binfmt_misc",
                    kind="feature",
                    ref="binfmt-misc",
                    hint="use a kernel with CONFIG_BINFMT_MISC, or load its module binfmt_misc",
                )
            try:
                syscalls.mount("binfmt_misc", emulator.BINFMT, "binfmt_misc")
            except OSError as error:
                raise errors.PermissionDenied(
                    f"cannot mount binfmt_misc at {emulator.BINFMT}: {error.strerror}",
                    kind="feature",
                    ref="binfmt-misc",
                ) from error
        if not _switched_on():
            raise errors.FailedPrecondition(
                "binfmt_misc is switched off",
                kind="feature",
                ref="binfmt-misc",
                hint=f"echo 1 >{emulator.BINFMT}/status",
            )


def _profile(word: str) -> Profile:
    """The profile that a user means; InvalidArgument naming those there are."""
    architecture = platforms.parse(word).architecture
    found = named(architecture)
    if found is None:
        known = ", ".join(sorted(item.architecture for item in all_profiles()))
        raise errors.InvalidArgument(
            f"there is no profile for architecture {architecture}",
            kind="emulator",
            ref=word,
            hint=f"one of {known}",
        )
    return found


def _require_foreign(profile: Profile, *, force: bool) -> None:
    own = load()
    if profile.elf == own.elf:
        raise errors.InvalidArgument(
            f"this machine runs programs for {profile.architecture} itself",
            kind="emulator",
            ref=profile.architecture,
        )
    if profile.elf in own.native and not force:
        raise errors.FailedPrecondition(
            f"processors for {own.architecture} run programs for {profile.architecture} "
            "themselves, most of them",
            kind="emulator",
            ref=profile.architecture,
            hint="--force registers the emulator, for a processor that does not",
        )


def _installed(profile: Profile) -> str:
    """Where the emulator is; NotFound with the package that brings it."""
    path = _find(profile)
    if not path:
        raise errors.NotFound(
            f"{profile.emulator}-static is not installed",
            kind="emulator",
            ref=profile.architecture,
            hint=f"install Debian's package {profile.emulator_package}",
        )
    return path


def _find(profile: Profile) -> str:
    # the name of the static one, where there are two
    found = shutil.which(f"{profile.emulator}-static") or shutil.which(profile.emulator)
    return os.path.realpath(found) if found else ""


def check_program(path: str, host: Profile) -> None:
    """Raises FailedPrecondition unless ``path`` is a static program of this machine.

    One that needs a loader or a library would look for them inside the container.
    """
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        with open(path, "rb") as file:
            program = ELFFile(file)
            built_for = (program["e_machine"], program.elfclass)
            loader = any(one["p_type"] == "PT_INTERP" for one in program.iter_segments())
    except OSError as error:
        raise _unusable(path, f"it cannot be read: {error.strerror}") from error
    except (ELFError, ValueError, OverflowError) as error:
        raise _unusable(path, "it is no whole ELF program") from error
    if built_for != host.elf:
        machine = str(built_for[0]).removeprefix("EM_").lower()
        raise _unusable(path, f"it is a program for {machine} ({built_for[1]} bit) itself")
    if loader:
        raise _unusable(path, "it is not static, and containers lack its libraries")


def _unusable(path: str, why: str) -> errors.FailedPrecondition:
    return errors.FailedPrecondition(
        f"{path} cannot be registered: {why}",
        kind="emulator",
        ref=path,
        hint="install Debian's package qemu-user-static",
    )


def _row(profile: Profile) -> dict[str, Any]:
    row = {
        "arch": profile.architecture,
        "name": profile.emulator,
        "path": "",
        "flags": "",
        "state": "native",
        "reason": "",
    }
    if profile.elf == load().elf:
        return row
    entries = _matching(profile)
    if entries:
        best = next((entry for entry in entries if entry.held_open), entries[0])
        row |= {"name": best.name, "path": best.path, "flags": best.flags, "state": "registered"}
        if not best.held_open:
            row["state"] = "unusable"
            row["reason"] = "registered without flag F: not found inside containers"
        return row
    if profile.elf in load().native:
        return row
    row["state"], row["path"] = "absent", _find(profile)
    path = row["path"]
    if not path:
        return {**row, "reason": f"package {profile.emulator_package}"}
    try:
        check_program(path, load())
    except errors.FailedPrecondition as error:
        return {**row, "state": "unusable", "reason": error.message}
    return {**row, "state": "available"}


def _matching(profile: Profile) -> list[emulator.Entry]:
    """Enabled entries that the kernel may use for programs of an architecture."""
    program = emulator.sample(profile)
    return [entry for entry in emulator.entries() if entry.matches(program)]


def _register(profile: Profile, path: str, force: bool) -> bool:
    """Whether anything had to be done."""
    program, name = emulator.sample(profile), profile.emulator
    in_the_way = [
        entry
        for entry in emulator.entries(disabled=True)
        if (entry.enabled and entry.matches(program)) or entry.name == name
    ]
    held = [entry for entry in in_the_way if entry.held_open and entry.matches(program)]
    if not force and held:
        switched_off = not any(entry.enabled for entry in held)
        if switched_off:
            _write(held[0].name, "1")
        return switched_off
    if not force and (in_the_way or os.path.lexists(f"{emulator.BINFMT}/{name}")):
        what = in_the_way[0] if in_the_way else None
        raise errors.FailedPrecondition(
            f"{what.name if what else name} was registered by somebody else "
            + ("without the flag F" if what and what.matches(program) else "for other programs"),
            kind="emulator",
            ref=profile.architecture,
            hint=f"isula emulator install --force {profile.architecture} replaces it",
        )
    taken = {entry.name for entry in in_the_way}
    if os.path.lexists(f"{emulator.BINFMT}/{name}"):
        taken.add(name)
    for one in taken:
        _write(one, "-1")
    _write("register", rule(profile, path))
    return True


def rule(profile: Profile, path: str) -> str:
    """The line that registers ``path`` (Documentation/admin-guide/binfmt-misc.rst)."""
    if ":" in path or "\n" in path:
        raise _unusable(path, "the kernel takes no path with a colon or a line break")
    magic, mask = ("".join(f"\\x{byte:02x}" for byte in part) for part in emulator.pattern(profile))
    return f":{profile.emulator}:M::{magic}:{mask}:{path}:{FLAGS}"


def _write(name: str, text: str) -> None:
    path = f"{emulator.BINFMT}/{name}"
    try:
        # no buffer: the kernel takes a line as one write, and answers to that
        with open(path, "wb", buffering=0) as file:
            file.write(os.fsencode(text))
    except OSError as error:
        if error.errno == errno.EINVAL and name == "register":
            raise errors.Unimplemented(
                "the kernel does not take the registration",
                kind="feature",
                ref="binfmt-misc",
                hint="the flag F needs Linux 4.8",
            ) from error
        kind = errors.PermissionDenied if error.errno in _FORBIDDEN else errors.Internal
        raise kind(
            f"cannot write {path}: {error.strerror}", kind="feature", ref="binfmt-misc"
        ) from error


_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def _known_to_kernel() -> bool:
    with open("/proc/filesystems", encoding="ascii") as file:
        return "binfmt_misc" in file.read().split()


def _switched_on() -> bool:
    with open(f"{emulator.BINFMT}/status", encoding="ascii") as file:
        return file.read().startswith("enabled")
