"""The verdict in isulad's log, and the refusal of a runtime that cannot run here."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.service import machine
from tests.unit.kernel.test_booted_kernels import load

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("name", "level", "line"),
    [
        (
            "x86_64-3.0.1",
            logging.ERROR,
            "kernel 3.0.1: cannot run: o-path-fchdir, child-subreaper missing",
        ),
        (
            "x86_64-4.4.155",
            logging.WARNING,
            "kernel 4.4.155: runs degraded, without cgroup-namespace",
        ),
        (
            "x86_64-4.9.115-v1",
            logging.INFO,
            "kernel 4.9.115: runs, with everything that is wanted",
        ),
    ],
)
def test_the_log(
    kernels: Path, caplog: pytest.LogCaptureFixture, name: str, level: int, line: str
) -> None:
    features = load(kernels, name)
    with caplog.at_level(logging.INFO):
        verdict = machine.tell(features)
    assert verdict == features.verdict()
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [(level, line)]


def test_a_runtime_that_cannot_run(kernels: Path) -> None:
    features = load(kernels, "x86_64-3.4.111")
    assert machine.able(features, "lxc") == "lxc"
    assert machine.able(features, "kata") == "kata"  # it has a kernel of its own
    for runtime in ("runc", "crun"):
        with pytest.raises(errors.Unimplemented) as caught:
            machine.able(features, runtime)
        assert str(caught.value) == (
            f"runtime {runtime} cannot start containers on this kernel, which lacks unshare-pid, "
            "join-namespaces: runc and crun cannot start containers; lxc uses clone(2) and can"
        )
        assert caught.value.hint == "lxc can"


def test_where_none_can(kernels: Path) -> None:
    with pytest.raises(errors.Unimplemented, match="o-path-fchdir, child-subreaper") as caught:
        machine.able(load(kernels, "x86_64-3.0.1"), "lxc")
    assert caught.value.hint == "check-kernel --brief tells all it lacks"
