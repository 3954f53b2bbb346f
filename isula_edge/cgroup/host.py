"""The cgroup hierarchies mounted on this machine, and files in them."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Host", "container_dir"]


def container_dir(parent: str, container_id: str) -> str:
    """Path of a container's cgroup below each hierarchy's root, without leading slash."""
    return f"{parent.strip('/')}/{container_id}".lstrip("/")


@dataclass(frozen=True, slots=True)
class Host:
    """Where each controller is mounted.

    ``version`` is "1", "hybrid" or "2" (or "" without cgroups); ``mounts`` maps a
    controller to the mount point of its hierarchy.
    """

    version: str
    mounts: Mapping[str, str]

    def path(self, controller: str, group: str, name: str = "") -> str:
        """Path of file ``name`` of ``group`` in ``controller``; KeyError when it is absent."""
        base = f"{self.mounts[controller]}/{group}"
        return f"{base}/{name}" if name else base

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

    def oom_file(self, group: str) -> str:
        """The file that counts the OOM killer's visits to ``group``, or ''.

        memory.events, or memory.oom_control of version 1, which counts since Linux 4.13.
        """
        if not self.has("memory"):
            return ""
        name = "memory.events" if self.version == "2" else "memory.oom_control"
        return self.path("memory", group, name)

    def freeze(self, group: str, frozen: bool) -> None:
        """Freezes or thaws (v1 freezer, or cgroup.freeze of Linux 5.2)."""
        if self.version == "2":
            self.write("", group, "cgroup.freeze", "1" if frozen else "0")
        else:
            self.write("freezer", group, "freezer.state", "FROZEN" if frozen else "THAWED")

    def remove(self, group: str) -> None:
        """Removes what is left of ``group`` in every hierarchy; busy or absent is fine."""
        for mount in set(self.mounts.values()):
            for folder, _, _ in os.walk(f"{mount}/{group}", topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
