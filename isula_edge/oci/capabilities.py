"""Linux capabilities by name (capabilities(7)), and which ones a container gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isula_edge import errors

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ALL", "DEFAULT", "bounding_set", "choose"]

ALL = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP "
    "LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER "
    "SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE "
    "SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP "
    "MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF "
    "CHECKPOINT_RESTORE"
).split()
"""Every capability, in the order of its number, without ``CAP_``."""

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


def choose(add: Iterable[str], drop: Iterable[str], *, privileged: bool = False) -> list[str]:
    """The capabilities of a container as ``CAP_…`` names, limited to what the engine has.

    ``--cap-add`` is applied to the default set, or to nothing after ``--cap-drop ALL``.
    Raises InvalidArgument for an unknown name.
    """
    adds, drops = _normal(add, "add"), _normal(drop, "drop")
    if privileged:
        chosen = set(ALL)
    else:
        chosen = set() if "ALL" in drops else set(DEFAULT)
        chosen |= set(ALL) if "ALL" in adds else set(adds)
        chosen -= set(drops)
    allowed = bounding_set()
    return [f"CAP_{name}" for name in ALL if name in chosen and name in allowed]
