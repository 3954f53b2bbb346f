"""Contract of the runtimes: the engine is killed or ended, containers go on and are taken over."""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from isula_edge.sys import process
from tests.rig import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.rig import Engine

# native: qemu-user refuses clone(2) with namespaces
pytestmark = [pytest.mark.root, pytest.mark.lxc, pytest.mark.native]


@pytest.fixture
def engine(make_engine: Callable[..., Engine]) -> Engine:
    """An engine of the test's own."""
    return make_engine()


def start(engine: Engine, runtime: str, name: str, *words: str) -> process.Identity:
    engine.ok("run", "-d", "--name", name, "--runtime", runtime, "busybox", *words)
    found = process.identify(engine.state_of(name)["Pid"])
    assert found is not None
    return found


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_containers_go_on_and_are_taken_over(engine: Engine, runtime: str, how: int) -> None:
    init = start(engine, runtime, "lives", "sh", "-c", "while :; do date +%s%N; sleep 0.05; done")
    engine.stop(how)
    assert init.alive()
    log = next(engine.graph.rglob("console.log"))
    size = log.stat().st_size
    until(lambda: log.stat().st_size > size + 200, "output written while no engine runs")
    engine.start()
    assert engine.state_of("lives")["Pid"] == init.pid
    before = len(engine.ok("logs", "lives"))
    until(lambda: len(engine.ok("logs", "lives")) > before, "output going on")
    assert engine.ok("exec", "lives", "echo", "hello") == "hello"
    engine.ok("stop", "-t", "0", "lives")
    assert engine.state_of("lives")["ExitCode"] == 137
    assert not init.alive()
    engine.ok("start", "lives")
    engine.ok("rm", "-f", "lives")
    assert engine.mounts() == []


@pytest.mark.parametrize("code", [0, 42])
def test_the_code_of_what_ended_meanwhile_is_right(engine: Engine, runtime: str, code: int) -> None:
    script = f"while [ ! -e /go ]; do sleep 0.02; done; exit {code}"
    init = start(engine, runtime, "ends", "sh", "-c", script)
    root = f"/proc/{init.pid}/root"
    engine.stop(signal.SIGKILL)
    with open(f"{root}/go", "w"):
        pass
    until(lambda: not init.alive(), "the container's end")
    engine.start()
    found = engine.state_of("ends")
    assert (found["Status"], found["ExitCode"]) == ("exited", code)
    assert engine.mounts() == []


def test_a_kill_while_no_engine_runs_is_seen(engine: Engine, runtime: str) -> None:
    init = start(engine, runtime, "shot", "sleep", "1000")
    engine.stop(signal.SIGKILL)
    process.signal_process(init, signal.SIGKILL)
    until(lambda: not init.alive(), "the container's end")
    engine.start()
    assert engine.state_of("shot")["ExitCode"] == 137


def test_wait_and_rm_flag_work_for_taken_over_containers(engine: Engine, runtime: str) -> None:
    engine.ok(
        "run", "-d", "--rm", "--name", "brief", "--runtime", runtime, "busybox", "sleep", "1000"
    )
    start(engine, runtime, "other", "sleep", "1000")
    engine.restart()
    waiting = engine.popen("wait", "other", stdout=subprocess.PIPE)
    engine.ok("kill", "brief")
    until(lambda: engine.ok("ps", "-a", "--format", "{{.Names}}") == "other", "brief's removal")
    engine.ok("kill", "other")
    assert waiting.communicate(timeout=60)[0] == b"137\n"


def test_paused_containers_stay_paused(engine: Engine, runtime: str) -> None:
    start(engine, runtime, "cold", "sleep", "1000")
    engine.ok("pause", "cold")
    engine.restart()
    assert engine.state_of("cold")["Status"] == "paused"
    engine.ok("unpause", "cold")
    assert engine.ok("exec", "cold", "echo", "warm") == "warm"
