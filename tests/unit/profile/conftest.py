"""Made-up machines for the tests: their word of uname, their cpuinfo, their binfmt_misc."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

import pytest

from isula_edge.profile import platform

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from isula_edge.types import Platform


class Machine(Protocol):
    """Gives the platform of a made-up machine."""

    def __call__(self, machine: str, cpuinfo: str | None = None) -> Platform:
        """``machine`` is what uname says; without ``cpuinfo`` there is no /proc/cpuinfo."""


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Machine]:
    """A function that makes a machine and asks for its platform."""
    read_flags = platform._cpu_flags

    def make(machine: str, cpuinfo: str | None = None) -> Platform:
        path = tmp_path / "cpuinfo"
        path.unlink(missing_ok=True)
        if cpuinfo is not None:
            path.write_text(cpuinfo)
        answer = os.uname_result(("Linux", "edge", "6.6.0", "#1", machine))
        monkeypatch.setattr(os, "uname", lambda: answer)
        monkeypatch.setattr(platform, "_cpu_flags", lambda: read_flags(str(path)))
        platform.host_platform.cache_clear()
        return platform.host_platform()

    yield make
    platform.host_platform.cache_clear()


@pytest.fixture
def binfmt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty, enabled binfmt_misc that the engine takes for the kernel's."""
    folder = tmp_path / "binfmt_misc"
    folder.mkdir()
    (folder / "status").write_text("enabled\n")
    (folder / "register").write_text("")
    monkeypatch.setattr("isula_edge.profile.emulator.BINFMT", str(folder))
    return folder
