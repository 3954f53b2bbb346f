"""Security modules by the kernel's files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from isula_edge.sys import lsm

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("text", "there"), [("Y\n", True), ("N\n", False), (None, False)])
def test_apparmor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, there: bool
) -> None:
    path = tmp_path / "enabled"
    monkeypatch.setattr(lsm, "_APPARMOR", str(path))
    if text is not None:
        path.write_text(text)
    assert lsm.apparmor_enabled() is there


def test_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "profiles"
    monkeypatch.setattr(lsm, "_PROFILES", str(path))
    # without securityfs nothing is known: the kernel decides
    assert lsm.apparmor_has("edge")
    path.write_text("edge (enforce)\nwith a blank (x) (complain)\n")
    assert lsm.apparmor_has("edge")
    assert lsm.apparmor_has("with a blank (x)")
    assert not lsm.apparmor_has("edg")
    assert not lsm.apparmor_has("edge (enforce)")


def test_selinux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lsm, "_SELINUX", str(tmp_path / "enforce"))
    assert not lsm.selinux_enabled()
    (tmp_path / "enforce").write_text("0")
    assert lsm.selinux_enabled()
