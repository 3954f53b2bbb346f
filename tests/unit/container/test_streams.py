"""Streams of an exec: everything arrives, and nobody waits for a side that is gone."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from isula_edge.container import streams
from isula_edge.container.streams import relay_exec, running_close
from isula_edge.runtime.base import ExecProcess
from isula_edge.sys.fds import write_all
from isula_edge.sys.process import identify

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from isula_edge.sys.process import Identity

Event = tuple[str, object]


class Client:
    """A client's side: what it was sent, and what it sends (None: it leaves)."""

    def __init__(self) -> None:
        self.got: list[tuple[str, bytes]] = []
        self.arrived = asyncio.Event()
        self.sends: asyncio.Queue[Event | None] = asyncio.Queue()
        self.delay_s = 0.0

    async def out(self, data: bytes) -> None:
        await self._take("out", data)

    async def err(self, data: bytes) -> None:
        await self._take("err", data)

    async def _take(self, kind: str, data: bytes) -> None:
        await asyncio.sleep(self.delay_s)  # how slow this client is
        self.got.append((kind, data))
        self.arrived.set()

    async def input(self) -> AsyncIterator[Event]:
        while (event := await self.sends.get()) is not None:
            yield event

    def data(self, kind: str) -> bytes:
        return b"".join(data for one, data in self.got if one == kind)


class Exec:
    """The daemon's and the process's ends of three pipes."""

    def __init__(self) -> None:
        self.stdin, stdin = os.pipe()
        stdout, self.stdout = os.pipe()
        stderr, self.stderr = os.pipe()
        self.daemon = ExecProcess(1, stdin=stdin, stdout=stdout, stderr=stderr)
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.client = Client()
        self.task: asyncio.Task[int] | None = None

    def begin(self, identity: Identity | None = None) -> asyncio.Task[int]:
        self.task = asyncio.create_task(relay_exec(self.client, self.daemon, self.exited, identity))
        return self.task

    def end(self, code: int) -> None:
        """The process ends: its ends are closed, its code is known."""
        self.close()
        self.exited.set_result(code)

    def close(self) -> None:
        for name in ("stdin", "stdout", "stderr"):
            if (fd := getattr(self, name)) >= 0:
                os.close(fd)
                setattr(self, name, -1)


def relaying(work: Callable[[Exec], Awaitable[None]]) -> None:
    async def main() -> None:
        running = Exec()
        try:
            async with asyncio.timeout(20):
                await work(running)
        finally:
            running.close()
            running_close(running.daemon)

    asyncio.run(main())


def test_output_error_and_code_arrive() -> None:
    async def work(running: Exec) -> None:
        task = running.begin()
        os.write(running.stdout, b"out")
        os.write(running.stderr, b"err")
        running.end(7)
        assert await task == 7
        assert running.client.data("out") == b"out"
        assert running.client.data("err") == b"err"

    relaying(work)


def test_what_the_client_sends_is_the_input_of_the_process() -> None:
    async def work(running: Exec) -> None:
        task = running.begin()
        for event in (("data", b"one "), ("data", b"two"), ("eof", None)):
            running.client.sends.put_nowait(event)
        loop = asyncio.get_running_loop()
        with os.fdopen(os.dup(running.stdin), "rb") as file:
            assert await loop.run_in_executor(None, file.read) == b"one two"
        running.end(0)
        assert await task == 0

    relaying(work)


def test_every_descriptor_is_closed_in_the_end() -> None:
    async def work(running: Exec) -> None:
        task = running.begin()
        running.end(0)
        await task
        ends = (running.daemon.stdin, running.daemon.stdout, running.daemon.stderr)
        assert ends == (-1, -1, -1)

    before = len(os.listdir("/proc/self/fd"))
    relaying(work)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a26_a_child_that_keeps_the_pipe_does_not_keep_the_exec(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "_DRAIN_S", 0.01)

    async def work(running: Exec) -> None:
        task = running.begin()
        os.write(running.stdout, b"last words")
        running.exited.set_result(3)
        assert await task == 3
        assert running.client.data("out") == b"last words"

    relaying(work)


def test_a_slow_client_gets_all_output_of_an_exec_that_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "_DRAIN_S", 0.2)
    monkeypatch.setattr(streams, "_CHUNK", 4096)

    async def work(running: Exec) -> None:
        running.client.delay_s = 0.05
        data = os.urandom(15 * 4096)
        os.write(running.stdout, data)
        task = running.begin()
        running.end(0)
        assert await task == 0
        assert running.client.data("out") == data

    relaying(work)


def test_a_client_that_leaves_ends_the_streams_but_not_the_process() -> None:
    async def work(running: Exec) -> None:
        task = running.begin()
        os.write(running.stdout, b"x")
        await running.client.arrived.wait()
        running.client.sends.put_nowait(None)
        loop = asyncio.get_running_loop()
        with os.fdopen(os.dup(running.stdin), "rb") as file:
            assert await loop.run_in_executor(None, file.read) == b""
        with pytest.raises(BrokenPipeError):
            os.write(running.stdout, b"nobody reads")
        assert not task.done()
        running.end(5)
        assert await task == 5

    relaying(work)


def test_a_signal_of_the_client_reaches_the_process() -> None:
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as child:

        async def work(running: Exec) -> None:
            task = running.begin(identify(child.pid))
            running.client.sends.put_nowait(("signal", int(signal.SIGTERM)))
            loop = asyncio.get_running_loop()
            assert await loop.run_in_executor(None, child.wait) == -signal.SIGTERM
            running.end(143)
            assert await task == 143

        relaying(work)


@pytest.mark.parametrize(
    "event", [("signal", "TERM"), ("resize", (1, 2)), ("data", "text"), ("of the future", 1)]
)
def test_input_that_makes_no_sense_is_left_out(event: Event) -> None:
    async def work(running: Exec) -> None:
        task = running.begin()
        running.client.sends.put_nowait(event)
        running.client.sends.put_nowait(("data", b"fine"))
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, os.read, running.stdin, 100) == b"fine"
        running.end(0)
        await task

    relaying(work)


def test_more_than_a_pipe_holds_is_written_without_blocking_the_loop() -> None:
    async def main() -> None:
        reader, writer = os.pipe()
        data = os.urandom(1 << 20)
        loop = asyncio.get_running_loop()
        with os.fdopen(reader, "rb") as file:
            writing = asyncio.create_task(write_all(writer, data))
            await asyncio.sleep(0)
            assert not writing.done()
            reading = loop.run_in_executor(None, file.read, len(data))
            await writing
            os.close(writer)
            assert await reading == data

    asyncio.run(main())


def test_writing_to_a_reader_that_is_gone_is_fine() -> None:
    async def main() -> None:
        reader, writer = os.pipe()
        os.close(reader)
        await write_all(writer, b"x" * 100)
        os.close(writer)

    asyncio.run(main())
