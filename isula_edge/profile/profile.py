"""The profile of an architecture, read from ``profiles/<arch>/profile.toml``."""

from __future__ import annotations

import functools
import os
import tomllib
from dataclasses import dataclass
from typing import Any

from isula_edge import errors
from isula_edge.sys.data import data_dir

__all__ = ["Level", "Profile", "all_profiles", "load", "shared_seccomp"]


@dataclass(frozen=True, slots=True)
class Level:
    """A microarchitecture level: ``name`` and the cpuinfo flags it adds to the one below."""

    name: str
    flags: frozenset[str]


@dataclass(frozen=True, slots=True)
class Profile:
    """What differs on one architecture.

    ``name`` is the folder's, ``architecture`` GOARCH's word, ``machines`` those of
    ``uname -m``; ``native`` holds (e_machine, bits) of programs the processor runs itself,
    ``emulator`` the qemu-user program that runs them elsewhere.  ``small_memory`` is in
    bytes.
    """

    name: str
    architecture: str
    machines: tuple[str, ...]
    default_variant: str
    levels: tuple[Level, ...]
    native: tuple[tuple[str, int], ...]
    emulator: str
    seccomp_architectures: tuple[str, ...]
    seccomp_allow: tuple[str, ...]
    small_memory: int
    small_concurrent_downloads: int
    default_runtime: str


def _read(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        return tomllib.load(file)


def _profile(name: str, data: dict[str, Any]) -> Profile:
    platform, seccomp, limits = data["platform"], data["seccomp"], data["limits"]
    return Profile(
        name,
        platform["architecture"],
        tuple(platform["machines"]),
        platform.get("default_variant", ""),
        tuple(
            Level(item["name"], frozenset(item["flags"].split()))
            for item in platform.get("variants", ())
        ),
        tuple((machine, bits) for machine, bits in data["elf"]["native"]),
        data["emulator"]["program"],
        tuple(seccomp["architectures"]),
        tuple(seccomp["allow"].split()),
        int(limits["small_memory"]),
        int(limits["small_concurrent_downloads"]),
        data["runtime"]["default"],
    )


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


def shared_seccomp() -> dict[str, Any]:
    """The default filter of all architectures, as in ``profiles/seccomp.toml``."""
    return _read(f"{data_dir('profiles')}/seccomp.toml")
