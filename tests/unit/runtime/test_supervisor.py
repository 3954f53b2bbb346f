"""The supervisor: its command line, its files, and what a stand-in for conmon answers."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.runtime.supervisor import Supervisor, attach_path, ended, exit_file, resize
from isula_edge.sys.process import Reaper, identify
from tests.unit.runtime.conftest import ID

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from isula_edge.runtime.base import Bundle
    from tests.unit.runtime.conftest import MakeBundle


def argv(bundle: Bundle, *args: str) -> list[str]:
    return Supervisor("/usr/bin/conmon", Reaper()).argv(bundle, "/usr/bin/runc", args)


def options(words: list[str]) -> dict[str, str]:
    """Options that are followed by a value."""
    return {
        word: words[at + 1]
        for at, word in enumerate(words[:-1])
        if word.startswith("-") and not words[at + 1].startswith("-")
    }


def test_the_exit_file_lies_beside_the_runtimes(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = make_bundle()
    assert exit_file(bundle.run_dir) == f"{tmp_path}/state/exits/{ID}"
    assert attach_path(bundle) == f"{tmp_path}/state/lxc/{ID}/attach"


def test_the_command_line(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = make_bundle()
    words = argv(bundle)
    assert words[0] == "/usr/bin/conmon"
    found = options(words)
    assert found["-c"] == found["-u"] == ID
    assert found["-n"] == "box"
    assert found["-r"] == "/usr/bin/runc"
    assert found["-b"] == bundle.run_dir
    assert found["-p"] == f"{bundle.run_dir}/pidfile"
    assert found["--conmon-pidfile"] == f"{bundle.run_dir}/conmon.pid"
    assert found["--exit-dir"] == f"{tmp_path}/state/exits"
    assert found["-l"] == "k8s-file:/graph/engines/box/console.log"
    assert "--full-attach" in words
    for word in ("-t", "-i", "--leave-stdin-open", "--log-size-max"):
        assert word not in words, word


@pytest.mark.parametrize(
    ("terminal", "stdin_open", "expected"),
    [
        (False, False, []),
        (True, False, ["-t"]),
        (False, True, ["-i"]),
        (True, True, ["-t", "-i", "--leave-stdin-open"]),
    ],
)
def test_terminal_and_standard_input(
    make_bundle: MakeBundle, terminal: bool, stdin_open: bool, expected: list[str]
) -> None:
    bundle = make_bundle(terminal=terminal, stdin_open=stdin_open, stdin_stays=terminal)
    words = argv(bundle)
    assert [word for word in words if word in ("-t", "-i", "--leave-stdin-open")] == expected


def test_the_log_has_a_limit(make_bundle: MakeBundle) -> None:
    assert options(argv(make_bundle(log_max_bytes=4096)))["--log-size-max"] == "4096"


def test_words_for_the_runtime(make_bundle: MakeBundle) -> None:
    words = argv(make_bundle(), "--root", "/a b")
    assert words[-2:] == ["--runtime-arg=--root", "--runtime-arg=/a b"]


def test_a_new_size_is_one_line(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    os.mkfifo(f"{bundle.run_dir}/winsz")
    fd = os.open(f"{bundle.run_dir}/winsz", os.O_RDONLY | os.O_NONBLOCK)
    try:
        resize(bundle, 24, 80)
        assert os.read(fd, 100) == b"24 80\n"
    finally:
        os.close(fd)


def test_a_size_for_nobody_is_fine(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    resize(bundle, 24, 80)
    # a FIFO that nobody reads
    os.mkfifo(f"{bundle.run_dir}/winsz")
    resize(bundle, 24, 80)


@pytest.fixture
def launch(make_bundle: MakeBundle, tmp_path: Path) -> Callable[..., tuple[int, Bundle]]:
    """Starts a shell script in conmon's place: the pid it answers, and the bundle."""

    def start(script: str, **env: str) -> tuple[int, Bundle]:
        program, pid_file = tmp_path / "conmon", tmp_path / "conmon.pid"
        program.write_text(f"#!/bin/sh\necho $$ >{pid_file}\n{script}\n")
        program.chmod(0o755)
        bundle = make_bundle()
        supervisor = Supervisor(str(program), Reaper())
        try:
            return asyncio.run(supervisor.launch(bundle, "/runtime", ["-x"], env)), bundle
        finally:
            # the stand-in ends by itself, and nobody else waits for it
            os.waitpid(int(pid_file.read_text()), 0)

    return start


