"""Contract of the runtimes: containers from create to rm, as a user drives them."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.containers import logged, run, script
from tests.groups import leaf
from tests.rig import until

if TYPE_CHECKING:
    from tests.rig import Engine

# native: qemu-user refuses clone(2) with namespaces
pytestmark = [pytest.mark.root, pytest.mark.lxc, pytest.mark.native]


def mentioning(word: str) -> list[int]:
    """Processes with ``word`` in their command line."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if word.encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                found.append(int(name))
    return found


def test_what_is_created_does_not_run(engine: Engine, runtime: str) -> None:
    container = engine.ok("create", "--name", "idle", "--runtime", runtime, "busybox", "true")
    state = engine.state_of("idle")
    assert state["Status"] in ("created", "inited")
    assert (state["Running"], state["Pid"], state["ExitCode"]) == (False, 0, 0)
    assert mentioning(container) == []
    assert [place for place in engine.mounts() if container in place] == []
    for words in (("exec", "idle", "true"), ("kill", "idle"), ("pause", "idle")):
        result = engine.isula(*words)
        assert result.code != 0, words
        assert "not running" in result.err
    assert engine.ok("rm", "idle") == "idle"
    assert not list(engine.graph.rglob(container))


def test_create_start_stop_start_remove(engine: Engine, runtime: str) -> None:
    container = engine.ok(
        "create", "--name", "life", "--runtime", runtime, "busybox", "sh", "-c", "echo up; sleep 99"
    )
    assert engine.state_of("life")["Status"] in ("created", "inited")
    assert engine.ok("start", "life") == ""
    first = engine.state_of("life")
    assert (first["Status"], first["Running"]) == ("running", True)
    os.kill(first["Pid"], 0)
    assert engine.ok("stop", "-t", "0", "life") == "life"
    stopped = engine.state_of("life")
    assert (stopped["Status"], stopped["Pid"], stopped["ExitCode"]) == ("exited", 0, 137)
    engine.ok("start", "life")
    assert engine.state_of("life")["Pid"] != first["Pid"]
    logged(engine, "life", "up\nup")
    result = engine.isula("rm", "life")
    assert result.code != 0
    assert f"You cannot remove a running container {container}" in result.err
    assert engine.ok("rm", "-f", "life") == "life"
    assert engine.isula("inspect", "life").code != 0
    assert not [place for place in engine.mounts() if container in place]
    assert not list(engine.graph.rglob(container))
    assert not list(engine.state.rglob(container))


def test_the_writable_layer_lives_until_removal(engine: Engine, runtime: str) -> None:
    script(engine, runtime, "keep", "date >>/root/file; wc -l </root/file")
    engine.ok("wait", "keep")
    engine.ok("start", "-a", "keep")
    assert engine.ok("logs", "keep").splitlines() == ["1", "2"]


def test_pause_and_what_is_refused_meanwhile(engine: Engine, runtime: str) -> None:
    script(engine, runtime, "cold", "while :; do date +%N; sleep 0.02; done")
    engine.ok("pause", "cold")
    state = engine.state_of("cold")
    assert state["Status"] == "paused"
    assert frozen(state["Pid"])
    before = engine.ok("logs", "cold")
    assert "(Paused)" in engine.ok("ps", "--filter", "name=cold")
    for words in (("exec", "cold", "true"), ("start", "cold"), ("pause", "cold")):
        result = engine.isula(*words)
        assert result.code != 0, words
        assert "paused" in result.err
    assert engine.ok("logs", "cold") == before
    engine.ok("unpause", "cold")
    until(lambda: len(engine.ok("logs", "cold")) > len(before), "more lines")
    assert not frozen(state["Pid"])
    assert engine.isula("unpause", "cold").code != 0


def frozen(pid: int) -> bool:
    """Whether the kernel says that all processes of the cgroup are frozen."""
    folder = leaf(pid, "freezer")
    if (folder / "freezer.state").exists():
        return (folder / "freezer.state").read_text().strip() == "FROZEN"
    return "frozen 1" in (folder / "cgroup.events").read_text().splitlines()


@pytest.mark.parametrize(
    ("words", "code"), [(("stop", "-t", "0"), 137), (("stop",), 7), (("kill",), 137)]
)
def test_the_end_of_a_paused_container(
    engine: Engine, runtime: str, words: tuple[str, ...], code: int
) -> None:
    script(engine, runtime, "ice", "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done")
    logged(engine, "ice", "up")
    engine.ok("pause", "ice")
    engine.ok(*words, "ice")
    state = engine.state_of("ice")
    assert (state["Status"], state["ExitCode"]) == ("exited", code)
    engine.ok("start", "ice")
    assert engine.state_of("ice")["Running"]


def test_restart_gives_a_new_process_under_the_same_id(engine: Engine, runtime: str) -> None:
    container = run(engine, runtime, "again", "busybox", "sleep", "1000")
    pid = engine.state_of("again")["Pid"]
    engine.ok("restart", "-t", "0", "again")
    found = engine.inspect("again")
    assert found["Id"] == container
    assert found["State"]["Running"]
    assert found["State"]["Pid"] != pid


def test_top_shows_the_processes_inside(engine: Engine, runtime: str) -> None:
    script(engine, runtime, "busy", "sleep 1001 & sleep 1002; true")
    until(lambda: "sleep 1001" in engine.ok("top", "busy"), "both processes")
    found = engine.ok("top", "busy").splitlines()
    assert "PID" in found[0]
    assert len(found) == 4


def test_wait_for_several_prints_a_code_each(engine: Engine, runtime: str) -> None:
    script(engine, runtime, "w1", "exit 4")
    script(engine, runtime, "w2", "exit 5")
    assert engine.ok("wait", "w1", "w2").splitlines() == ["4", "5"]


def test_rm_flag_removes_a_detached_container_when_it_ends(engine: Engine, runtime: str) -> None:
    container = run(engine, runtime, "brief", "--rm", "busybox", "sleep", "1000")
    engine.ok("stop", "-t", "0", "brief")
    until(lambda: engine.ok("ps", "-aq") == "", "the container gone")
    # os.walk minds no directory that goes meanwhile
    until(
        lambda: all(container not in (*found, *files) for _, found, files in os.walk(engine.graph)),
        "its files gone",
    )


def test_clients_that_go_away_end_no_container(engine: Engine, runtime: str) -> None:
    client = engine.popen(
        "run", "--name", "stays", "--runtime", runtime, "busybox", "sleep", "1000",
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    until(lambda: engine.ok("ps", "-q", "-f", "name=stays"), "the container running")
    client.kill()
    client.wait()
    until(lambda: engine.state_of("stays")["Running"], "the container running")
    assert engine.ok("exec", "stays", "echo", "still") == "still"
