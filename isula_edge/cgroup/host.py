"""The cgroup hierarchies mounted on this machine, and files in them."""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Host", "init_groups", "nests"]

_PROBE = "isulad-monitor"


def init_groups(text: str) -> dict[str, str]:
    """The cgroup of process 1 by controller ("" for version 2) where it is not the root.

    ``text`` is /proc/1/cgroup.  LXC puts its containers below that cgroup, which on a
    machine's own process 1 is the root or systemd's ``init.scope``, but in a process id
    namespace without a cgroup namespace may be any.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        group = group.strip("/").removesuffix("init.scope").strip("/")
        if group and ".." not in group:
            found.update(dict.fromkeys(controllers.split(","), group))
    return found


def nests(mounts: Mapping[str, str]) -> bool:
    """Whether a group can be below a group in every hierarchy of version 1.

    Early kernels know one level of net_prio (EINVAL, seen on Linux 3.4).  It is tried, with
    groups that are removed again.
    """
    mount = mounts.get("net_prio")
    if mount is None:
        return True
    parent, child = f"{mount}/{_PROBE}", f"{mount}/{_PROBE}/probe"
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(parent, 0o755)
        with contextlib.suppress(FileExistsError):
            os.mkdir(child, 0o755)
    except OSError as error:
        return error.errno != errno.EINVAL
    finally:
        for place in (child, parent):
            with contextlib.suppress(OSError):
                os.rmdir(place)
    return True


@dataclass(frozen=True, slots=True)
class Host:
    """Where each controller is mounted.

    ``version`` is "1", "hybrid" or "2" (or "" without cgroups); ``mounts`` maps a
    controller to the mount point of its hierarchy, ``init`` to the cgroup of process 1
    where that is not the root (`init_groups`): a runtime puts a group there, or at the root.
    ``flat`` says that groups cannot be nested (`nests`).
    """

    version: str
    mounts: Mapping[str, str]
    init: Mapping[str, str] = field(default_factory=dict)
    flat: bool = False

    def group(self, path: str) -> str:
        """``path`` of a group as it is on this machine, without leading slash."""
        path = path.strip("/")
        return path.replace("/", "-") if self.flat else path

    def path(self, controller: str, group: str, name: str = "") -> str:
        """Path of file ``name`` of ``group`` in ``controller``; KeyError when it is absent."""
        *others, base = self._places(controller, group)
        base = next((place for place in others if os.path.isdir(place)), base)
        return f"{base}/{name}" if name else base

    def _places(self, controller: str, group: str) -> list[str]:
        mount = self.mounts[controller]
        init = self.init.get("" if self.version == "2" else controller)
        return [*([f"{mount}/{init}/{group}"] if init else []), f"{mount}/{group}"]

    def has(self, controller: str) -> bool:
        """Whether a limit of this controller can be set."""
        return controller in self.mounts

    def pids(self, group: str) -> list[int]:
        """Every process in ``group`` and below it."""
        for controller in ("pids", "memory", "devices", "freezer", "cpu", ""):
            if controller in self.mounts:
                break
        else:
            return []
        found: list[int] = []
        for folder, _, _ in os.walk(self.path(controller, group)):
            with contextlib.suppress(OSError), open(f"{folder}/cgroup.procs") as file:
                found.extend(int(line) for line in file)
        return sorted(set(found))

    def write(self, controller: str, group: str, name: str, value: str) -> None:
        """Writes one file; OSError names it."""
        with open(self.path(controller, group, name), "w") as file:
            file.write(value)

    def read(self, controller: str, group: str, name: str) -> str:
        """Content of one file without the final newline, or '' when it cannot be read."""
        try:
            with open(self.path(controller, group, name)) as file:
                return file.read().rstrip("\n")
        except (OSError, KeyError):
            return ""

    def oom_files(self, group: str) -> list[str]:
        """The files of which one counts the OOM killer's visits to ``group``.

        memory.events, or memory.oom_control of version 1, which counts since Linux 4.13.
        """
        if not self.has("memory"):
            return []
        name = "memory.events" if self.version == "2" else "memory.oom_control"
        return [f"{place}/{name}" for place in self._places("memory", group)]

    def freeze(self, group: str, frozen: bool) -> None:
        """Freezes or thaws (v1 freezer, or cgroup.freeze of Linux 5.2)."""
        if self.version == "2":
            self.write("", group, "cgroup.freeze", "1" if frozen else "0")
        else:
            self.write("freezer", group, "freezer.state", "FROZEN" if frozen else "THAWED")

    def remove(self, group: str) -> None:
        """Removes what is left of ``group`` in every hierarchy; busy or absent is fine."""
        for place in {place for name in self.mounts for place in self._places(name, group)}:
            for folder, _, _ in os.walk(place, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
