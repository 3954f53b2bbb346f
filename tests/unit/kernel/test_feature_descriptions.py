"""The descriptions: complete, well-formed, and the same in the manual."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors, kernel
from isula_edge.kernel import Need, State, features
from isula_edge.kernel.report import markdown, render
from isula_edge.sys import data

if TYPE_CHECKING:
    from pathlib import Path

MANUAL = f"{os.path.dirname(__file__)}/../../../docs/kernel-support.md"


def test_every_probe_is_described_and_every_description_probed() -> None:
    assert set(kernel.describe()) == set(kernel.NAMES)
    assert len(kernel.NAMES) >= 120


@pytest.mark.parametrize("name", kernel.NAMES)
def test_description(name: str) -> None:
    text = kernel.describe()[name]
    assert re.fullmatch(r"\d+\.\d+(\.\d+)?|no mainline release", text.since)
    assert text.what
    assert text.without
    assert text.without[-1] != "."
    assert text.how
    assert "|" not in text.what + text.without + text.how
    assert isinstance(text.need, Need)


def test_runtimes_need_described_features() -> None:
    assert {"lxc", "runc", "crun", "kata"} == set(features.runtimes())
    for needs in features.runtimes().values():
        assert set(needs) <= set(kernel.NAMES)


def test_manual_has_the_tables() -> None:
    with open(MANUAL, encoding="utf-8") as file:
        manual = file.read()
    assert markdown() in manual, "put the output of check-kernel --describe into it"


def test_manual_has_the_kernels(kernels: Path) -> None:
    with open(MANUAL, encoding="utf-8") as file:
        manual = file.read()
    for name in sorted(os.listdir(kernels)):
        if "host" in name:
            continue
        table = kernel.probe(kernel.Saved(str(kernels / name)))
        verdict = table.verdict()
        lacks = ", ".join(f"`{item}`" for item in (*verdict.missing, *verdict.degraded)) or "-"
        runtimes = ", ".join(one for one, lack in verdict.runtimes.items() if not lack) or "none"
        row = f"| {name} | {verdict.status.value} | {runtimes} | {lacks} |"
        assert row in manual, row


def test_colours_and_groups(kernels: Path) -> None:
    table = kernel.probe(kernel.Saved(str(kernels / "x86_64-3.10.105-v1")))
    plain, painted = render(table), render(table, colour=True)
    assert "\x1b[33mabsent" in painted
    assert re.sub(r"\x1b\[\d*m", "", painted) == plain


def test_data_is_found_in_a_package_and_in_a_clone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "isula_edge" / "kernel"
    package.mkdir(parents=True)
    monkeypatch.setattr(data, "__file__", str(package / "data.py"))
    assert data.data_dir() == str(tmp_path / "kernel-checks")
    installed = tmp_path / "isula_edge" / "_data" / "kernel-checks"
    installed.mkdir(parents=True)
    assert data.data_dir() == str(installed)


def test_missing_data_names_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(features, "data_dir", lambda: str(tmp_path))
    features._table.cache_clear()
    try:
        with pytest.raises(errors.Internal, match=r"features\.toml"):
            features._table()
    finally:
        features._table.cache_clear()


def test_what_is_not_missing_is_not_degraded(kernels: Path) -> None:
    table = kernel.probe(kernel.Saved(str(kernels / "x86_64-3.4.111-v1")))
    for item in table.degraded():
        assert item.state in (State.ABSENT, State.UNUSABLE)
        assert item.to_json()["without"] == item.without
