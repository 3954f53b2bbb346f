"""Hooks that hang or fail: their time-out, and how a person ends them; nothing is left."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from tests.cri.leavings import cgroups, processes
from tests.rig import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rig import Engine, Result

pytestmark = [pytest.mark.root, pytest.mark.lxc]
BEFORE = ("prestart", "createRuntime", "createContainer")


def hanging(folder: Path, kind: str, timeout: int = 0, more: str = "sleep 1000 &") -> str:
    """A file with a hook that never ends, nor does its child in its own process group."""
    script = folder / "hook"
    script.write_text(f"#!/bin/sh\necho $$ >{folder}/began\n{more}\nexec sleep 1000\n")
    script.chmod(0o755)
    hook = {"path": str(script), "env": [f"WHERE={folder}", "PATH=/usr/bin:/bin"]}
    path = folder / "hooks.json"
    path.write_text(json.dumps({kind: [{**hook, "timeout": timeout} if timeout else hook]}))
    return str(path)


def run(engine: Engine, runtime: str, hooks: str, *words: str) -> Result:
    return engine.isula(
        *("run", "--name", "box", "--runtime", runtime, "--hook-spec", hooks),
        *("busybox", *(words or ("echo", "never"))),
    )


def clean(engine: Engine, folder: Path, container: str) -> None:
    """No process of the hook, none of the container, no cgroup, no mount."""

    def left() -> list[str]:
        found = [*processes({str(folder), container}, engine.pid), *cgroups({container})]
        return found + [place for place in engine.mounts() if f"/{container}" in place]

    try:
        until(lambda: not left(), "nothing left", 10)
    except AssertionError:
        raise AssertionError(f"left: {left()}") from None


@pytest.mark.parametrize("kind", BEFORE)
def test_a_hook_is_ended_after_its_time(
    engine: Engine, runtime: str, tmp_path: Path, kind: str
) -> None:
    # runc waits for everybody who has a hook's streams, after it has ended the hook
    more = ":" if runtime == "runc" else "sleep 1000 &"
    result = run(engine, runtime, hanging(tmp_path, kind, 1, more))
    assert result.code == 125, result
    assert "hook" in result.err
    assert "never" not in result.out
    state = engine.state_of("box")
    assert (state["Status"], state["ExitCode"]) == ("exited", 125)
    clean(engine, tmp_path, engine.inspect("box")["Id"])


@pytest.mark.parametrize("words", [("kill",), ("stop", "-t", "1"), ("rm", "-f")])
@pytest.mark.parametrize("kind", BEFORE)
def test_a_start_whose_hook_hangs_is_ended_by_others(
    engine: Engine, runtime: str, tmp_path: Path, kind: str, words: tuple[str, ...]
) -> None:
    hooks = hanging(tmp_path, kind)
    found = engine.ok(
        "create", "--name", "box", "--runtime", runtime, "--hook-spec", hooks, "busybox", "true"
    )
    client = engine.popen("start", "box")
    until((tmp_path / "began").exists, "the hook")
    engine.ok(*words, "box")
    assert client.wait(60) == 1
    clean(engine, tmp_path, found)
    if words[0] != "rm":
        state = engine.state_of("box")
        assert (state["Status"], state["ExitCode"]) == ("exited", 137)
        assert state["Error"] == "ended while it was being started"


@pytest.mark.parametrize("kind", ["prestart", "createContainer"])
def test_a_start_whose_hook_hangs_is_ended_by_ctrl_c(
    engine: Engine, runtime: str, tmp_path: Path, kind: str
) -> None:
    client = engine.popen(
        *("run", "--name", "box", "--runtime", runtime, "--hook-spec", hanging(tmp_path, kind)),
        *("busybox", "echo", "never"),
    )
    until((tmp_path / "began").exists, "the hook")
    client.send_signal(signal.SIGINT)
    assert client.wait(60) == 125
    assert engine.state_of("box")["Status"] == "exited"
    clean(engine, tmp_path, engine.inspect("box")["Id"])


def test_ctrl_c_and_rm_leave_no_container(engine: Engine, runtime: str, tmp_path: Path) -> None:
    hooks = hanging(tmp_path, "prestart")
    client = engine.popen(
        "run", "--rm", "--runtime", runtime, "--hook-spec", hooks, "busybox", "true"
    )
    until((tmp_path / "began").exists, "the hook")
    client.send_signal(signal.SIGTERM)
    assert client.wait(60) == 125
    assert engine.ok("ps", "-aq") == ""
    clean(engine, tmp_path, str(tmp_path))


@pytest.mark.parametrize("words", [("kill",), ("rm", "-f")])
def test_a_hook_beside_the_container_ends_with_it(
    engine: Engine, runtime: str, tmp_path: Path, words: tuple[str, ...]
) -> None:
    hooks = hanging(tmp_path, "poststart")
    found = engine.ok(
        *("create", "--name", "box", "--runtime", runtime, "--hook-spec", hooks),
        *("busybox", "sleep", "1000"),
    )
    client = engine.popen("start", "box")
    until((tmp_path / "began").exists, "the hook")
    engine.ok(*words, "box")
    client.wait(60)
    clean(engine, tmp_path, found)
    if words[0] == "kill":
        assert engine.state_of("box")["ExitCode"] == 137


def test_a_hook_after_the_end_has_its_time(engine: Engine, runtime: str, tmp_path: Path) -> None:
    more = ":" if runtime == "runc" else "sleep 1000 &"
    result = run(engine, runtime, hanging(tmp_path, "poststop", 1, more), "sh", "-c", "exit 4")
    assert result.code == 4, result
    assert engine.state_of("box")["ExitCode"] == 4
    clean(engine, tmp_path, engine.inspect("box")["Id"])


def test_a_hook_after_the_end_is_ended_by_a_second_kill(
    engine: Engine, runtime: str, tmp_path: Path
) -> None:
    hooks = hanging(tmp_path, "poststop")
    found = engine.ok(
        *("run", "-d", "--name", "box", "--runtime", runtime, "--hook-spec", hooks),
        *("busybox", "sleep", "1000"),
    )
    first = engine.popen("kill", "box")
    until((tmp_path / "began").exists, "the hook")
    engine.ok("kill", "box")
    assert first.wait(60) == 0
    assert engine.state_of("box")["ExitCode"] == 137
    clean(engine, tmp_path, found)


def test_what_a_hook_prints_is_cut_and_made_readable(
    engine: Engine, runtime: str, tmp_path: Path
) -> None:
    script = tmp_path / "hook"
    # what runc quotes of it must fit into a pipe: conmon reads that at runc's end
    size = 3000 if runtime == "runc" else 3000000
    script.write_text(f"#!/bin/sh\nhead -c {size} /dev/urandom >&2\nexit 3\n")
    script.chmod(0o755)
    path = tmp_path / "hooks.json"
    path.write_text(json.dumps({"prestart": [{"path": str(script)}]}))
    result = run(engine, runtime, str(path))
    assert result.code == 125, result
    assert len(result.err) < 3000
    assert all(char.isprintable() for line in result.err.splitlines() for char in line)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"preStart": []}, "unknown 'preStart'; there are prestart"),
        ({"prestart": [{"path": "/bin/true", "time": 3}]}, "unknown 'time'"),
        ({"prestart": [{"path": "/bin/true", "timeout": "3"}]}, "timeout must be a number"),
        ({"prestart": {"path": "/bin/true"}}, "prestart is no list"),
    ],
)
def test_files_that_say_what_nobody_understands(
    engine: Engine, runtime: str, tmp_path: Path, table: object, words: str
) -> None:
    path = tmp_path / "hooks.json"
    path.write_text(json.dumps(table))
    result = engine.isula(
        "create", "--runtime", runtime, "--hook-spec", str(path), "busybox", "true"
    )
    assert result.code == 125
    assert words in result.err
    assert engine.ok("ps", "-aq") == ""
