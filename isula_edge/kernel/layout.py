"""Which cgroup hierarchies are mounted, and where."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from isula_edge.kernel.source import Source

__all__ = ["CgroupLayout", "Version", "cgroup_layout"]

Version = Literal["v1", "hybrid", "v2", "none"]

_HOME = "/sys/fs/cgroup"
_OCTAL = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}


@dataclass(frozen=True)
class CgroupLayout:
    """The hierarchies of one machine.

    ``mounts`` maps a controller that can be used to the mount point of its hierarchy: of
    version 1 on ``v1`` and ``hybrid`` machines (with ``name=systemd`` and the like for
    hierarchies without controllers), the unified one on ``v2``.  ``unified`` is the mount
    point of the version 2 hierarchy or ''.  ``unified_controllers`` is what the top of
    that hierarchy offers; on a hybrid machine the engine does not use them.
    """

    version: Version
    mounts: Mapping[str, str] = field(default_factory=dict)
    unified: str = ""
    unified_controllers: tuple[str, ...] = ()


def cgroup_layout(source: Source) -> CgroupLayout:
    """The layout that ``/proc/self/mountinfo`` of ``source`` shows.

    A machine with version 1 controllers and the unified hierarchy is ``hybrid``, whether
    or not the unified one has controllers of its own.
    """
    legacy: dict[str, str] = {}
    unified = ""
    for point, kind, options in _mounts(source.read("/proc/self/mountinfo") or ""):
        if kind == "cgroup2":
            if not unified or point.startswith(_HOME):
                unified = point
        elif kind == "cgroup":
            for controller in _controllers(options):
                known = legacy.get(controller, "")
                if not known or (point.startswith(_HOME) and not known.startswith(_HOME)):
                    legacy[controller] = point
    offered: tuple[str, ...] = ()
    if unified:
        offered = tuple((source.read(f"{unified}/cgroup.controllers") or "").split())
    if any(not name.startswith("name=") for name in legacy):
        return CgroupLayout("hybrid" if unified else "v1", legacy, unified, offered)
    if unified:
        return CgroupLayout("v2", dict.fromkeys(offered, unified), unified, offered)
    return CgroupLayout("none", legacy)


def _mounts(text: str) -> list[tuple[str, str, str]]:
    """(mount point, type, super options) of the cgroup mounts, proc_pid_mountinfo(5)."""
    found = []
    for line in text.splitlines():
        left, separator, right = line.partition(" - cgroup")
        if not separator:
            continue
        before, after = left.split(" "), f"cgroup{right}".split(" ")
        if len(before) >= 6 and len(after) >= 3:
            point = before[4]
            for code, character in _OCTAL.items():
                point = point.replace(code, character)
            found.append((point, after[0], after[2]))
    return found


_NOT_CONTROLLERS = frozenset(
    ("rw", "ro", "none", "xattr", "clone_children", "cpuset_v2_mode", "noprefix")
)


def _controllers(options: str) -> list[str]:
    return [
        word
        for word in options.split(",")
        if word not in _NOT_CONTROLLERS and not word.startswith("release_agent=")
    ]
