"""Which Linux capabilities (capabilities(7)) a container gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.sys.capability import ALL

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ALL", "DEFAULT", "bounding_set", "choose", "named"]

DEFAULT = (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP "
    "NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE"
).split()
"""What a container has unless told otherwise (the same 14 as Docker and iSulad)."""


def bounding_set() -> frozenset[str]:
    """Capabilities the engine itself may hand on, from /proc/self/status."""
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("CapBnd:"):
                bits = int(line.split()[1], 16)
                return frozenset(name for number, name in enumerate(ALL) if bits >> number & 1)
    return frozenset(ALL)


def _normal(names: Iterable[str], word: str) -> list[str]:
    found = []
    for name in names:
        short = name.upper().removeprefix("CAP_")
        if short != "ALL" and short not in ALL:
            raise errors.InvalidArgument(
                f"Unknown capability to {word}: '{name}'", kind="capability", ref=name
            )
        found.append(short)
    return found


def named(names: Iterable[str]) -> list[str]:
    """``names`` as ``CAP_…`` names in the kernel's order, limited to what the engine has.

    Raises InvalidArgument for an unknown name; ALL is all of them.
    """
    return _allowed(_normal(names, "add"))


def choose(
    add: Iterable[str],
    drop: Iterable[str],
    *,
    also: Iterable[str] = (),
    privileged: bool = False,
) -> list[str]:
    """The capabilities of a container as ``CAP_…`` names, limited to what the engine has.

    ``--cap-add`` is applied to the default set, or to nothing after ``--cap-drop ALL``; one
    that is dropped by its name is not added, but what is in ``also`` is there in any case.
    Raises InvalidArgument for an unknown name.
    """
    adds, drops = _normal(add, "add"), _normal(drop, "drop")
    if privileged:
        chosen = set(ALL)
    else:
        chosen = set() if "ALL" in drops else set(DEFAULT)
        chosen |= set(ALL) if "ALL" in adds else set(adds)
        chosen -= set(drops)
    return _allowed([*chosen, *_normal(also, "add")])


def _allowed(names: Iterable[str]) -> list[str]:
    wanted = set(names)
    allowed = bounding_set()
    return [f"CAP_{name}" for name in ALL if {name, "ALL"} & wanted and name in allowed]
