"""What is asked and said about containers: names, lists, logs, inspect."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from tests.containers import logged, run

if TYPE_CHECKING:
    from tests.rig import Engine

pytestmark = [pytest.mark.root, pytest.mark.lxc]


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
