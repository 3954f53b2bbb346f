"""Case A29: a process that merely has the number of a container's init is left alone."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge.store.records import read_record, write_record
from isula_edge.sys import process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.rig import Engine

pytestmark = [pytest.mark.root, pytest.mark.lxc]


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with containers."""
    found = subprocess.Popen(["sleep", "1000"])
    yield found
    found.kill()
    found.wait()


@pytest.mark.parametrize("what", ["start time", "boot"])
def test_a_record_whose_pid_is_somebody_elses(
    make_engine: Callable[..., Engine],
    runtime: str,
    stranger: subprocess.Popen[bytes],
    what: str,
) -> None:
    engine = make_engine()
    container = engine.ok(
        "run", "-d", "--name", "dead", "--runtime", runtime, "busybox", "sleep", "1000"
    )
    engine.stop()
    # the container ends with nobody there, and its number is given to another process
    path = str(engine.graph / "engines" / runtime / container / "container.cbor")
    record = read_record(path, "container")
    state: dict[str, Any] = record["state"]
    init = process.identify(state["pid"])
    assert init is not None
    process.signal_process(init, 9)
    identity = process.identify(stranger.pid)
    assert identity is not None
    state["pid"] = stranger.pid
    state["start_ticks"] = identity.start_ticks + (what == "start time")
    state["boot"] = "0" * 36 if what == "boot" else identity.boot
    write_record(path, "container", record)
    engine.start()
    found = engine.state_of("dead")
    assert (found["Status"], found["Running"], found["Pid"]) == ("exited", False, 0)
    engine.isula("kill", "dead")
    engine.ok("stop", "-t", "0", "dead")
    engine.ok("rm", "-f", "dead")
    assert stranger.poll() is None


def test_an_identity_of_another_process_gets_no_signal(
    stranger: subprocess.Popen[bytes],
) -> None:
    identity = process.identify(stranger.pid)
    assert identity is not None
    other = process.Identity(identity.pid, identity.start_ticks - 1, identity.boot)
    assert process.signal_process(other, 9) is False
    other = process.Identity(identity.pid, identity.start_ticks, "another boot")
    assert process.signal_process(other, 9) is False
    assert stranger.poll() is None
    assert process.signal_process(identity, 15) is True
    assert stranger.wait(60) == -15
