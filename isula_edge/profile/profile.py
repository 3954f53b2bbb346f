"""The profile of an architecture, read from ``profiles/<arch>/profile.toml``.

``profiles/README.md`` says what each key means.
"""

from __future__ import annotations

import functools
import os
import tomllib
from dataclasses import dataclass
from typing import Any

from isula_edge import errors
from isula_edge.sys.data import data_dir

__all__ = ["Compat", "Level", "Profile", "Small", "all_profiles", "load", "named", "shared_seccomp"]


@dataclass(frozen=True, slots=True)
class Level:
    """A microarchitecture level: ``name`` and the cpuinfo flags it adds to the one below."""

    name: str
    flags: frozenset[str]


@dataclass(frozen=True, slots=True)
class Compat:
    """Another architecture whose programs the processor runs too.

    ``elf`` is (e_machine, bits), ``emulator`` what runs them elsewhere; '' where that
    architecture has a profile of its own, which says so.
    """

    architecture: str
    words: tuple[str, ...]
    elf: tuple[str, int]
    emulator: str


@dataclass(frozen=True, slots=True)
class Small:
    """Defaults of a machine with less than ``memory`` bytes.

    ``log_max_size`` is in bytes, the watermarks are per cent of the disk, and the age of an
    image that may go is seconds.
    """

    memory: int
    concurrent_downloads: int
    log_max_size: int
    image_gc_high: int
    image_gc_low: int
    image_gc_min_age_s: float


@dataclass(frozen=True, slots=True)
class Profile:
    """What differs on one architecture.

    ``name`` is the folder's, ``architecture`` GOARCH's word, ``machines`` those of
    ``uname -m``; ``words`` maps further ones to the variant that they imply.  ``elf`` is
    (e_machine, bits) of its programs; ``native`` holds these and the pairs of all others
    that the processor runs itself.  ``emulator`` is the qemu-user program that runs them
    elsewhere, in Debian's ``emulator_package``.  ``page_sizes`` are bytes.
    """

    name: str
    architecture: str
    machines: tuple[str, ...]
    words: dict[str, str]
    default_variant: str
    levels: tuple[Level, ...]
    elf: tuple[str, int]
    elf_machine: int
    elf_flags: int
    compat: tuple[Compat, ...]
    page_sizes: tuple[int, ...]
    emulator: str
    emulator_package: str
    seccomp_architectures: tuple[str, ...]
    seccomp_words: tuple[str, ...]
    seccomp_allow: tuple[str, ...]
    small: Small
    default_runtime: str

    @property
    def native(self) -> tuple[tuple[str, int], ...]:
        """(e_machine, bits) of programs that the processor runs itself, its own first."""
        return (self.elf, *(item.elf for item in self.compat))


def _read(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        return tomllib.load(file)


def _profile(name: str, data: dict[str, Any]) -> Profile:
    platform, elf, seccomp = data["platform"], data["elf"], data["seccomp"]
    return Profile(
        name,
        platform["architecture"],
        tuple(platform["machines"]),
        dict(platform.get("words", {})),
        platform["default_variant"],
        tuple(
            Level(item["name"], frozenset(item["flags"].split()))
            for item in platform.get("variants", ())
        ),
        (elf["name"], int(elf["bits"])),
        int(elf["machine"]),
        int(elf["flags"]),
        tuple(_compat(item) for item in data.get("compat", ())),
        tuple(data["memory"]["page_sizes"]),
        data["emulator"]["program"],
        data["emulator"]["package"],
        tuple(seccomp["architectures"]),
        tuple(seccomp["words"]),
        tuple(seccomp["allow"].split()),
        Small(**data["small"]),
        data["runtime"]["default"],
    )


def _compat(item: dict[str, Any]) -> Compat:
    machine, bits = item["elf"]
    words, emulator = item.get("words", ()), item.get("emulator", "")
    return Compat(item["architecture"], tuple(words), (machine, int(bits)), emulator)


@functools.cache
def all_profiles() -> tuple[Profile, ...]:
    """Every profile there is, by name."""
    top = data_dir("profiles")
    return tuple(
        _profile(name, _read(f"{top}/{name}/profile.toml"))
        for name in sorted(os.listdir(top))
        if os.path.exists(f"{top}/{name}/profile.toml")
    )


@functools.cache
def load(machine: str = "") -> Profile:
    """The profile of ``machine`` (what ``uname -m`` says; '' is this one).

    Raises Unimplemented naming the architectures there are.
    """
    word = machine or os.uname().machine
    found = next((item for item in all_profiles() if word in item.machines), None)
    if found is None:
        known = ", ".join(item.name for item in all_profiles())
        raise errors.Unimplemented(
            f"there is no profile for architecture {word}",
            kind="profile",
            ref=word,
            hint=f"profiles exist for {known}; add a folder for {word} to profiles/",
        )
    return found


def named(architecture: str) -> Profile | None:
    """The profile of an architecture by GOARCH's word; None when there is none."""
    return next((item for item in all_profiles() if item.architecture == architecture), None)


def shared_seccomp() -> dict[str, Any]:
    """The default filter of all architectures, as in ``profiles/seccomp.toml``."""
    return _read(f"{data_dir('profiles')}/seccomp.toml")
