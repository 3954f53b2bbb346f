"""Contract of the runtimes: what goes through standard streams, and what is logged of it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.containers import logged, script
from tests.rig import program, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rig import Engine

# native: qemu-user refuses clone(2) with namespaces
pytestmark = [pytest.mark.root, pytest.mark.lxc, pytest.mark.native]

MIB = 1 << 20


def raw(engine: Engine, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """A client's streams as bytes."""
    return subprocess.run(
        [program("isula"), *words], input=stdin, capture_output=True, timeout=100,
        env=engine.client_env, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files ``out`` and ``err`` of bytes of every kind."""
    folder = tmp_path_factory.mktemp("noise")
    for name, size in (("out", 4 * MIB + 1), ("err", 3 * MIB + 7)):
        (folder / name).write_bytes(os.urandom(size))
    return folder


def test_much_of_everything_in_both_streams(engine: Engine, runtime: str, noise: Path) -> None:
    words = ("busybox", "sh", "-c", "cat /noise/out & cat /noise/err >&2; wait")
    done = raw(engine, "run", "--rm", "--runtime", runtime, "-v", f"{noise}:/noise", *words)
    assert done.returncode == 0
    assert done.stdout == (noise / "out").read_bytes()
    assert done.stderr == (noise / "err").read_bytes()


def test_much_of_everything_by_exec(engine: Engine, runtime: str, noise: Path) -> None:
    script(engine, runtime, "box", "sleep 1000", "-v", f"{noise}:/noise")
    done = raw(engine, "exec", "box", "sh", "-c", "cat /noise/err >&2 & cat /noise/out; wait")
    assert done.returncode == 0
    assert done.stdout == (noise / "out").read_bytes()
    assert done.stderr == (noise / "err").read_bytes()
    data = (noise / "out").read_bytes()
    done = raw(engine, "exec", "-i", "box", "cat", stdin=data)
    assert done.stdout == data


def test_standard_input_reaches_the_program_and_ends(
    engine: Engine, runtime: str, noise: Path
) -> None:
    data = (noise / "out").read_bytes()
    words = ("run", "--rm", "-i", "--runtime", runtime, "busybox", "sha256sum")
    done = raw(engine, *words, stdin=data)
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_standard_input_is_empty_without_interactive(engine: Engine, runtime: str) -> None:
    done = raw(engine, "run", "--rm", "--runtime", runtime, "busybox", "cat", stdin=b"never")
    assert (done.returncode, done.stdout) == (0, b"")


def test_output_of_before_and_after_an_attach(engine: Engine, runtime: str) -> None:
    text = "echo early; while [ ! -e /go ]; do sleep 0.02; done; echo late; echo error >&2; exit 5"
    script(engine, runtime, "box", text)
    logged(engine, "box", "early")
    before = sockets(engine.pid)
    client = engine.popen("attach", "box", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    # one connection is the client's, another leads to the supervisor
    until(lambda: sockets(engine.pid) >= before + 2, "the client attached")
    engine.ok("exec", "box", "touch", "/go")
    out, err = client.communicate(timeout=60)
    assert (out, err, client.returncode) == (b"late\n", b"error\n", 5)
    logs = engine.isula("logs", "box")
    assert (logs.out, logs.err) == ("early\nlate\n", "error\n")


def sockets(pid: int) -> int:
    """How many sockets a process has open."""
    found = 0
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found += os.readlink(entry).startswith("socket:")
    return found


def test_lines_typed_by_whoever_is_attached(engine: Engine, runtime: str) -> None:
    script(engine, runtime, "lines", "exec sh", "-i")
    client = engine.popen("attach", "lines", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert client.communicate(b"echo hello; exit 11\n", timeout=60)[0] == b"hello\n"
    assert client.returncode == 11


def test_the_log_has_every_line_and_its_stream(engine: Engine, runtime: str) -> None:
    lines = "i=0; while [ $i -lt 2000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done"
    container = script(engine, runtime, "box", f"{lines}; printf end")
    assert engine.ok("wait", "box") == "0"
    logs = engine.isula("logs", "box")
    assert logs.out == "".join(f"out {number}\n" for number in range(2000)) + "end"
    assert logs.err == "".join(f"err {number}\n" for number in range(2000))
    (path,) = engine.graph.glob(f"engines/{runtime}/{container}/console.log")
    words = [line.split(" ", 3)[1:3] for line in path.read_text().splitlines()]
    assert words.count(["stdout", "F"]) == 2000
    assert ["stdout", "P"] in words
    assert words.count(["stderr", "F"]) == 2000


def test_logs_go_on_with_each_start(engine: Engine, runtime: str) -> None:
    script(engine, runtime, "box", "echo $((1 + 1)); exit 3")
    assert engine.ok("wait", "box") == "3"
    result = engine.isula("start", "-a", "box")
    assert (result.code, result.out) == (3, "2\n")
    assert engine.ok("logs", "box").splitlines() == ["2", "2"]


def test_a_program_that_closes_its_streams_goes_on(engine: Engine, runtime: str) -> None:
    text = "echo before; exec >&- 2>&- <&-; while [ ! -e /go ]; do sleep 0.02; done; exit 8"
    script(engine, runtime, "box", text)
    logged(engine, "box", "before")
    assert engine.state_of("box")["Running"]
    engine.ok("exec", "box", "touch", "/go")
    assert engine.ok("wait", "box") == "8"


def test_streams_of_a_process_are_opened_again(engine: Engine, runtime: str) -> None:
    words = ("busybox", "sh", "-c", "echo one >/dev/stdout; echo two >/dev/stderr")
    for user in ("0", "1000"):
        done = raw(engine, "run", "--rm", "-u", user, "--runtime", runtime, *words)
        assert (done.stdout, done.stderr) == (b"one\n", b"two\n"), user
