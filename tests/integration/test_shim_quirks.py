"""Shims that are not like runc's: kata's ways, and all that may go wrong with a shim.

The shim is a fake one (`tests.fakes.shim`), which runs the container's command on the host.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from tests.cri.leavings import processes
from tests.fakes import shim
from tests.fakes.shim import Quirks
from tests.rig import Engine, loaded, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.lxc]

ANSWERS = ("plain", "json", "json3", "protobuf", "protobuf3")
WORKING = {
    "kata": shim.KATA,
    **{f"answers-{word}": Quirks(answer=word) for word in ANSWERS},
    "abstract": Quirks(socket="abstract"),
    "oom": Quirks(oom=True),
}
FAILING = {
    "version9": (Quirks(answer="version9"), "version 9"),
    "grpc": (Quirks(answer="grpc"), "not ttrpc"),
    "garbage": (Quirks(answer="garbage"), "makes no sense"),
    "empty": (Quirks(answer="empty"), "printed nothing"),
    "nobody": (Quirks(answer="nobody"), "cannot be reached"),
    "fails": (Quirks(answer="fail"), "start failed"),
    "dies-at-create": (Quirks(dies_at="Create"), "has ended before it answered Create"),
    "dies-at-start": (Quirks(dies_at="Start"), "has ended before it answered Start"),
    "garbage-at-create": (Quirks(garbage_at="Create"), "Create"),
    "garbage-at-start": (Quirks(garbage_at="Start"), "Start"),
    "refuses-create": (Quirks(refuses="Create"), "runtime refuses-create"),
    "cleanup-fails": (Quirks(dies_at="Start", cleanup="fail"), "Start"),
}
HANGING = {f"hangs-at-{verb.lower()}": Quirks(hangs_at=verb) for verb in ("Kill", "State", "Exec")}


@pytest.fixture(scope="module")
def shims(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Engine]:
    """An engine with one runtime for each kind of shim."""
    folder = tmp_path_factory.mktemp("quirks")
    quirks = {**WORKING, **HANGING, **{name: kind for name, (kind, _) in FAILING.items()}}
    runtimes = {}
    for name, kind in quirks.items():
        place = folder / name
        place.mkdir()
        runtimes[name] = {"runtimeType": str(shim.install(place, kind))}
    engine = Engine(folder / "engine", config={"runtimes": runtimes})
    with loaded(engine, images):
        yield engine


@pytest.fixture
def engine(shims: Engine) -> Iterator[Engine]:
    """The same; no process, mount or run directory of a test's containers is left."""
    yield shims
    shims.remove_containers()
    until(lambda: not left(shims), f"nothing left, but {left(shims)}", 10)


def left(engine: Engine) -> list[str]:
    """What containers have left: processes, mounts, files on tmpfs."""
    found = [
        line
        for line in processes({f"{engine.folder}/state"}, engine.pid)
        if "isulad" not in line.partition("--config")[0]
    ]
    found += [place for place in engine.mounts() if place != str(engine.graph)]
    found += [str(path) for path in engine.state.glob("*/" + "[0-9a-f]" * 64)]
    return found


@pytest.mark.parametrize("name", WORKING)
def test_a_container_lives(engine: Engine, name: str) -> None:
    script = "read -r line; echo got $line; echo wrong >&2; exit 42"
    found = engine.isula(
        *("run", "-i", "--runtime", name, "--name", "lives", "busybox", "sh", "-c", script),
        stdin=b"input\n",
    )
    assert (found.code, found.out, found.err) == (42, "got input\n", "wrong\n")
    assert engine.ok("logs", "lives") == "got input"
    assert engine.state_of("lives")["ExitCode"] == 42


@pytest.mark.parametrize("name", ["kata", "abstract"])
def test_exec_signals_and_the_end(engine: Engine, name: str) -> None:
    engine.ok("run", "-d", "--runtime", name, "--name", "runs", "busybox", "sleep", "1000")
    found = engine.isula("exec", "-i", "runs", "sh", "-c", "cat; exit 9", stdin=b"some input")
    assert (found.code, found.out) == (9, "some input")
    assert engine.isula("exec", "runs", "/absent/program").code == 127
    engine.ok("stop", "-t", "10", "runs")
    assert engine.state_of("runs")["ExitCode"] == 128 + signal.SIGTERM
    engine.ok("start", "runs")
    engine.ok("kill", "runs")
    assert engine.state_of("runs")["ExitCode"] == 137


