"""Cgroups of processes as the kernel shows them, whichever hierarchies there are."""

from __future__ import annotations

from pathlib import Path

__all__ = ["leaf", "read"]


def leaf(pid: int, controller: str) -> Path:
    """The directory of a process's cgroup in the hierarchy of ``controller``."""
    groups = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    for _, names, path in groups:
        if controller in names.split(","):
            return (
                Path("/sys/fs/cgroup", names) / path.lstrip("/")
                if not (Path("/sys/fs/cgroup") / controller).exists()
                else Path("/sys/fs/cgroup", controller) / path.lstrip("/")
            )
    path = next(path for number, names, path in groups if number == "0" and not names)
    return Path("/sys/fs/cgroup") / path.lstrip("/")


def read(pid: int, controller: str, v1: str, v2: str) -> str:
    """Text of the leaf file that holds a limit, whichever hierarchy the controller is in."""
    folder = leaf(pid, controller)
    for name in (v1, v2):
        if (folder / name).exists():
            return (folder / name).read_text().strip()
    raise AssertionError(f"neither {v1} nor {v2} in {folder}")
