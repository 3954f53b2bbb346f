"""What a machine can limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.cgroup import Host
from isula_edge.oci.options import Settings
from isula_edge.service import limits
from isula_edge.service.limits import HostLimits

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "page_sizes", lambda: ("2MB",))


def host(tmp_path: Path, version: str = "1", swap: bool = True) -> HostLimits:
    if swap:
        (tmp_path / "memory.memsw.limit_in_bytes").touch()
    names = ("memory", "cpu", "cpuset", "pids", "hugetlb")
    return HostLimits(Host(version, dict.fromkeys(names, str(tmp_path))))


def test_a_kernel_that_counts_no_swap_limits_memory_alone(tmp_path: Path) -> None:
    found = host(tmp_path, swap=False)
    plain, given = Settings(memory=64 * MIB), Settings(memory=64 * MIB, memory_swap=80 * MIB)
    alone = Settings(memory=64 * MIB, no_swap=True)
    for settings in (plain, given, alone):
        found.check(settings)
        assert (settings.memory_swap, settings.no_swap) == (-1, False)
    assert plain.warnings == []
    assert "Memory limited without swap" in given.warnings[0]
    assert "Memory limited without swap" in alone.warnings[0]


def test_a_kernel_that_counts_swap_leaves_it(tmp_path: Path) -> None:
    settings = Settings(memory=64 * MIB, no_swap=True)
    host(tmp_path).check(settings)
    assert settings == Settings(memory=64 * MIB, no_swap=True)


def test_huge_pages_that_cannot_be_limited_may_be_forbidden(tmp_path: Path) -> None:
    settings = Settings(hugepages=[("2MB", 4 * MIB), ("1GB", 0)])
    host(tmp_path).check(settings)
    assert settings.hugepages == [("2MB", 4 * MIB)]
    with pytest.raises(errors.Unimplemented, match="1GB"):
        host(tmp_path).check(Settings(hugepages=[("1GB", 1 << 30)]))


def test_without_the_controller_no_huge_page_can_be_limited(tmp_path: Path) -> None:
    bare = HostLimits(Host("1", {"memory": str(tmp_path)}))
    settings = Settings(hugepages=[("2MB", 0)])
    bare.check(settings)
    assert settings.hugepages == []
    with pytest.raises(errors.Unimplemented, match="2MB"):
        bare.check(Settings(hugepages=[("2MB", 1)]))


def test_files_of_version_2_need_version_2_and_their_controller(tmp_path: Path) -> None:
    settings = Settings(unified={"memory.high": "5"})
    host(tmp_path, "2").check(settings)
    assert settings.unified == {"memory.high": "5"}
    for version in ("1", "hybrid"):
        with pytest.raises(errors.Unimplemented, match=r"memory\.high"):
            host(tmp_path, version).check(Settings(unified={"memory.high": "5"}))
    with pytest.raises(errors.Unimplemented, match=r"io\.max"):
        host(tmp_path, "2").check(Settings(unified={"io.max": "8:0 rbps=1"}))


@pytest.mark.parametrize(
    ("own", "wanted", "got"),
    [("0", -998, 0), ("-500", -998, -500), ("-500", -100, -100), ("0", 1000, 1000)],
)
def test_oom_scores_are_no_lower_than_the_engine_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, wanted: int, got: int
) -> None:
    monkeypatch.setattr(limits, "bounding_set", lambda: frozenset({"CHOWN"}))
    monkeypatch.setattr(limits, "_read", lambda path: own)
    settings = Settings(oom_score_adj=wanted)
    host(tmp_path).check(settings)
    assert settings.oom_score_adj == got
    assert bool(settings.warnings) == (wanted != got)


def test_with_the_capability_any_oom_score_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "bounding_set", lambda: frozenset({"SYS_RESOURCE"}))
    settings = Settings(oom_score_adj=-998)
    host(tmp_path).check(settings)
    assert settings.oom_score_adj == -998