@pytest.mark.parametrize("name", ["kata", "abstract"])
def test_an_engine_that_was_killed_takes_it_over(engine: Engine, name: str) -> None:
    script = "echo before; read -r line; echo after; sleep 1000"
    engine.ok("run", "-di", "--runtime", name, "--name", "kept", "busybox", "sh", "-c", script)
    engine.restart()
    assert engine.state_of("kept")["Status"] == "running"
    assert engine.ok("exec", "kept", "echo", "hello") == "hello"
    engine.ok("kill", "-s", "KILL", "kept")
    assert engine.state_of("kept")["ExitCode"] == 137
    assert engine.ok("logs", "kept") == "before"


def test_the_oom_killer_is_told_by_an_event(engine: Engine) -> None:
    script = "kill -9 $$"
    engine.isula("run", "--runtime", "oom", "--name", "full", "busybox", "sh", "-c", script)
    assert engine.state_of("full")["OOMKilled"] is True


@pytest.mark.parametrize("name", FAILING)
def test_a_start_that_fails(engine: Engine, name: str) -> None:
    found = engine.isula("run", "--runtime", name, "--name", "fails", "busybox", "sleep", "1000")
    assert found.code == 125
    assert FAILING[name][1] in found.err
    state = engine.state_of("fails")
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("exited", 125, 0)
    engine.ok("rm", "fails")


@pytest.mark.parametrize("name", ["kata", "answers-plain"])
def test_a_shim_that_is_killed(engine: Engine, name: str) -> None:
    container = engine.ok(
        "run", "-d", "--runtime", name, "--name", "orphan", "busybox", "sleep", "1000"
    )
    servers = [
        int(line.split()[0])
        for line in processes({container})
        if f"{shim.NAME}" in line.partition("-namespace")[0]
    ]
    assert servers
    for pid in servers:
        os.kill(pid, signal.SIGKILL)
    until(lambda: engine.state_of("orphan")["Status"] == "exited", "the end")
    assert engine.state_of("orphan")["ExitCode"] == 137


def test_a_container_may_close_its_output(engine: Engine) -> None:
    script = "echo said; exec >/dev/null 2>&1; read -r line; exit 6"
    engine.ok("run", "-di", "--runtime", "kata", "--name", "mute", "busybox", "sh", "-c", script)
    until(lambda: engine.ok("logs", "mute") == "said", "the output")
    engine.restart()
    assert engine.state_of("mute")["Status"] == "running"
    engine.isula("attach", "mute", stdin=b"go\n")
    until(lambda: engine.state_of("mute")["Status"] == "exited", "the end")
    assert engine.state_of("mute")["ExitCode"] == 6


def test_a_shim_that_hangs_is_killed_in_the_end(engine: Engine) -> None:
    engine.ok("run", "-d", "--runtime", "hangs-at-kill", "--name", "hung", "busybox", "sleep", "99")
    engine.ok("stop", "-t", "1", "hung")
    assert engine.state_of("hung")["ExitCode"] == 137


def test_a_shim_that_is_slow_keeps_its_container(engine: Engine) -> None:
    script = "read -r line; exit 4"
    engine.ok(
        *("run", "-di", "--runtime", "hangs-at-state", "--name", "slow"),
        *("busybox", "sh", "-c", script),
    )
    engine.restart()
    assert engine.state_of("slow")["Status"] == "running"
    engine.isula("attach", "slow", stdin=b"go\n")
    until(lambda: engine.state_of("slow")["Status"] == "exited", "the end")
    assert engine.state_of("slow")["ExitCode"] == 4


def test_a_pid_of_somebody_else_is_left_alone(engine: Engine) -> None:
    container = engine.ok(
        *("run", "-d", "--runtime", "kata", "--name", "ends", "busybox", "sleep", "1000")
    )
    stranger = subprocess.Popen(["sleep", "1000"])
    try:
        engine.stop(signal.SIGKILL)
        run = engine.state / "kata" / container
        for name in ("pidfile", "conmon.pid"):
            (run / name).write_text(f"{stranger.pid}\n")
        engine.start()
        engine.ok("kill", "ends")
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_many_at_once(engine: Engine) -> None:
    codes: dict[int, int] = {}

    def one(number: int) -> None:
        found = engine.isula(
            *("run", "--rm", "--runtime", "kata", "busybox"), "sh", "-c", f"exit {number}"
        )
        codes[number] = found.code

    threads = [threading.Thread(target=one, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == {number: number for number in range(1, 9)}
