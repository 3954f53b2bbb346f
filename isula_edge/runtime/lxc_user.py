"""What LXC has no configuration for, or does too early, in the process of a container.

For a container that needs it a program of a few hundred bytes, made for this one container,
is what LXC executes.  It sets scheduler, I/O priority and umask, changes to the user with the
capabilities kept, and executes its arguments in the same process.  LXC itself would lose
all capabilities with the change of the user, and starting it with securebits that keep
them would leave those to every process of the container.

The program also carries the environment of a container whose hooks LXC runs before the
root is changed: LXC gives such a hook, a program of the host that runs as root, the
environment of the container, LD_PRELOAD and PATH included.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.profile.code import Call, Code, find
from isula_edge.sys import atomic
from isula_edge.sys.capability import number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = [
    "IO_CLASSES",
    "NAME",
    "SCHEDULER_FLAGS",
    "SCHEDULER_POLICIES",
    "build",
    "carries_environment",
    "init_uid",
    "install",
    "kept",
    "needed",
    "variables",
]

NAME = "isula-user"
"""The program's name inside a container."""
SCHEDULER_POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
"""Policies of the runtime-spec that Linux has, as sched(7) numbers them."""
SCHEDULER_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
"""Flags of sched_setattr(2)."""
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
"""Classes of ioprio_set(2)."""

_CAPABILITY_VERSION_3 = 0x20080522
_PR_SET_KEEPCAPS, _PR_CAPBSET_DROP = 8, 24
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 47, 2
_IOPRIO_WHO_PROCESS, _IOPRIO_CLASS_SHIFT = 1, 13
_NOBODY = 0xFFFFFFFF
_CHANGING = ("CAP_CHOWN", "CAP_SETUID")
_PRIORITIES = ("CAP_SYS_NICE",)
_DROPPING = ("CAP_SETPCAP",)


def needed(spec: Mapping[str, Any]) -> bool:
    """Whether a container with this document needs the program."""
    process = spec.get("process") or {}
    return bool(
        _keeps(process)
        or _priorities(process)
        or (process.get("user") or {}).get("umask") is not None
        or carries_environment(spec)
    )


def variables(process: Mapping[str, Any]) -> dict[str, str]:
    """The environment as names and values; of two with one name the later one counts."""
    pairs = (pair.partition("=") for pair in process.get("env") or ())
    return {name: value for name, _, value in pairs}


def carries_environment(spec: Mapping[str, Any]) -> bool:
    """Whether the program gives the container its environment, and LXC none.

    So it is when LXC runs hooks with it, when a line of LXC's configuration cannot hold a
    value, and for the variable that LXC sets itself.
    """
    linux = spec.get("linux") or {}
    hooks = (spec.get("hooks") or {}).get("createContainer")
    if linux.get("sysctl") or linux.get("devices") or hooks or spec.get("domainname"):
        return True
    found = variables(spec.get("process") or {})
    return "container" in found or any("\n" in text or "\r" in text for text in _pairs(found))


def _pairs(found: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in found.items()]


def init_uid(process: Mapping[str, Any]) -> int:
    """The user as whom LXC executes the container's command, or the program before it."""
    return 0 if _changes_user(process) else int((process.get("user") or {}).get("uid", 0))


def _keeps(process: Mapping[str, Any]) -> bool:
    """Whether there are capabilities that LXC cannot give."""
    sets = process.get("capabilities") or {}
    return bool(sets.get("ambient") or sets.get("inheritable"))


def _priorities(process: Mapping[str, Any]) -> bool:
    return bool(process.get("scheduler") or process.get("ioPriority"))


def _changes_user(process: Mapping[str, Any]) -> bool:
    wanted = _keeps(process) or _priorities(process)
    return bool(wanted and (process.get("user") or {}).get("uid"))


def _own(process: Mapping[str, Any]) -> list[str]:
    """What the program itself needs and the container does not have, the last one last."""
    names: tuple[str, ...] = ()
    if _changes_user(process):
        names += _CHANGING
    if _priorities(process):
        names += _PRIORITIES
    if not names:
        return []
    bounding = (process.get("capabilities") or {}).get("bounding") or ()
    return [name for name in (*names, *_DROPPING) if name not in bounding]


def kept(process: Mapping[str, Any]) -> list[str]:
    """The bounding set that LXC leaves: the container's and what the program needs."""
    return [*((process.get("capabilities") or {}).get("bounding") or ()), *_own(process)]


