"""File systems of a test's own, in files: ext4 and xfs with project quotas, tmpfs."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from isula_edge.sys import syscalls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["disk"]

_MB = 1 << 20
_MAKE = {"ext4": ["mkfs.ext4", "-q"], "xfs": ["mkfs.xfs", "-q"]}
_QUOTA = {"ext4": ["-O", "project,quota", "-E", "quotatype=prjquota"], "xfs": list[str]()}
_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


@contextlib.contextmanager
def disk(folder: Path, kind: str, *, quota: bool = False, size_mb: int = 400) -> Iterator[Path]:
    """A directory below ``folder`` on a new file system, with project quotas or without.

    Skips, naming what the machine lacks.
    """
    point = folder / f"on-{kind}"
    point.mkdir(parents=True)
    if kind == "tmpfs":
        syscalls.mount("tmpfs", str(point), "tmpfs", 0, f"mode=755,size={size_mb}m")
    else:
        image = folder / f"{kind}.img"
        _make(image, kind, size_mb, quota)
        options = "prjquota" if quota else "defaults"
        if not os.path.exists("/dev/loop-control"):
            subprocess.run(["modprobe", "loop"], check=False)
        command = ["mount", "-t", kind, "-o", f"loop,{options}", str(image), str(point)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            image.unlink()
            # ci/stage boot has a kernel with quotas
            why = done.stderr.partition(f"{point}: ")[2].partition(",")[0].strip()
            pytest.skip(f"this kernel does not mount {kind} with {options}: {why}")
    try:
        yield point
    finally:
        syscalls.umount(str(point), syscalls.MNT_DETACH)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(folder / f"{kind}.img")


def _make(image: Path, kind: str, size_mb: int, quota: bool) -> None:
    program = shutil.which(_MAKE[kind][0], path=f"{os.environ.get('PATH', '')}:{_PATH}")
    if program is None:
        cannot = pytest.fail if os.environ.get("ISULA_TEST_ALL") else pytest.skip
        cannot(f"{_MAKE[kind][0]} is not installed: ci/setup dev")
    with open(image, "wb") as file:
        file.truncate(size_mb * _MB)
    words = [program, *_MAKE[kind][1:], *(_QUOTA[kind] if quota else ()), str(image)]
    subprocess.run(words, check=True, capture_output=True)
