"""Where the cgroups of pods and containers are, with the names of either cgroup driver.

With the ``cgroupfs`` driver a parent is a path.  With the ``systemd`` driver it is a slice,
whose name tells its place: ``a-b.slice`` lies in ``/a.slice/a-b.slice``, and containers are
scopes in it.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from isula_edge.cgroup.host import Host

__all__ = [
    "container_dir",
    "group_dir",
    "make_group",
    "open_cpuset",
    "remove_groups",
    "systemd_path",
]

_PREFIX = "isulad"
_SLICE = ".slice"


def group_dir(parent: str, *, systemd: bool = False) -> str:
    """Path of a parent cgroup below each hierarchy's root, without leading slash.

    ``systemd`` says that the parent is named by the systemd driver: a slice, or a path that
    ends with one.
    """
    name = os.path.basename(parent.rstrip("/"))
    if not systemd or not name.endswith(_SLICE):
        return parent.strip("/")
    if name == f"-{_SLICE}":
        return ""
    words = name.removesuffix(_SLICE).split("-")
    return "/".join("-".join(words[: end + 1]) + _SLICE for end in range(len(words)))


def container_dir(parent: str, container_id: str, *, systemd: bool = False) -> str:
    """Path of a container's cgroup below each hierarchy's root, without leading slash."""
    scope = systemd and parent.rstrip("/").endswith(_SLICE)
    name = f"{_PREFIX}-{container_id}.scope" if scope else container_id
    return f"{group_dir(parent, systemd=systemd)}/{name}".lstrip("/")


def systemd_path(parent: str, container_id: str) -> str:
    """``linux.cgroupsPath`` for an OCI runtime with ``--systemd-cgroup``: slice:prefix:name."""
    return f"{os.path.basename(parent.rstrip('/'))}:{_PREFIX}:{container_id}"


def make_group(host: Host, group: str) -> list[str]:
    """Makes ``group`` and what is missing above it in every hierarchy: the directories made.

    A cpuset of version 1 gets the CPUs and memory nodes of its parent, without which no
    process can enter it; controllers of version 2 are switched on from above.
    """
    made: list[str] = []
    words = group.strip("/").split("/")
    for mount in dict.fromkeys(host.mounts.values()):
        place = mount
        for word in words:
            if host.version == "2":
                _enable(place)
            parent, place = place, f"{place}/{word}"
            with contextlib.suppress(FileExistsError):
                os.mkdir(place, 0o755)
                made.append(place)
            if mount == host.mounts.get("cpuset") and host.version != "2":
                _inherit(parent, place)
    return made


def open_cpuset(host: Host, parent: str) -> None:
    """Lets LXC make a group below ``parent``, in a cpuset hierarchy of version 1.

    LXC relies on cgroup.clone_children, and switches it on only for the first part of a path;
    below a group that somebody else has made (the kubelet) its own would stay without CPUs,
    and nothing could enter.
    """
    mount = host.mounts.get("cpuset")
    if mount is None or host.version == "2" or not parent.strip("/"):
        return
    place = mount
    for word in parent.strip("/").split("/"):
        above, place = place, f"{place}/{word}"
        _inherit(above, place)
        with contextlib.suppress(OSError), open(f"{place}/cgroup.clone_children", "r+") as file:
            file.write("1")


def remove_groups(made: Iterable[str]) -> None:
    """Removes directories that :func:`make_group` made; busy or absent is fine."""
    for place in sorted(made, key=len, reverse=True):
        with contextlib.suppress(OSError):
            os.rmdir(place)


def _enable(place: str) -> None:
    """Lets children of ``place`` be limited by every controller that it has."""
    with contextlib.suppress(OSError):
        with open(f"{place}/cgroup.controllers", encoding="ascii") as file:
            names = file.read().split()
        with open(f"{place}/cgroup.subtree_control", encoding="ascii") as file:
            enabled = file.read().split()
            names = [name for name in names if name not in enabled]
        for name in names:
            # one by one: a controller that is refused must not keep the others back
            with contextlib.suppress(OSError), open(f"{place}/cgroup.subtree_control", "w") as out:
                out.write(f"+{name}")


def _inherit(parent: str, place: str) -> None:
    for name in ("cpuset.cpus", "cpuset.mems"):
        with contextlib.suppress(OSError):
            with open(f"{place}/{name}", encoding="ascii") as file:
                if file.read().strip():
                    continue
            with open(f"{parent}/{name}", encoding="ascii") as file:
                value = file.read()
            with open(f"{place}/{name}", "w", encoding="ascii") as out:
                out.write(value)
