"""Asking for overlay leaves no line in the kernel's log, and mounts nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from isula_edge.kernel import _probe_calls

if TYPE_CHECKING:
    from collections.abc import Callable

MS_SILENT = 1 << 15
NAMES = ["mount.overlay", "mount.overlay_multilower", "mount.overlayfs_old_name"]


class Recorder:
    """A libc that mounts nothing."""

    def __init__(self) -> None:
        self.mounts: list[tuple[bytes, int, bytes]] = []

    def mount(self, _source: bytes, target: bytes, _type: bytes, flags: int, data: bytes) -> int:
        self.mounts.append((target, flags, data))
        return -1


@pytest.mark.parametrize("name", NAMES)
def test_a_probe_of_overlay_is_silent(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    libc = Recorder()
    ask: Callable[[str], object] = _probe_calls.ask
    monkeypatch.setattr(_probe_calls, "_libc", libc)
    ask(name)
    ((target, flags, data),) = libc.mounts
    assert flags & MS_SILENT
    assert os.path.exists(target)
    assert not os.path.isdir(target)
    lowers = data.partition(b"=")[2].split(b":")
    assert all(not lower or os.path.isdir(lower) for lower in lowers)
