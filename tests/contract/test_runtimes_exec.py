"""Contract of the runtimes: processes in a running container."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.rig import children, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig import Engine

# native: qemu-user refuses clone(2) with namespaces
pytestmark = [pytest.mark.root, pytest.mark.lxc, pytest.mark.native]


@pytest.fixture
def target(engine: Engine, runtime: str) -> Iterator[str]:
    """A running container; its name."""
    engine.ok(
        *("run", "-d", "--name", "target", "--runtime", runtime, "-e", "GIVEN=yes"),
        *("--cpu-shares", "512", "busybox", "sleep", "1000"),
    )
    yield "target"
    engine.ok("rm", "-f", "target")


@pytest.mark.parametrize("code", [0, 3, 42])
def test_exit_code(engine: Engine, target: str, code: int) -> None:
    assert engine.isula("exec", target, "sh", "-c", f"exit {code}").code == code


@pytest.mark.parametrize(
    ("word", "code"),
    [("nosuchprogram", 127), ("/no/such", 127), ("/etc/passwd", 126), ("/etc", 126)],
)
def test_what_cannot_be_executed_or_found(
    engine: Engine, target: str, word: str, code: int
) -> None:
    result = engine.isula("exec", target, word)
    assert result.code == code
    assert word in result.err
    assert engine.state_of(target)["Running"]


def test_exit_code_of_a_signal(engine: Engine, target: str) -> None:
    assert engine.isula("exec", target, "sh", "-c", "kill -9 $$").code == 137


def test_streams(engine: Engine, target: str) -> None:
    result = engine.isula("exec", target, "sh", "-c", "echo out; echo err >&2")
    assert (result.out, result.err) == ("out\n", "err\n")
    data = os.urandom(200_000).hex()
    assert engine.isula("exec", "-i", target, "cat", stdin=data.encode()).out == data


def test_environment_and_working_directory(engine: Engine, target: str) -> None:
    found = engine.ok(
        "exec", "-e", "OWN=1", "--workdir", "/etc", target, "sh", "-c", "echo $GIVEN $OWN; pwd"
    )
    assert found.splitlines() == ["yes 1", "/etc"]


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ((), ["0", "0", "0"]),
        (("-u", "daemon"), ["1", "1", "1 29"]),
        (("-u", "1:29"), ["1", "29", "29"]),
        (("-u", "12345"), ["12345", "0", "0"]),
    ],
)
def test_user_and_groups(
    engine: Engine, target: str, flags: tuple[str, ...], found: list[str]
) -> None:
    lines = engine.ok("exec", *flags, target, "sh", "-c", "id -u; id -g; id -G").splitlines()
    assert lines[:2] == found[:2]
    assert set(lines[2].split()) == set(found[2].split())


def test_a_user_that_does_not_exist(engine: Engine, target: str) -> None:
    result = engine.isula("exec", "-u", "nobodyhere", target, "id")
    assert result.code != 0
    assert "nobodyhere" in result.err


def test_the_process_is_confined_as_the_containers(engine: Engine, target: str) -> None:
    pattern = "^Cap\\|^Seccomp:\\|^NoNewPrivs"
    inside = engine.ok("exec", target, "grep", pattern, "/proc/self/status")
    init = engine.ok("exec", target, "grep", pattern, "/proc/1/status")
    assert inside == init
    groups = engine.ok("exec", target, "cat", "/proc/self/cgroup")
    # where the unified hierarchy has processes in inner cgroups, LXC enters a leaf
    assert groups.replace("/.lxc", "/") == engine.ok("exec", target, "cat", "/proc/1/cgroup")
    kinds = "for kind in mnt pid net ipc uts cgroup; do readlink /proc/$1/ns/$kind; done"
    assert engine.ok("exec", target, "sh", "-c", kinds, "sh", "self") == engine.ok(
        "exec", target, "sh", "-c", kinds, "sh", "1"
    )


def test_a_detached_exec_goes_on_by_itself(engine: Engine, target: str) -> None:
    assert engine.isula("exec", "-d", target, "sh", "-c", "echo done >/tmp/mark").code == 0
    until(lambda: engine.isula("exec", target, "cat", "/tmp/mark").out == "done\n", "the mark")


def test_signals_reach_the_process(engine: Engine, target: str) -> None:
    client = engine.popen(
        *(
            "exec",
            "--sig-proxy",
            target,
            "sh",
            "-c",
            "trap 'exit 5' TERM; touch /tmp/ready; while :; do sleep 0.1; done",
        ),
        stdout=subprocess.DEVNULL,
    )
    until(lambda: engine.isula("exec", target, "test", "-e", "/tmp/ready").code == 0, "ready")
    client.send_signal(signal.SIGTERM)
    assert client.wait(60) == 5


def test_exec_in_what_does_not_run(engine: Engine, runtime: str) -> None:
    engine.ok("create", "--name", "idle", "--runtime", runtime, "busybox", "true")
    result = engine.isula("exec", "idle", "true")
    assert result.code != 0
    assert "not running" in result.err
    result = engine.isula("exec", "nosuch", "true")
    assert result.code != 0
    assert "nosuch" in result.err


def test_many_execs_at_once(engine: Engine, target: str) -> None:
    clients = [
        engine.popen("exec", target, "echo", str(number), stdout=subprocess.PIPE)
        for number in range(20)
    ]
    assert [client.communicate(timeout=60)[0].decode() for client in clients] == [
        f"{number}\n" for number in range(20)
    ]
    assert [client.returncode for client in clients] == [0] * 20


def test_no_descriptor_and_no_child_stays_behind(
    engine: Engine, target: str, runtime: str
) -> None:
    # the supervisor, and a shim's server
    own = 2 if runtime == "shim" else 1

    def counts() -> tuple[int, int]:
        return len(os.listdir(f"/proc/{engine.pid}/fd")), len(children(engine.pid))

    engine.ok("exec", target, "true")
    until(lambda: len(children(engine.pid)) == own, "only the supervisor left")
    before = counts()
    for _ in range(6):
        engine.ok("exec", target, "true")
        assert engine.isula("exec", target, "nosuch").code == 127
    # a client of before may have been served still
    until(
        lambda: all(now <= then for now, then in zip(counts(), before, strict=True)),
        f"{before} descriptors and children",
    )