class _Data:
    """What the program's calls point to, and where it is in memory."""

    def __init__(self, code: Code) -> None:
        self.bytes = b""
        self._start, self._pointer = code.data, code.pointer

    def add(self, data: bytes) -> int:
        """The address of ``data``."""
        self.bytes += b"\0" * (-len(self.bytes) % 8)
        address = self._start + len(self.bytes)
        self.bytes += data
        return address

    def message(self, field: str) -> tuple[int, int]:
        """Address and length of what is said when the kernel refuses a field."""
        text = f"isulad: the kernel refuses {field} for this container\n".encode()
        return self.add(text), len(text)

    def table(self, texts: Iterable[str]) -> int:
        """The address of a table of strings as execve(2) takes it."""
        addresses = [self.add(f"{text}\0".encode("utf-8", "surrogateescape")) for text in texts]
        return self.add(struct.pack(f"<{len(addresses) + 1}{self._pointer}", *addresses, 0))


def build(spec: Mapping[str, Any], machine: str) -> bytes:
    """The ELF file; Unimplemented for a machine without a profile."""
    process = spec.get("process") or {}
    code = find(machine)
    if code is None:
        raise errors.Unimplemented(
            f"runtime lxc has no ambient capabilities, umask, priorities, device nodes, sysctls "
            f"and createContainer hooks on {machine}",
            kind="architecture",
            ref=machine,
            hint="use --runtime runc",
        )
    data = _Data(code)
    calls = [*_attributes(process, data), *_capabilities(process, data)]
    environment = 0
    if carries_environment(spec):
        environment = data.table(_pairs(variables(process)))
    padding = b"\0" * (-len(data.bytes) % 4)
    return code.program(data.bytes + padding, code.executing(calls, environment))


def _attributes(process: Mapping[str, Any], data: _Data) -> Iterator[Call]:
    """Umask, scheduler and I/O priority; the kernel may refuse the latter two."""
    umask = (process.get("user") or {}).get("umask")
    if umask is not None:
        # it gives the old one
        yield Call("umask", (int(umask),))
    if process.get("scheduler"):
        address = data.add(_scheduler(process["scheduler"]))
        said = data.message("process.scheduler")
        yield Call("sched_setattr", (0, address, 0), said=said)
    if process.get("ioPriority"):
        value, said = _io(process["ioPriority"]), data.message("process.ioPriority")
        yield Call("ioprio_set", (_IOPRIO_WHO_PROCESS, 0, value), said=said)


def _scheduler(scheduler: Mapping[str, Any]) -> bytes:
    """struct sched_attr of sched_setattr(2)."""
    flags = sum({SCHEDULER_FLAGS[flag] for flag in scheduler.get("flags") or ()})
    clamps = flags & (0x20 | 0x40)
    found = struct.pack(
        "<IIQiIQQQ",
        56 if clamps else 48,
        SCHEDULER_POLICIES[scheduler["policy"]],
        flags,
        *(int(scheduler.get(key) or 0) for key in ("nice", "priority")),
        *(int(scheduler.get(key) or 0) for key in ("runtime", "deadline", "period")),
    )
    return found + bytes(8)


def _io(priority: Mapping[str, Any]) -> int:
    kind = IO_CLASSES[priority["class"]]
    return kind << _IOPRIO_CLASS_SHIFT | int(priority.get("priority") or 0)


def _capset_data(sets: Mapping[str, Any]) -> bytes:
    """The two structures of capset(2), one behind the other."""
    masks = [_mask(sets.get(name) or ()) for name in ("effective", "permitted", "inheritable")]
    halves = [mask >> shift & 0xFFFFFFFF for shift in (0, 32) for mask in masks]
    return struct.pack("<2I6I", _CAPABILITY_VERSION_3, 0, *halves)


def _mask(names: Iterable[str]) -> int:
    return sum(1 << number(name) for name in names)


def _capabilities(process: Mapping[str, Any], data: _Data) -> list[Call]:
    calls = []
    sets = process.get("capabilities") or {}
    uid = int((process.get("user") or {}).get("uid", 0))
    if _changes_user(process):
        # as LXC does: whoever opens /dev/stdout again is another user now
        calls += [Call("fchown", (fd, uid, _NOBODY), needed=False) for fd in range(3)]
    calls += [
        Call("prctl", (_PR_CAPBSET_DROP, number(name), 0, 0, 0)) for name in _own(process)
    ]
    if _changes_user(process):
        calls += [
            Call("prctl", (_PR_SET_KEEPCAPS, 1, 0, 0, 0)),
            Call("setresuid", (uid, uid, uid)),
        ]
    if not _keeps(process):
        return calls
    address = data.add(_capset_data(sets))
    calls.append(Call("capset", (address, address + 8)))
    raise_one = (_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE)
    calls += [
        Call("prctl", (*raise_one, number(name), 0, 0)) for name in sets.get("ambient") or ()
    ]
    return calls


def install(folder: str, spec: Mapping[str, Any]) -> str:
    """Writes the program into ``folder``; its path."""
    path = f"{folder}/{NAME}"
    atomic.write(path, build(spec, os.uname().machine), 0o755, durable=False)
    os.chmod(path, 0o755)  # noqa: S103  # any user of a container runs it
    return path
