"""Contract of the runtimes: signals, stop and how a container's end is told."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.containers import logged, run, script
from tests.rig import until

if TYPE_CHECKING:
    from tests.rig import Engine

# native: qemu-user refuses clone(2) with namespaces
pytestmark = [pytest.mark.root, pytest.mark.lxc, pytest.mark.native]

# tells that it is ready, then says which signal came, then goes on
TRAPS = (
    'for s in TERM HUP QUIT USR1 WINCH; do trap "echo got $s" $s; done; '
    "trap 'echo bye; exit 9' USR2; echo ready; while :; do sleep 0.05; done"
)


def process_state(pid: int) -> str:
    """The letter of proc(5), for one that runs, sleeps, or is stopped (T)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


@pytest.mark.parametrize(
    ("word", "name"),
    [("USR1", "USR1"), ("SIGHUP", "HUP"), ("sigquit", "QUIT"), ("15", "TERM"), ("28", "WINCH")],
)
def test_kill_sends_the_named_signal(engine: Engine, runtime: str, word: str, name: str) -> None:
    script(engine, runtime, "sig", TRAPS)
    logged(engine, "sig", "ready")
    assert engine.ok("kill", "-s", word, "sig") == "sig"
    logged(engine, "sig", f"got {name}")
    engine.ok("kill", "-s", "USR2", "sig")
    assert engine.ok("wait", "sig") == "9"
    assert engine.state_of("sig")["ExitCode"] == 9
    assert engine.ok("logs", "sig").splitlines() == ["ready", f"got {name}", "bye"]


def test_stopped_and_continued(engine: Engine, runtime: str) -> None:
    run(engine, runtime, "halt", "busybox", "sleep", "1000")
    pid = engine.state_of("halt")["Pid"]
    engine.ok("kill", "-s", "STOP", "halt")
    until(lambda: process_state(pid) == "T", "the process stopped")
    assert engine.state_of("halt")["Running"]
    engine.ok("kill", "-s", "CONT", "halt")
    until(lambda: process_state(pid) == "S", "the process going on")
    engine.ok("kill", "-s", "STOP", "halt")
    until(lambda: process_state(pid) == "T", "the process stopped")
    # SIGKILL ends what is stopped too
    engine.ok("kill", "halt")
    assert engine.state_of("halt")["ExitCode"] == 137


def test_kill_without_a_signal_ends_it_and_then_is_refused(engine: Engine, runtime: str) -> None:
    run(engine, runtime, "gone", "busybox", "sleep", "1000")
    result = engine.isula("kill", "-s", "NONSENSE", "gone")
    assert result.code != 0
    assert "NONSENSE" in result.err
    assert engine.state_of("gone")["Running"]
    engine.ok("kill", "gone")
    assert engine.state_of("gone")["ExitCode"] == 137
    for words in ((), ("-s", "TERM")):
        result = engine.isula("kill", *words, "gone")
        assert result.code != 0
        assert "is not running" in result.err
    assert engine.state_of("gone")["ExitCode"] == 137


@pytest.mark.parametrize(("name", "code"), [("TERM", 143), ("KILL", 137), ("SEGV", 139)])
def test_code_of_a_program_that_a_signal_ended(
    engine: Engine, runtime: str, name: str, code: int
) -> None:
    # pid 1 of a namespace is protected from signals that it does not handle
    run(engine, runtime, "shot", "--pid", "host", "busybox", "sleep", "1000")
    engine.ok("kill", "-s", name, "shot")
    assert engine.ok("wait", "shot") == str(code)
    assert engine.state_of("shot")["ExitCode"] == code


def test_killed_by_a_signal_from_outside(engine: Engine, runtime: str) -> None:
    run(engine, runtime, "shot", "busybox", "sleep", "1000")
    os.kill(engine.state_of("shot")["Pid"], signal.SIGKILL)
    assert engine.ok("wait", "shot") == "137"


def test_every_process_ends_with_init(engine: Engine, runtime: str) -> None:
    script(engine, runtime, "family", "sleep 1001 & sleep 1002 & echo up; exec sleep 1003")
    logged(engine, "family", "up")
    until(lambda: len(engine.ok("top", "family").splitlines()) == 4, "three processes")
    namespace = os.readlink(f"/proc/{engine.state_of('family')['Pid']}/ns/pid")
    engine.ok("kill", "family")
    assert engine.ok("wait", "family") == "137"
    assert in_namespace(namespace) == []


def in_namespace(namespace: str) -> list[str]:
    """Processes of a process id namespace."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{name}/ns/pid") == namespace:
                found.append(name)
        except OSError:
            # it has just ended
            continue
    return found


def test_stop_of_what_ends_by_sigterm(engine: Engine, runtime: str) -> None:
    script(engine, runtime, "soft", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done")
    logged(engine, "soft", "ready")
    engine.ok("stop", "soft")
    assert engine.state_of("soft")["ExitCode"] == 3
    # stopping what does not run is fine
    engine.ok("stop", "soft")
    assert engine.state_of("soft")["ExitCode"] == 3


def test_stop_signal_of_the_user(engine: Engine, runtime: str) -> None:
    script(engine, runtime, "own", TRAPS, "--stop-signal", "USR2")
    logged(engine, "own", "ready")
    engine.ok("stop", "own")
    assert engine.state_of("own")["ExitCode"] == 9


def test_pid_1_without_a_handler_still_ends_at_its_time_out(engine: Engine, runtime: str) -> None:
    run(engine, runtime, "deaf", "busybox", "sleep", "1000")
    engine.ok("stop", "-t", "1", "deaf")
    assert engine.state_of("deaf")["ExitCode"] == 137
