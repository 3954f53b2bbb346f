"""kata-runtime 1.x by its command line: a stand-in with the habits that the real one was seen
to have, whose containers run on the host.
"""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.cri.leavings import cgroups, processes
from tests.fakes import kata_runtime
from tests.fakes.measuring import Measuring
from tests.rig import loaded, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.rig import Engine

pytestmark = [pytest.mark.root, pytest.mark.lxc]


@pytest.fixture(scope="module")
def kata_engine(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Measuring]:
    """An engine whose default runtime is the stand-in."""
    folder = tmp_path_factory.mktemp("kata-engine")
    path = kata_runtime.install(folder / "kata")
    engine = Measuring(
        folder, config={"default-runtime": "kata", "runtimes": {"kata": {"path": str(path)}}}
    )
    with loaded(engine, images):
        yield engine


@pytest.fixture
def kata(kata_engine: Measuring) -> Iterator[Measuring]:
    """The same; what a test's containers leave behind is its failure."""
    calls = kata_engine.folder / "kata" / "calls"
    calls.unlink(missing_ok=True)
    yield kata_engine
    kata_engine.remove_containers()
    folder = f"{kata_engine.folder}/kata"

    def nothing() -> bool:
        left = [*processes({folder}, kata_engine.pid)]
        return not left and not [*(kata_engine.state / "kata" / ".root").glob("*")]

    until(nothing, "no virtual machine and no process left", 20)


def calls(engine: Engine, verb: str) -> list[list[str]]:
    """The command lines with this command."""
    text = (engine.folder / "kata" / "calls").read_text()
    return [words for words in map(json.loads, text.splitlines()) if verb in words]


def run(engine: Engine, *words: str) -> str:
    return engine.ok("run", "-d", "--name", "box", "busybox", *words)


def test_it_is_known_for_what_it_is(kata: Engine) -> None:
    lines = kata.isula("info").lines
    assert f" kata: oci, vm, {kata.folder}/kata/kata-runtime" in lines


@pytest.mark.parametrize("code", [0, 3, 130])
def test_output_and_exit_code(kata: Engine, code: int) -> None:
    result = kata.isula("run", "--rm", "busybox", "sh", "-c", f"echo out; echo e >&2; exit {code}")
    assert (result.code, result.out, result.err) == (code, "out\n", "e\n")
    # no option that only runc has, and an end by delete without force
    assert not [words for words in calls(kata, "create") if "--log" in words]
    assert [words[-2:-1] for words in calls(kata, "delete")] == [["delete"]]


def test_standard_input(kata: Engine) -> None:
    result = kata.isula("run", "-i", "--rm", "busybox", "cat", stdin=b"in\n")
    assert (result.code, result.out) == (0, "in\n")


def test_a_terminal(kata: Engine) -> None:
    result = kata.isula("run", "-t", "--rm", "busybox", "sh", "-c", "tty; exit 4")
    assert result.code == 4
    assert result.out.startswith("/dev/pts/")


def test_exec(kata: Engine) -> None:
    run(kata, "sleep", "1000")
    assert kata.ok("exec", "box", "sh", "-c", "echo $0", "it") == "it"
    assert kata.isula("exec", "-e", "A=b", "-w", "/tmp", "box", "sh", "-c", "exit 7").code == 7
    result = kata.isula("exec", "-i", "box", "cat", stdin=b"in\n")
    assert (result.code, result.out) == (0, "in\n")
    assert kata.ok("exec", "-t", "box", "tty").startswith("/dev/pts/")
    # never a command line, which it would take for capabilities
    assert all("--process" in words for words in calls(kata, "exec"))
    assert kata.isula("exec", "box", "/no/such").code in (126, 127)


def test_stop_does_not_wait_for_the_command_that_blocks(kata: Engine) -> None:
    run(kata, "sleep", "1000")
    # process 1 has no handler: kata's kill would wait 10 s for it, and then kill
    kata.ok("stop", "-t", "1", "box")
    assert kata.state_of("box")["ExitCode"] == 137
    sent = [words[-1] for words in calls(kata, "kill")]
    assert sent == ["15", "9"]
    assert "--all" in calls(kata, "kill")[-1]


