"""Calls to a shim, over a real connection to a shim that is ours to break."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.runtime import shim_messages as messages
from isula_edge.runtime.shim_messages import Address
from isula_edge.runtime.shim_process import Shim
from isula_edge.runtime.shim_task import Gone, Task
from isula_edge.runtime.ttrpc import Server
from tests.fakes.shim import KATA, Quirks, install
from tests.fakes.shim_rig import Rig, make_bundle, run, until_dead, until_gone

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

PLAIN = Quirks()
SH = ["sh", "-c"]
SLEEP = ["sleep", "1000"]


def shim(folder: Path, quirks: Quirks = PLAIN) -> Shim:
    return Shim(str(install(folder, quirks)), namespace=f"test-{os.getpid()}", address=str(folder))


@pytest.mark.parametrize("quirks", [PLAIN, KATA], ids=["runc", "kata"])
def test_a_life_with_streams_and_an_exit_code(tmp_path: Path, quirks: Quirks) -> None:
    async def work(rig: Rig) -> None:
        bundle = make_bundle(tmp_path, "c1", [*SH, "echo out; echo err >&2; read a; exit $a"])
        task = await rig.serve(bundle)
        out, err = rig.stream(tmp_path / "out"), rig.stream(tmp_path / "err")
        stdin = tmp_path / "in"
        os.mkfifo(stdin)
        pid = await task.create(
            "c1", str(bundle), stdin=str(stdin), stdout=out.path, stderr=err.path
        )
        state = await task.state("c1")
        assert (state.status, state.pid, state.bundle) == (messages.CREATED, pid, str(bundle))
        assert (state.stdin, state.stdout, state.stderr) == (str(stdin), out.path, err.path)
        waiting = asyncio.create_task(task.wait("c1"))
        assert await task.start("c1") == pid
        assert await out.read(b"out\n") == b"out\n"
        assert await err.read(b"err\n") == b"err\n"
        assert (await task.state("c1")).status == messages.RUNNING
        with open(stdin, "wb") as writer:
            writer.write(b"7\n")
        ended = await waiting
        assert ended.exit_status == 7
        assert ended.exited_ns is not None
        assert await out.read() == b""
        assert await task.wait("c1") == ended
        state = await task.state("c1")
        assert (state.status, state.exit_status) == (messages.STOPPED, 7)
        assert await task.delete("c1") == messages.DeleteResponse(pid, 7, ended.exited_ns)
        with pytest.raises(errors.NotFound) as caught:
            await task.state("c1")
        assert (caught.value.kind, caught.value.ref) == ("runtime", "c1")
        await task.shutdown("c1")
        await asyncio.wait_for(task.closed, 30)

    run(shim(tmp_path, quirks), work)


def test_input_ends_only_when_nobody_has_it_open(tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        bundle = make_bundle(tmp_path, "c1", [*SH, "cat; exit 3"])
        task = await rig.serve(bundle)
        out, err = rig.stream(tmp_path / "out"), rig.stream(tmp_path / "err")
        stdin = tmp_path / "in"
        os.mkfifo(stdin)
        await task.create("c1", str(bundle), stdin=str(stdin), stdout=out.path, stderr=err.path)
        await task.start("c1")
        for line in (b"one\n", b"two\n"):
            with open(stdin, "wb") as writer:
                writer.write(line)
            assert await out.read(line) == line
        await task.close_io("c1")
        assert (await task.wait("c1")).exit_status == 3

    run(shim(tmp_path), work)


def test_a_terminal_and_its_size(tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        args = [*SH, "read x; stty size; exec sleep 1000"]
        bundle = make_bundle(tmp_path, "c1", args, terminal=True)
        task = await rig.serve(bundle)
        out, stdin = rig.stream(tmp_path / "out"), tmp_path / "in"
        os.mkfifo(stdin)
        await task.create("c1", str(bundle), terminal=True, stdin=str(stdin), stdout=out.path)
        await task.start("c1")
        await task.resize("c1", width=81, height=31)
        with open(stdin, "wb") as writer:
            writer.write(b"go\n")
        assert b"31 81" in await out.read(b"31 81")
        await task.kill("c1", signal.SIGKILL)
        assert (await task.wait("c1")).exit_status == 137

    run(shim(tmp_path), work)


def test_an_exec_beside_the_first_process(tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        task = await rig.serve(make_bundle(tmp_path, "c1", SLEEP))
        await task.create("c1", str(tmp_path / "c1"))
        first = await task.start("c1")
        process = {"args": [*SH, "echo $WORD; exit 9"], "env": ["WORD=hi", "PATH=/bin:/usr/bin"]}
        out, err = rig.stream(tmp_path / "out"), rig.stream(tmp_path / "err")
        await task.exec("c1", "e1", process, stdout=out.path, stderr=err.path)
        waiting = asyncio.create_task(task.wait("c1", "e1"))
        pid = await task.start("c1", "e1")
        assert pid not in (0, first)
        assert (await waiting).exit_status == 9
        assert await out.read() == b"hi\n"
        assert (await task.state("c1", "e1")).status == messages.STOPPED
        assert (await task.delete("c1", "e1")).exit_status == 9
        with pytest.raises(errors.NotFound):
            await task.start("c1", "e1")
        assert await task.pids("c1") == (first,)
        with pytest.raises(errors.Internal, match="executable file not found"):
            await task.exec("c1", "e2", {"args": ["no-such-program"]})

    run(shim(tmp_path), work)


def test_pause_update_and_statistics(tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        bundle = make_bundle(tmp_path, "c1", SLEEP)
        task = await rig.serve(bundle)
        pid = await task.create("c1", str(bundle))
        await task.start("c1")
        await task.pause("c1")
        assert (await task.state("c1")).status == messages.PAUSED
        await task.resume("c1")
        assert (await task.state("c1")).status == messages.RUNNING
        await task.update("c1", {"memory": {"limit": 1 << 26}}, annotations={"a": "b"})
        assert json.loads((bundle / "resources.json").read_text()) == {"memory": {"limit": 1 << 26}}
        found = await task.stats("c1")
        assert found.pids == 1
        assert found.memory_usage > 0
        info = await task.connect_info("c1")
        assert info.task_pid == pid
        assert info.shim_pid not in (0, pid)
        with pytest.raises(errors.Internal, match="running"):
            await task.delete("c1")

    run(shim(tmp_path), work)


def test_a_signal_for_the_first_process_and_one_for_all(tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        args = [*SH, "trap 'kill $!; exit 5' TERM; echo up; sleep 1000 & wait"]
        task = await rig.serve(make_bundle(tmp_path, "c1", args))
        out, err = rig.stream(tmp_path / "out"), rig.stream(tmp_path / "err")
        await task.create("c1", str(tmp_path / "c1"), stdout=out.path, stderr=err.path)
        await task.start("c1")
        await out.read(b"up")
        await task.kill("c1", signal.SIGTERM)
        assert (await task.wait("c1")).exit_status == 5
        with pytest.raises(errors.NotFound, match="finished"):
            await task.kill("c1", signal.SIGTERM)

        await task.delete("c1")
        os.rename(tmp_path / "c1", tmp_path / "old")
        again = make_bundle(tmp_path, "c1", args)
        await task.create("c1", str(again))
        await task.start("c1")
        await task.kill("c1", signal.SIGKILL, all=True)
        assert (await task.wait("c1")).exit_status == 137
        await task.delete("c1")
        await task.shutdown("c1")
        await asyncio.wait_for(task.closed, 30)

    run(shim(tmp_path), work)


def test_output_without_error_output_is_refused_as_runc_does(tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        task = await rig.serve(make_bundle(tmp_path, "c1", SLEEP))
        out = rig.stream(tmp_path / "out")
        with pytest.raises(errors.Internal, match="opening file"):
            await task.create("c1", str(tmp_path / "c1"), stdout=out.path)

    run(shim(tmp_path), work)


def test_pids_of_kata_are_its_own_and_delete_drops_what_runs(tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        task = await rig.serve(make_bundle(tmp_path, "c1", SLEEP))
        pid = await task.create("c1", str(tmp_path / "c1"))
        assert await task.start("c1") == pid == (await task.connect_info("c1")).shim_pid
        assert await task.pids("c1") == (pid,)
        inside = int((tmp_path / "c1" / "pids").read_text())
        await task.delete("c1")
        await until_dead(inside)
        with pytest.raises(errors.NotFound):
            await task.state("c1")

    run(shim(tmp_path, KATA), work)


def test_members_of_a_pod_share_a_server(tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        key = "io.kubernetes.cri.sandbox-id"
        pod = make_bundle(tmp_path, "pod", SLEEP, annotations={key: "pod"})
        member = make_bundle(tmp_path, "member", SLEEP, annotations={key: "pod"})
        address = await rig.start(pod)
        assert await rig.start(member) == address
        task = await rig.connect(address)
        for bundle in (pod, member):
            await task.create(bundle.name, str(bundle))
            await task.start(bundle.name)
        await task.shutdown("member")
        assert (await task.state("pod")).status == messages.RUNNING
        for name in ("member", "pod"):
            await task.kill(name, signal.SIGKILL)
            assert (await task.wait(name)).exit_status == 137
            await task.delete(name)
        await task.shutdown("pod")
        await until_gone(address)

    run(shim(tmp_path), work)


@pytest.mark.parametrize("method", ["Create", "Start", "State", "Wait", "Kill", "Delete"])
def test_a_shim_that_dies(tmp_path: Path, method: str) -> None:
    async def work(rig: Rig) -> None:
        bundle = make_bundle(tmp_path, "c1", SLEEP, dies_at=method)
        task = await rig.serve(bundle)
        with pytest.raises(Gone, match=f"containerd-shim-fake-v2 has ended before .*{method}"):
            await _all(task, bundle)
        await asyncio.wait_for(task.closed, 30)
        with pytest.raises(Gone, match="has ended"):
            await task.state("c1")

    run(shim(tmp_path), work)


@pytest.mark.parametrize("method", ["Create", "Start", "State", "Kill", "Delete"])
def test_a_shim_that_hangs(tmp_path: Path, method: str) -> None:
    async def work(rig: Rig) -> None:
        bundle = make_bundle(tmp_path, "c1", SLEEP, hangs_at=method)
        task = await rig.serve(bundle)
        words = f"containerd-shim-fake-v2 did not answer {method} within 0.5 s"
        with pytest.raises(errors.DeadlineExceeded, match=words):
            await _all(task, bundle, limit_s=0.5, limited=method)
        # the others are answered still
        assert (await task.connect_info("c1", timeout_s=20)).shim_pid

    run(shim(tmp_path), work)


@pytest.mark.parametrize("method", ["Create", "Start", "State", "Wait", "Delete"])
def test_answers_that_make_no_sense(tmp_path: Path, method: str) -> None:
    async def work(rig: Rig) -> None:
        bundle = make_bundle(tmp_path, "c1", SLEEP, garbage_at=method)
        task = await rig.serve(bundle)
        with pytest.raises(errors.Internal, match=f"shim-fake-v2 answered {method} with"):
            await _all(task, bundle)

    run(shim(tmp_path), work)


async def _all(task: Task, bundle: Path, limit_s: float = 20, limited: str = "") -> None:
    """A life of a container; ``limited`` is answered in ``limit_s`` or never."""

    def within(method: str) -> float:
        return limit_s if method == limited else 20

    await task.create("c1", str(bundle), timeout_s=within("Create"))
    await task.start("c1", timeout_s=within("Start"))
    await task.state("c1", timeout_s=within("State"))
    await task.kill("c1", signal.SIGKILL, timeout_s=within("Kill"))
    await task.wait("c1", timeout_s=within("Wait"))
    await task.delete("c1", timeout_s=within("Delete"))


def test_what_the_runtime_says_is_kept(tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        bundle = make_bundle(tmp_path, "c1", SLEEP, refuses="Pause")
        task = await rig.serve(bundle)
        await task.create("c1", str(bundle))
        await task.start("c1")
        with pytest.raises(errors.Internal, match="OCI runtime pause failed: it does not want"):
            await task.pause("c1")

    run(shim(tmp_path), work)


def test_waiting_ends_with_the_connection_not_with_the_container(tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        bundle = make_bundle(tmp_path, "c1", SLEEP)
        address = await rig.start(bundle)
        task = await rig.connect(address)
        await task.create("c1", str(bundle))
        await task.start("c1")
        waiting = asyncio.create_task(task.wait("c1"))
        await asyncio.sleep(0)
        await task.close()
        with pytest.raises(Gone):
            await waiting
        assert task.closed.done()

        again = await rig.connect(address)
        assert (await again.state("c1")).status == messages.RUNNING
        await again.kill("c1", signal.SIGTERM)
        assert (await again.wait("c1")).exit_status == 143

    run(shim(tmp_path), work)


# --- addresses


@pytest.mark.parametrize("kind", ["path", "long path", "abstract", "abstract with a NUL"])
def test_sockets_of_each_kind(tmp_path: Path, kind: str) -> None:
    async def work() -> None:
        name = f"/test-{os.getpid()}/{tmp_path.name}/shim.sock"
        where: str | bytes = b"\0" + name.encode() + (b"\0" if "NUL" in kind else b"")
        if "path" in kind:
            folder = tmp_path / ("x" * 120 if kind == "long path" else "s")
            folder.mkdir()
            name = f"unix://{folder}/shim.sock"
            where = "shim.sock"
            os.chdir(folder)
        async with _listening(where):
            task = await Task.connect(Address(2, name))
            assert await task.connect_info("c1") == messages.ConnectResponse(1, 2, "v")
            await task.close()

    _in_place(work)


async def _info(method: str, payload: bytes) -> bytes:
    assert (method, payload) == ("Connect", messages.Target("c1").encode())
    return messages.ConnectResponse(1, 2, "v").encode()


def _in_place(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            await work()

    place = os.getcwd()
    try:
        asyncio.run(main())
    finally:
        os.chdir(place)


class _listening:  # noqa: N801  # used as a function
    def __init__(self, where: str | bytes, service: str = "containerd.task.v2.Task") -> None:
        self.where = where
        self.service = service

    async def __aenter__(self) -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(self.where)

        async def serve(reader: Any, writer: Any) -> None:
            await Server(reader, writer, {self.service: _info}).serve()

        self.server = await asyncio.start_unix_server(serve, sock=sock)

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        await asyncio.sleep(0)


def test_version_3_has_a_service_of_its_own(tmp_path: Path) -> None:
    async def work() -> None:
        path = str(tmp_path / "s")
        async with _listening(path, "containerd.task.v3.Task"):
            task = await Task.connect(Address(3, f"unix://{path}"))
            assert (await task.connect_info("c1")).shim_pid == 1
            await task.close()
            task = await Task.connect(Address(2, f"unix://{path}"))
            with pytest.raises(errors.Unimplemented):
                await task.connect_info("c1")
            await task.close()

    _in_place(work)


@pytest.mark.parametrize(
    "address", ["unix:///nowhere/s", "/abstract/nowhere", "unix:///dev/null/s"]
)
def test_nobody_listens(address: str) -> None:
    async def work() -> None:
        with pytest.raises(Gone, match="the shim cannot be reached at"):
            await Task.connect(Address(2, address))

    _in_place(work)


def test_a_socket_whose_server_has_died(tmp_path: Path) -> None:
    async def work() -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(tmp_path / "s"))
        with pytest.raises(Gone, match="refused"):
            await Task.connect(Address(2, f"unix://{tmp_path}/s"))

    _in_place(work)


@pytest.mark.parametrize("address", [f"unix:///tmp/{'n' * 200}", "a" * 200])
def test_names_that_no_socket_can_have(address: str) -> None:
    async def work() -> None:
        with pytest.raises(errors.Unavailable, match="cannot be reached"):
            await Task.connect(Address(2, address))

    _in_place(work)


def test_a_server_that_takes_no_connection(tmp_path: Path) -> None:
    async def work() -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(tmp_path / "s"))
            sock.listen(0)
            others = [socket.socket(socket.AF_UNIX) for _ in range(4)]
            for other in others:
                other.setblocking(False)
                if other.connect_ex(str(tmp_path / "s")):
                    break
            with pytest.raises(errors.DeadlineExceeded, match="took no connection"):
                await Task.connect(Address(2, f"unix://{tmp_path}/s"), timeout_s=0.3)
            for other in others:
                other.close()

    _in_place(work)
