"""Limits that are refused; that they are set is in the contract suite."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from isula_edge.kernel import Live, cgroup_layout

if TYPE_CHECKING:
    from tests.rig import Engine

pytestmark = [pytest.mark.root, pytest.mark.lxc]


def test_a_limit_without_its_controller_is_refused_with_the_reason(engine: Engine) -> None:
    flags = {
        "memory": ("-m", "32m"),
        "cpu": ("--cpus", "0.5"),
        "cpuset": ("--cpuset-cpus", "0"),
        "pids": ("--pids-limit", "9"),
    }
    layout = cgroup_layout(Live())
    for controller, words in flags.items():
        result = engine.isula("run", "--rm", *words, "busybox", "true")
        if controller in layout.mounts:
            assert result.code == 0
        else:
            assert result.code == 125
            assert controller in result.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("-m", "4x"), ("4x",)),
        (("-m", "1k"), ("memory", "4MB")),
        (("--cpus", "1000"), ("CPU",)),
        (("--cpuset-cpus", "900"), ("900",)),
        (("--cpu-shares", "-3"), ("-3",)),
        (("--pids-limit", "many"), ("many",)),
    ],
)
def test_a_bad_limit_is_refused_before_anything_is_made(
    engine: Engine, flags: tuple[str, ...], words: tuple[str, ...]
) -> None:
    before = sorted(os.listdir(engine.graph / "engines")) if engine.graph.exists() else []
    result = engine.isula("run", *flags, "busybox", "true")
    assert result.code == 125
    for word in words:
        assert word.lower() in result.err.lower()
    assert engine.ok("ps", "-aq") == ""
    assert sorted(os.listdir(engine.graph / "engines")) == before