def test_a_stop_that_is_heeded(kata: Engine) -> None:
    run(kata, "sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.1; done")
    until(lambda: kata.isula("exec", "box", "true").code == 0, "an exec")
    kata.ok("stop", "-t", "30", "box")
    assert kata.state_of("box")["ExitCode"] == 5


def test_kill(kata: Engine) -> None:
    run(kata, "sh", "-c", "trap 'exit 9' USR1; echo up; while :; do sleep 0.1; done")
    until(lambda: kata.ok("logs", "box") == "up", "the handler")
    kata.ok("kill", "-s", "USR1", "box")
    assert kata.ok("wait", "box") == "9"
    kata.ok("start", "box")
    kata.ok("kill", "box")
    assert kata.state_of("box")["ExitCode"] == 137


def test_pause(kata: Engine) -> None:
    run(kata, "sleep", "1000")
    kata.ok("pause", "box")
    assert kata.state_of("box")["Status"] == "paused"
    assert calls(kata, "pause")
    kata.ok("unpause", "box")
    assert calls(kata, "resume")
    assert kata.ok("exec", "box", "echo", "again") == "again"


def test_a_paused_one_is_removed(kata: Engine) -> None:
    run(kata, "sleep", "1000")
    kata.ok("pause", "box")
    kata.ok("rm", "-f", "box")


def test_the_virtual_machine_dies(kata: Engine) -> None:
    found = run(kata, "sleep", "1000")
    folder = kata.state / "kata" / ".root" / found
    os.kill(int((folder / "vm").read_text()), signal.SIGKILL)
    kata.ok("stop", "-t", "1", "box")
    assert kata.state_of("box")["ExitCode"] == 137
    forced = ["--force" in words for words in calls(kata, "delete")]
    assert forced == [False, True]
    assert not [*cgroups({found})]


def test_kill_fails(kata: Engine) -> None:
    found = run(kata, "sleep", "1000")
    path = kata.folder / "kata" / "kata-runtime"
    text = path.read_text()
    path.write_text(text.replace("export", 'case "$*" in *" kill "*) exit 1 ;; esac\nexport', 1))
    try:
        kata.ok("kill", "box")
        assert kata.state_of("box")["ExitCode"] == 137
        until(lambda: not [*cgroups({found})], "no process of it")
    finally:
        path.write_text(text)


def test_the_engine_is_killed_and_takes_it_over(kata: Engine) -> None:
    run(kata, "sleep", "1000")
    kata.restart(signal.SIGKILL)
    assert kata.state_of("box")["Status"] == "running"
    assert kata.ok("exec", "box", "echo", "again") == "again"
    kata.ok("kill", "box")
    assert kata.state_of("box")["ExitCode"] == 137


def test_it_ends_while_the_engine_is_away(kata: Engine) -> None:
    found = run(kata, "sh", "-c", "sleep 2; exit 6")
    kata.stop(signal.SIGKILL)
    until((kata.state / "exits" / found).exists, "the exit")
    kata.start()
    until(lambda: kata.state_of("box")["Status"] == "exited", "the end")
    assert kata.state_of("box")["ExitCode"] == 6


def test_numbers_and_limits_are_those_inside(kata: Measuring) -> None:
    run(kata, "sleep", "1000")
    (found,) = kata.call("stats", refs=["box"], detailed=True)["items"]
    assert found["group"]["pids"] == 1
    assert found["group"]["memory_usage"] > 0
    assert calls(kata, "events")
    kata.call("update", ref="box", change={"memory": 64 << 20})
    words = calls(kata, "update")[-1]
    assert words[words.index("--resources") + 1] == "-"
    (found,) = kata.call("stats", refs=["box"])["items"]
    assert found["group"]["memory_limit"] == 64 << 20
    # it sleeps, and the virtual machine has its own numbers of processes
    assert calls(kata, "ps") == []
    kata.ok("top", "box")
    assert calls(kata, "ps")
