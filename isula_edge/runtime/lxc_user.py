"""What LXC has no configuration for: ambient capabilities and the umask of a container.

For a container that has one of them a program of a few hundred bytes, made for this one
container, is what LXC executes.  It sets the umask, changes to the user with the
capabilities kept, and executes its arguments in the same process.  LXC itself would lose
all capabilities with the change of the user, and starting it with securebits that keep
them would leave those to every process of the container.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.sys import atomic
from isula_edge.sys.capability import number
from isula_edge.sys.elf_calls import MACHINES, Call, code
from isula_edge.sys.elf_program import BASE, HEADERS, elf_program

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["NAME", "build", "init_uid", "install", "kept", "needed"]

NAME = "isula-user"
"""The program's name inside a container."""

_CAPABILITY_VERSION_3 = 0x20080522
_PR_SET_KEEPCAPS, _PR_CAPBSET_DROP = 8, 24
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 47, 2
_NOBODY = 0xFFFFFFFF
_OWN = ("CAP_CHOWN", "CAP_SETUID", "CAP_SETPCAP")
"""What the program itself needs to change the user, and takes away again, the last last."""


def needed(process: Mapping[str, Any]) -> bool:
    """Whether a container with this process needs the program."""
    capabilities = process.get("capabilities") or {}
    return bool(capabilities.get("ambient")) or (process.get("user") or {}).get("umask") is not None


def init_uid(process: Mapping[str, Any]) -> int:
    """The user as whom LXC executes the container's command, or the program before it."""
    return 0 if _changes_user(process) else int((process.get("user") or {}).get("uid", 0))


def _changes_user(process: Mapping[str, Any]) -> bool:
    ambient = (process.get("capabilities") or {}).get("ambient")
    return bool(ambient and (process.get("user") or {}).get("uid"))


def kept(process: Mapping[str, Any]) -> list[str]:
    """The bounding set that LXC leaves: the container's and what the program needs."""
    names = list((process.get("capabilities") or {}).get("bounding") or ())
    if _changes_user(process):
        names += [name for name in _OWN if name not in names]
    return names


def build(process: Mapping[str, Any], machine: str) -> bytes:
    """The ELF file; Unimplemented for a machine without code."""
    if machine not in MACHINES:
        raise errors.Unimplemented(
            f"runtime lxc has neither ambient capabilities nor a umask on {machine}",
            kind="architecture",
            ref=machine,
            hint="use --runtime runc",
        )
    user = process.get("user") or {}
    sets = process.get("capabilities") or {}
    calls, data = [], b""
    if user.get("umask") is not None:
        # it gives the old one
        calls.append(Call("umask", (int(user["umask"]),)))
    if sets.get("ambient"):
        data = _capset_data(sets)
        calls += _capabilities(process, sets)
    return elf_program(MACHINES[machine], data, code(machine, calls))


def _capset_data(sets: Mapping[str, Any]) -> bytes:
    """The two structures of capset(2), one behind the other."""
    masks = [_mask(sets.get(name) or ()) for name in ("effective", "permitted", "inheritable")]
    halves = [mask >> shift & 0xFFFFFFFF for shift in (0, 32) for mask in masks]
    return struct.pack("<2I6I", _CAPABILITY_VERSION_3, 0, *halves)


def _mask(names: Iterable[str]) -> int:
    return sum(1 << number(name) for name in names)


def _capabilities(process: Mapping[str, Any], sets: Mapping[str, Any]) -> list[Call]:
    calls = []
    if _changes_user(process):
        uid = int(process["user"]["uid"])
        # as LXC does: whoever opens /dev/stdout again is another user now
        calls += [Call("fchown", (fd, uid, _NOBODY), needed=False) for fd in range(3)]
        calls += [
            Call("prctl", (_PR_CAPBSET_DROP, number(name), 0, 0, 0))
            for name in _OWN
            if name not in (sets.get("bounding") or ())
        ]
        calls += [
            Call("prctl", (_PR_SET_KEEPCAPS, 1, 0, 0, 0)),
            Call("setresuid", (uid, uid, uid)),
        ]
    calls.append(Call("capset", (BASE + HEADERS, BASE + HEADERS + 8)))
    raise_one = (_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE)
    calls += [Call("prctl", (*raise_one, number(name), 0, 0)) for name in sets["ambient"]]
    return calls


def install(folder: str, process: Mapping[str, Any]) -> str:
    """Writes the program into ``folder``; its path."""
    path = f"{folder}/{NAME}"
    atomic.write(path, build(process, os.uname().machine), 0o755, durable=False)
    os.chmod(path, 0o755)  # noqa: S103  # any user of a container runs it
    return path
