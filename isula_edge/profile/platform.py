"""Platforms of images: reading them, this machine's, and the best of an index.

Variants are compared, not matched by name: an ARMv7 machine runs v6 code and an x86-64-v3
machine v2 code, never the other way round (cases A13 and A14).
"""

from __future__ import annotations

import functools
import os
import re
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.profile.profile import load
from isula_edge.types import Platform

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["choose", "host_platform", "normal", "parse", "runs_on"]

# words that image authors and users write -> (GOARCH, variant)
_WORDS = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv5tel": ("arm", "v5"),
    "i386": ("386", ""),
    "i686": ("386", ""),
}
# what an entry without variant means (OCI image-spec, image index: platform variants)
_DEFAULTS = {"arm64": "v8", "amd64": "v1", "arm": "v7"}
_WORD = re.compile(r"[A-Za-z0-9_.-]+")
_VARIANT = re.compile(r"v(\d+)(?:\.(\d+))?")


def parse(text: str) -> Platform:
    """``os/architecture[/variant]``, ``architecture``, or ``os``; InvalidArgument otherwise."""
    parts = text.strip().lower().split("/")
    if not 1 <= len(parts) <= 3 or not all(_WORD.fullmatch(part) for part in parts):
        raise errors.InvalidArgument(
            f"Invalid platform {text!r}",
            kind="platform",
            ref=text,
            hint="write it as os/architecture or os/architecture/variant, e.g. linux/arm64",
        )
    if len(parts) == 1:
        if parts[0] == "linux":
            return host_platform()
        parts = ["linux", parts[0]]
    return normal(Platform(parts[0], parts[1], parts[2] if len(parts) > 2 else ""))


def normal(platform: Platform) -> Platform:
    """The same platform in the words of the OCI image-spec."""
    architecture, variant = platform.architecture.lower(), platform.variant.lower()
    if architecture in _WORDS:
        architecture, implied = _WORDS[architecture]
        variant = variant or implied
    if variant.isdigit():
        variant = f"v{variant}"
    return Platform(platform.os.lower(), architecture, variant)


@functools.cache
def host_platform() -> Platform:
    """This machine's platform with the highest variant its processor runs."""
    machine = os.uname().machine
    if machine.startswith("arm"):
        level = re.match(r"armv(\d)", machine)
        # ARMv8 in its 32-bit state runs v7 code
        number = min(int(level[1]), 7) if level else 7
        return Platform("linux", "arm", f"v{number}")
    profile = load(machine)
    variant = profile.default_variant
    flags = _cpu_flags()
    for step in profile.levels:
        if not step.flags <= flags:
            break
        variant = step.name
    return Platform("linux", profile.architecture, variant)


def _cpu_flags(path: str = "/proc/cpuinfo") -> frozenset[str]:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith(("flags", "Features")):
                    return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    return frozenset()


def _level(architecture: str, variant: str) -> tuple[int, int] | None:
    """A variant as a number; None for one that is no number."""
    word = variant or _DEFAULTS.get(architecture, "")
    if not word:
        return (0, 0)
    found = _VARIANT.fullmatch(word)
    return (int(found[1]), int(found[2] or 0)) if found else None


def _rank(entry: Platform, want: Platform) -> tuple[int, ...] | None:
    """How good ``entry`` is for ``want``, more is better; None when it cannot run there."""
    found = normal(entry)
    if (found.os, found.architecture) != (want.os, want.architecture):
        return None
    ours, theirs = _level(want.architecture, want.variant), _level(want.architecture, found.variant)
    if ours is None or theirs is None:
        return (0, 0, 1) if found.variant == want.variant else None
    if theirs > ours and not (found.architecture == "arm" and not found.variant):
        return None
    # of two on one level the one that says so
    if found.architecture == "arm" and not found.variant:
        # what an index means by plain arm is not known: better than nothing
        return (-1, 0, 0)
    return (*theirs, 1 if found.variant else 0)


def choose(entries: Sequence[Platform | None], want: Platform) -> int | None:
    """The index of the best of ``entries`` for ``want``, None when none of them runs there.

    An entry without platform is taken only when no entry has one.
    """
    if entries and all(entry is None for entry in entries):
        return 0
    wanted = normal(want)
    best: tuple[tuple[int, ...], int] | None = None
    for number, entry in enumerate(entries):
        rank = None if entry is None else _rank(entry, wanted)
        # the first of equals
        if rank is not None and (best is None or rank > best[0]):
            best = (rank, number)
    return best[1] if best is not None else None


def runs_on(image: Platform, machine: Platform) -> bool:
    """Whether an image for ``image`` runs on ``machine`` without an emulator."""
    return not image.architecture or _rank(image, normal(machine)) is not None
