"""Case A28: a second stop with a shorter time-out is not stuck behind the first."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.rig import until

if TYPE_CHECKING:
    from tests.rig import Engine

pytestmark = [pytest.mark.root, pytest.mark.lxc]


@pytest.mark.parametrize("second", [("stop", "-t", "0"), ("kill",), ("rm", "-f")])
def test_the_second_stop_shortens_the_first(
    engine: Engine, runtime: str, second: tuple[str, ...]
) -> None:
    script = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.05; done"
    engine.ok("run", "-d", "--name", "deaf", "--runtime", runtime, "busybox", "sh", "-c", script)
    until(lambda: "ready" in engine.ok("logs", "deaf"), "the trap set")
    first = engine.popen("stop", "-t", "300", "deaf", stdout=subprocess.DEVNULL)
    until(lambda: "asked" in engine.ok("logs", "deaf"), "the first stop's signal")
    assert first.poll() is None
    # 30 s are ten times what any machine needs, and a tenth of what being stuck takes
    assert engine.isula(*second, "deaf", timeout_s=30).code == 0
    assert first.wait(30) == 0


def test_inspect_and_exec_answer_while_a_stop_waits(engine: Engine, runtime: str) -> None:
    script = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.05; done"
    engine.ok("run", "-d", "--name", "deaf", "--runtime", runtime, "busybox", "sh", "-c", script)
    until(lambda: "ready" in engine.ok("logs", "deaf"), "the trap set")
    first = engine.popen("stop", "-t", "300", "deaf", stdout=subprocess.DEVNULL)
    until(lambda: "asked" in engine.ok("logs", "deaf"), "the first stop's signal")
    assert engine.state_of("deaf")["Running"]
    assert engine.isula("exec", "deaf", "echo", "hello", timeout_s=30).out == "hello\n"
    engine.ok("kill", "deaf")
    assert first.wait(30) == 0
