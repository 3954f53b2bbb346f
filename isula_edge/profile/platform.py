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
from isula_edge.profile.profile import all_profiles, load, named
from isula_edge.types import Platform

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["choose", "host_platform", "normal", "parse", "runs_on", "supersedes"]

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
    if architecture in _words():
        architecture, implied = _words()[architecture]
        variant = variant or implied
    if variant.isdigit():
        variant = f"v{variant}"
    return Platform(platform.os.lower(), architecture, variant)


@functools.cache
def _words() -> dict[str, tuple[str, str]]:
    """Words that machines, image authors and users have -> (GOARCH, variant)."""
    found = {}
    for profile in all_profiles():
        for word in (*profile.machines, *profile.words):
            found[word] = (profile.architecture, profile.words.get(word, ""))
        for other in profile.compat:
            found |= dict.fromkeys(other.words, (other.architecture, ""))
    # GOARCH's own words imply nothing
    return {word: meaning for word, meaning in found.items() if word != meaning[0]}


@functools.cache
def host_platform() -> Platform:
    """This machine's platform with the highest variant its processor runs."""
    machine = os.uname().machine
    profile = load(machine)
    variant = profile.words.get(machine) or profile.default_variant
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
    profile = named(architecture)
    # what an entry without variant means (OCI image-spec, image index: platform variants)
    word = variant or (profile.default_variant if profile is not None else "")
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


def supersedes(new: Platform, old: Platform, want: Platform) -> bool:
    """Whether ``new``, got for ``want`` under a name, leaves no use for ``old`` under it.

    So it is when ``old`` runs on ``want`` too and has at least the variant of ``new``: it
    would be taken before ``new`` or in its place.  An older ``arm/v6`` beside a new
    ``arm/v7`` stays for those who ask for it.
    """
    wanted = normal(want)
    if not old.architecture:
        return True
    ours, theirs = _rank(new, wanted), _rank(old, wanted)
    if theirs is None:
        return False
    # got for this platform although it is for another one: what it would be passed over for
    return ours is None or theirs[:2] >= ours[:2]


def runs_on(image: Platform, machine: Platform) -> bool:
    """Whether an image for ``image`` runs on ``machine`` without an emulator."""
    return not image.architecture or _rank(image, normal(machine)) is not None
