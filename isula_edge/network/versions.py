"""Versions of the CNI specification, compared as numbers."""

from __future__ import annotations

from isula_edge import errors

__all__ = ["NEWEST", "OLDEST", "at_least", "parse"]

OLDEST = "0.1.0"
NEWEST = "1.1.0"


def parse(text: str) -> tuple[int, int, int]:
    """``"1.0.0"`` as (1, 0, 0); raises InvalidArgument for anything else."""
    parts = text.split(".")
    if len(parts) != 3 or not all(p.isascii() and p.isdigit() and len(p) < 6 for p in parts):
        raise errors.InvalidArgument(f"invalid CNI version: {text[:100]!r}")
    major, minor, patch = (int(part) for part in parts)
    return major, minor, patch


def at_least(version: str, floor: str) -> bool:
    """Whether ``version`` is ``floor`` or newer."""
    return parse(version) >= parse(floor)
