"""check-kernel, isulad's log and isula info say the same of one machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.rig import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator

TOP = Path(__file__).resolve().parents[2]


class Within(Engine):
    """An engine that is started by other words: in a smaller world."""

    words: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        """The words that start the daemon, after those."""
        first = len(self.network.prefix)
        whole = super().command
        return [*whole[:first], *self.words, *whole[first:]]

    def check_kernel(self) -> dict[str, object]:
        """What check-kernel says in the same world."""
        done = subprocess.run(
            [
                *(*self.network.prefix, *self.words, sys.executable, "-I", "-S"),
                *(str(TOP / "kernel-checks/check-kernel"), "--json"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr == ""
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found


@pytest.fixture
def within(tmp_path: Path) -> Iterator[Within]:
    engine = Within(tmp_path / "engine")
    yield engine
    engine.close()


def agree(engine: Within) -> dict[str, object]:
    table = engine.check_kernel()
    verdict = table["verdict"]
    assert isinstance(verdict, dict)
    info = engine.isula("info").lines
    assert f"Kernel Verdict: {verdict['summary']}" in info
    assert f"kernel {table['release']}: {verdict['summary']}" in engine.log_text()
    told = [line.split(": ")[1] for line in info if line.startswith("Degraded: ")]
    assert sorted(told) == sorted([*verdict["missing"], *verdict["degraded"]])
    return verdict


def test_on_this_machine(within: Within) -> None:
    within.start()
    agree(within)


def test_where_it_cannot_run(within: Within) -> None:
    """It starts, so that it can be asked why, and refuses containers with the reason."""
    drop = "-sys_admin"
    within.words = ("setpriv", f"--inh-caps={drop}", f"--bounding-set={drop}")
    within.start()
    verdict = agree(within)
    assert verdict["status"] == "cannot-run"
    assert verdict["missing"] == ["cap-sys-admin"]
    refused = within.isula("create", "busybox", "true")
    assert refused.code == 1
    assert "runtime lxc cannot start containers on this kernel, which lacks cap-sys-admin" in (
        refused.err
    )
    assert within.isula("ps", "-a").code == 0


def test_where_nobody_can_be_a_subreaper(within: Within) -> None:
    """As on Linux 3.0."""
    within.words = (sys.executable, str(TOP / "ci/imitate"), "--deny", "prctl=EINVAL")
    within.start()
    verdict = agree(within)
    assert "child-subreaper" in verdict["missing"]  # type: ignore[operator]
    assert "which lacks child-subreaper" in within.isula("create", "busybox", "true").err


def test_where_one_runtime_cannot_run(within: Within) -> None:
    """As on Linux 3.4, where unshare(2) knows no pid namespaces."""
    imitate = (sys.executable, str(TOP / "ci/imitate"), "--deny", "unshare=EINVAL")
    # threads that mount overlay want unshare(2) too
    within.words = (*imitate, "--no-overlay")
    within.start()
    agree(within)
    refused = within.isula("create", "--runtime", "runc", "busybox", "true")
    assert "runtime runc cannot start containers on this kernel, which lacks unshare-pid" in (
        refused.err
    )
    # the other goes on to the image, which is not there
    other = within.isula("create", "--runtime", "lxc", "busybox", "true")
    assert "busybox" in other.err
    assert "cannot start" not in other.err