def test_the_pid_that_the_supervisor_answers(
    launch: Callable[..., tuple[int, Bundle]],
) -> None:
    script = 'echo "{\\"data\\": 4711}" >&$_OCI_SYNCPIPE; echo "$A:$PATH:$*" >"$0.said"'
    pid, bundle = launch(script, A="1", PATH="/evil")
    assert pid == 4711
    folder = bundle.run_dir.split("/state/")[0]
    with open(f"{folder}/conmon.said") as file:
        said = file.read()
    # its PATH is the engine's choice
    assert said.startswith("1:/usr/local/sbin:")
    assert said.rstrip().endswith("--runtime-arg=-x")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        # conmon's own account of it
        ('echo "{\\"data\\": -1, \\"message\\": \\"no such thing \\"}" >&4', "no such thing"),
        # else the last line of what was printed
        ('echo first; echo "the reason" >&2; echo "{\\"data\\": -1}" >&4', "the reason"),
        ("exit 1", "the runtime could not create the container"),
        ("echo broken; exit 1", "broken"),
        ("echo '{}' >&4", "{}"),
        ("echo not json >&4", "not json"),
        ("echo '[]' >&4", r"\[\]"),
        ('echo "{\\"data\\": \\"x\\"}" >&4', "data"),
    ],
)
def test_a_failure_is_told_in_the_runtimes_words(
    launch: Callable[..., tuple[int, Bundle]], script: str, words: str
) -> None:
    with pytest.raises(errors.Internal, match=words) as found:
        launch(script)
    assert found.value.ref == "/runtime"


# qemu-user makes a fork of vfork(2), so posix_spawn(3) does not hear that execve(2) failed
@pytest.mark.native
def test_a_supervisor_that_is_not_installed(make_bundle: MakeBundle) -> None:
    async def run() -> None:
        await Supervisor("/no/such/conmon", Reaper()).launch(make_bundle(), "/runtime")

    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(errors.Unavailable, match="cannot start the supervisor /no/such") as found:
        asyncio.run(run())
    assert found.value.hint == "install conmon"
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_log_that_cannot_be_opened_leaves_nothing_open(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    os.mkdir(f"{bundle.run_dir}/conmon.log")

    async def run() -> None:
        with pytest.raises(IsADirectoryError):
            await Supervisor("/conmon", Reaper()).launch(bundle, "/runtime")

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(run())
    assert len(os.listdir("/proc/self/fd")) == before


def test_who_supervises(make_bundle: MakeBundle) -> None:
    bundle, supervisor = make_bundle(), Supervisor("/conmon", Reaper())
    path = f"{bundle.run_dir}/conmon.pid"
    assert supervisor.identity(bundle) is None
    for text in ("", "x", "999999999\n"):
        with open(path, "w") as file:
            file.write(text)
        assert supervisor.identity(bundle) is None
    with open(path, "w") as file:
        file.write(f"{os.getpid()}\n")
    assert supervisor.identity(bundle) == identify(os.getpid())


@pytest.mark.parametrize("long", [False, True])
def test_a_connection_to_the_attach_socket(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long: bool
) -> None:
    """A path of more than 107 bytes does not fit into an address."""
    folder = tmp_path / ("x" * 120 if long else "x")
    folder.mkdir()
    # a short name is made relative to the directory, so that the test's own path does not count
    monkeypatch.chdir(folder)
    bundle = make_bundle(run_dir=str(folder) if long else ".")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind("attach")
        server.listen(1)
        with Supervisor.connect(bundle) as client:
            assert client.getblocking() is False
            other, _ = server.accept()
            with other:
                other.send(b"\x02hello")
                client.setblocking(True)
                assert client.recv(100) == b"\x02hello"


def test_no_connection_without_a_supervisor(make_bundle: MakeBundle) -> None:
    with pytest.raises(errors.FailedPrecondition, match="container box cannot be attached to"):
        Supervisor.connect(make_bundle())


def test_its_end_is_seen_by_its_fifo(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    os.makedirs(bundle.run_dir, exist_ok=True)
    path = f"{bundle.run_dir}/ctl"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    async def scenario() -> None:
        future = ended(bundle)
        # as often as the loop looks while somebody reads
        for _ in range(5):
            await asyncio.sleep(0)
        assert not future.done()
        os.close(reader)
        await asyncio.wait_for(future, 60)
        # and where nobody reads from the first
        await asyncio.wait_for(ended(bundle), 60)

    asyncio.run(scenario())


def test_waiting_for_its_end_can_be_given_up(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    os.makedirs(bundle.run_dir, exist_ok=True)
    path = f"{bundle.run_dir}/ctl"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    async def scenario() -> None:
        before = os.listdir("/proc/self/fd")
        future = ended(bundle)
        assert len(os.listdir("/proc/self/fd")) == len(before) + 1
        future.cancel()
        await asyncio.wait({future})
        await asyncio.sleep(0)
        assert len(os.listdir("/proc/self/fd")) == len(before)

    asyncio.run(scenario())
    os.close(reader)
