"""Containers from create to rm, as a user drives them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import termios
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from tests.rig import until

if TYPE_CHECKING:
    from tests.rig import Engine

pytestmark = [pytest.mark.root, pytest.mark.lxc]

# tells that it is ready, then says which signal came, then goes on
TRAPS = (
    'for s in TERM HUP QUIT USR1; do trap "echo got $s" $s; done; '
    "trap 'echo bye; exit 9' USR2; echo ready; while :; do sleep 0.05; done"
)


def run(engine: Engine, runtime: str, name: str, *words: str) -> str:
    return engine.ok("run", "-d", "--name", name, "--runtime", runtime, *words)


def logged(engine: Engine, name: str, text: str) -> None:
    until(lambda: text in engine.ok("logs", name), f"{text!r} in the log")


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
    run(engine, runtime, "keep", "busybox", "sh", "-c", "date >>/root/file; wc -l </root/file")
    engine.ok("wait", "keep")
    engine.ok("start", "-a", "keep")
    assert engine.ok("logs", "keep").splitlines() == ["1", "2"]


@pytest.mark.parametrize("word", ["USR1", "SIGUSR1", "10"])
def test_kill_sends_the_named_signal(engine: Engine, runtime: str, word: str) -> None:
    run(engine, runtime, "sig", "busybox", "sh", "-c", TRAPS)
    logged(engine, "sig", "ready")
    assert engine.ok("kill", "-s", word, "sig") == "sig"
    logged(engine, "sig", "got USR1")
    engine.ok("kill", "-s", "USR2", "sig")
    assert engine.ok("wait", "sig") == "9"
    assert engine.state_of("sig")["ExitCode"] == 9


def test_kill_without_a_signal_ends_it(engine: Engine, runtime: str) -> None:
    run(engine, runtime, "gone", "busybox", "sleep", "1000")
    engine.ok("kill", "gone")
    assert engine.state_of("gone")["ExitCode"] == 137
    result = engine.isula("kill", "gone")
    assert result.code != 0
    assert "is not running" in result.err
    result = engine.isula("kill", "-s", "NONSENSE", "gone")
    assert result.code != 0
    assert "NONSENSE" in result.err


def test_stop_of_what_ends_by_sigterm(engine: Engine, runtime: str) -> None:
    run(
        engine,
        runtime,
        "soft",
        "busybox",
        "sh",
        "-c",
        "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done",
    )
    logged(engine, "soft", "ready")
    engine.ok("stop", "soft")
    assert engine.state_of("soft")["ExitCode"] == 3
    # stopping what does not run is fine
    engine.ok("stop", "soft")


def test_stop_signal_of_the_user(engine: Engine, runtime: str) -> None:
    run(engine, runtime, "own", "--stop-signal", "USR2", "busybox", "sh", "-c", TRAPS)
    logged(engine, "own", "ready")
    engine.ok("stop", "own")
    assert engine.state_of("own")["ExitCode"] == 9


def test_pid_1_without_a_handler_still_ends_at_its_time_out(engine: Engine, runtime: str) -> None:
    run(engine, runtime, "deaf", "busybox", "sleep", "1000")
    engine.ok("stop", "-t", "1", "deaf")
    assert engine.state_of("deaf")["ExitCode"] == 137


def test_pause_and_what_is_refused_meanwhile(engine: Engine, runtime: str) -> None:
    run(engine, runtime, "cold", "busybox", "sh", "-c", "while :; do date +%N; sleep 0.02; done")
    engine.ok("pause", "cold")
    assert engine.state_of("cold")["Status"] == "paused"
    before = engine.ok("logs", "cold")
    assert "(Paused)" in engine.ok("ps", "--filter", "name=cold")
    for words in (("exec", "cold", "true"), ("start", "cold"), ("pause", "cold")):
        result = engine.isula(*words)
        assert result.code != 0, words
        assert "paused" in result.err
    assert engine.ok("logs", "cold") == before
    engine.ok("unpause", "cold")
    until(lambda: len(engine.ok("logs", "cold")) > len(before), "more lines")
    assert engine.isula("unpause", "cold").code != 0


def test_restart_gives_a_new_process_under_the_same_id(engine: Engine, runtime: str) -> None:
    container = run(engine, runtime, "again", "busybox", "sleep", "1000")
    pid = engine.state_of("again")["Pid"]
    engine.ok("restart", "-t", "0", "again")
    found = engine.inspect("again")
    assert found["Id"] == container
    assert found["State"]["Running"]
    assert found["State"]["Pid"] != pid


def test_rename(engine: Engine, runtime: str) -> None:
    container = run(engine, runtime, "old", "busybox", "sleep", "1000")
    run(engine, runtime, "other", "busybox", "sleep", "1000")
    engine.ok("rename", "old", "new")
    assert engine.inspect("new")["Id"] == container
    assert engine.isula("inspect", "old").code != 0
    result = engine.isula("rename", "new", "other")
    assert result.code != 0
    assert "other" in result.err
    assert engine.inspect("new")["Id"] == container


def test_a_name_in_use_is_refused_and_changes_nothing(engine: Engine, runtime: str) -> None:
    container = run(engine, runtime, "mine", "busybox", "sleep", "1000")
    result = engine.isula("run", "-d", "--name", "mine", "busybox", "true")
    assert result.code == 125
    assert "mine" in result.err
    assert container in result.err
    assert engine.ok("ps", "-aq", "--no-trunc").split() == [container]


def test_ps_columns_filters_and_order(engine: Engine, runtime: str) -> None:
    first = run(engine, runtime, "one", "--label", "role=db", "busybox", "sleep", "1000")
    second = run(engine, runtime, "two", "--label", "role=web", "busybox", "true")
    engine.ok("wait", second)
    lines = engine.ok("ps", "-a").splitlines()
    assert re.split(r" {2,}|\t", lines[0].strip()) == [
        "CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES",
    ]  # fmt: skip
    assert [line.split()[0] for line in lines[1:]] == [second[:12], first[:12]]
    assert "Exited (0)" in lines[1]
    assert "Up " in lines[2]
    assert '"sleep 1000"' in lines[2]
    assert engine.ok("ps", "-q", "--no-trunc") == first
    assert engine.ok("ps", "-aq", "--no-trunc", "-f", "label=role=web") == second
    assert engine.ok("ps", "-aq", "--no-trunc", "-f", "status=running") == first
    assert engine.ok("ps", "-a", "--format", "{{.Names}} {{.Image}}").splitlines() == [
        "two busybox:latest", "one busybox:latest",
    ]  # fmt: skip


def test_logs_tail_timestamps_and_follow(engine: Engine, runtime: str) -> None:
    lines = "for i in 1 2 3 4 5; do echo line $i; done"
    script = f"{lines}; while [ ! -e /go ]; do sleep 0.02; done; echo last; sleep 1000"
    run(engine, runtime, "talk", "busybox", "sh", "-c", script)
    logged(engine, "talk", "line 5")
    assert engine.ok("logs", "--tail", "2", "talk").splitlines() == ["line 4", "line 5"]
    stamped = engine.ok("logs", "-t", "--tail", "1", "talk").split(" ", 1)
    assert stamped[1] == "line 5"
    assert datetime.fromisoformat(stamped[0][:26] + "+00:00").year >= 2024
    follower = engine.popen("logs", "-f", "--tail", "1", "talk", stdout=subprocess.PIPE)
    assert follower.stdout is not None
    assert follower.stdout.readline() == b"line 5\n"
    engine.ok("exec", "talk", "touch", "/go")
    assert follower.stdout.readline() == b"last\n"
    engine.ok("stop", "-t", "0", "talk")
    assert follower.communicate(timeout=60)[0] == b""
    assert follower.returncode == 0


def test_top_shows_the_processes_inside(engine: Engine, runtime: str) -> None:
    run(engine, runtime, "busy", "busybox", "sh", "-c", "sleep 1001 & sleep 1002; true")
    until(lambda: "sleep 1001" in engine.ok("top", "busy"), "both processes")
    found = engine.ok("top", "busy").splitlines()
    assert "PID" in found[0]
    assert len(found) == 4


def test_wait_for_several_prints_a_code_each(engine: Engine, runtime: str) -> None:
    run(engine, runtime, "w1", "busybox", "sh", "-c", "exit 4")
    run(engine, runtime, "w2", "busybox", "sh", "-c", "exit 5")
    assert engine.ok("wait", "w1", "w2").splitlines() == ["4", "5"]


def test_rm_flag_removes_a_detached_container_when_it_ends(engine: Engine, runtime: str) -> None:
    container = run(engine, runtime, "brief", "--rm", "busybox", "sleep", "1000")
    engine.ok("stop", "-t", "0", "brief")
    until(lambda: engine.ok("ps", "-aq") == "", "the container gone")
    assert not list(engine.graph.rglob(container))


def test_inspect_tells_what_was_asked_for(engine: Engine, runtime: str) -> None:
    run(
        engine, runtime, "seen", "-m", "32m", "-e", "A=b", "--label", "k=v", "--workdir", "/tmp",
        "--read-only", "busybox", "sleep", "1000",
    )  # fmt: skip
    found = engine.inspect("seen")
    assert found["Name"] == "seen"
    assert found["Config"]["Labels"]["k"] == "v"
    assert "A=b" in found["Config"]["Env"]
    assert found["HostConfig"]["Runtime"] == runtime
    assert found["HostConfig"]["ReadonlyRootfs"] is True
    assert found["Path"], found["Args"] == ("sleep", ["1000"])
    started = datetime.fromisoformat(found["State"]["StartedAt"][:19] + "+00:00")
    assert abs((datetime.now(started.tzinfo) - started).total_seconds()) < 600
    assert engine.ok("inspect", "-f", "{{.State.Running}}", "seen") == "true"
    assert json.loads(engine.ok("inspect", "-f", "{{json .Config.Labels}}", "seen")) == {"k": "v"}


def test_an_attached_terminal(engine: Engine, runtime: str) -> None:
    master, slave = os.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 31, 97, 0, 0))
    client = engine.popen(
        *("run", "-it", "--rm", "--runtime", runtime, "busybox", "sh"),
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)

    def read_until(wanted: bytes) -> None:
        data = b""
        while wanted not in data:
            data += os.read(master, 4096)

    read_until(b"# ")
    os.write(master, b"while ! stty size | grep '31 97'; do sleep 0.05; done\n")
    read_until(b"\n31 97")
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 120, 0, 0))
    client.send_signal(signal.SIGWINCH)
    os.write(master, b"while ! stty size | grep '50 120'; do sleep 0.05; done\n")
    read_until(b"\n50 120")
    os.write(master, b"exit 6\n")
    with contextlib.suppress(OSError):
        while os.read(master, 4096):
            pass
    os.close(master)
    assert client.wait(60) == 6


def test_attach_to_a_running_container(engine: Engine, runtime: str) -> None:
    engine.ok("run", "-d", "-i", "--name", "lines", "--runtime", runtime, "busybox", "sh")
    client = engine.popen("attach", "lines", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert client.communicate(b"echo hello; exit 11\n", timeout=60)[0] == b"hello\n"
    assert client.returncode == 11


def test_killed_by_a_signal_from_outside(engine: Engine, runtime: str) -> None:
    run(engine, runtime, "shot", "busybox", "sleep", "1000")
    os.kill(engine.state_of("shot")["Pid"], signal.SIGKILL)
    assert engine.ok("wait", "shot") == "137"


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


def test_forty_containers_at_once(engine: Engine, runtime: str) -> None:
    clients = [
        engine.popen(
            "run", "-d", "--runtime", runtime, "busybox", "sleep", "1000", stdout=subprocess.PIPE
        )
        for _ in range(40)
    ]
    ids = {client.communicate(timeout=110)[0].decode().strip() for client in clients}
    assert len(ids) == 40
    assert set(engine.ok("ps", "-q", "--no-trunc").split()) == ids
    engine.ok("rm", "-f", *ids)
    assert engine.ok("ps", "-aq") == ""
