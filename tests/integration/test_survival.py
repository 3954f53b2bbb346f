"""What a crash leaves half-made, and a supervisor that is killed too."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from isula_edge.sys import process
from tests.rig import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.rig import Engine

pytestmark = [pytest.mark.root, pytest.mark.lxc]


@pytest.fixture
def engine(make_engine: Callable[..., Engine]) -> Engine:
    """An engine of the test's own."""
    return make_engine()


def processes(word: str) -> list[int]:
    """Processes with ``word`` in their command line."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
            if word.encode() in file.read():
                found.append(int(name))
    return found


def start(engine: Engine, runtime: str, name: str, *words: str) -> process.Identity:
    engine.ok("run", "-d", "--name", name, "--runtime", runtime, "busybox", *words)
    found = process.identify(engine.state_of(name)["Pid"])
    assert found is not None
    return found


def test_the_supervisor_is_killed_too(engine: Engine, runtime: str) -> None:
    init = start(engine, runtime, "alone", "sleep", "1000")
    pid = int(next(engine.state.rglob("conmon.pid")).read_text())
    os.kill(pid, signal.SIGKILL)
    process.signal_process(init, signal.SIGKILL)
    until(lambda: engine.state_of("alone")["Status"] == "exited", "the end seen", 90)
    assert not init.alive()
    engine.ok("start", "alone")
    engine.ok("rm", "-f", "alone")


def test_a_killed_engine_in_the_middle_of_creating_leaves_nothing(
    engine: Engine, runtime: str
) -> None:
    for round_ in range(6):
        clients = [
            engine.popen(
                "run", "-d", "--runtime", runtime, "busybox", "sleep", "1000",
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            for _ in range(4)
        ]  # fmt: skip
        until(lambda: any(engine.graph.glob("storage/*/rw/*")), "a layer")
        if round_ % 2:
            clients[0].wait(60)
        engine.restart()
        for client in clients:
            client.wait(60)
        engine.remove_containers()
    assert engine.ok("ps", "-aq") == ""
    assert list(engine.graph.glob("storage/*/rw/*")) == []
    assert engine.mounts() == []
    assert processes(str(engine.folder)) == [engine.pid]
    engine.ok("rmi", "busybox")
