"""Events of shims: what they tell, who may tell it, and what else may come."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isula_edge import errors
from isula_edge.runtime import shim_messages as messages
from isula_edge.runtime.shim_events import SERVICE, Event, Events
from isula_edge.runtime.shim_process import Shim
from isula_edge.runtime.ttrpc import Client
from tests.fakes.shim import Quirks, install
from tests.fakes.shim_rig import Rig, make_bundle, run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


class Heard:
    """What was told; waits for more."""

    def __init__(self, path: Path) -> None:
        self.events: list[Event] = []
        self.more = asyncio.Event()
        self.server = Events(str(path), self._take)

    def _take(self, event: Event) -> None:
        self.events.append(event)
        self.more.set()

    async def until(self, topic: str) -> Event:
        async with asyncio.timeout(30):
            while True:
                for event in self.events:
                    if event.topic == topic:
                        return event
                self.more.clear()
                await self.more.wait()


def served(path: Path, work: Callable[[Heard], Awaitable[None]]) -> None:
    async def main() -> None:
        heard = Heard(path)
        await heard.server.start()
        try:
            async with asyncio.timeout(60):
                await work(heard)
        finally:
            await heard.server.close()

    asyncio.run(main())


async def connect(path: Path) -> Client:
    return Client(*await asyncio.open_unix_connection(str(path)))


def forward(kind: str, body: bytes, topic: str = "/tasks/x") -> bytes:
    any_value = messages.AnyValue(f"containerd.events.{kind}", body)
    envelope = messages.Envelope(1, "ns", topic, any_value)
    return messages.ForwardRequest(envelope).encode()


def test_the_life_of_a_container_is_told_and_its_oom(tmp_path: Path) -> None:
    path = tmp_path / "events"
    program = install(tmp_path, Quirks(oom=True))
    shim = Shim(str(program), address=str(tmp_path), events=str(path))

    async def work(rig: Rig) -> None:
        heard = Heard(path)
        await heard.server.start()
        task = await rig.serve(make_bundle(tmp_path, "c1", ["sleep", "1000"]))
        pid = await task.create("c1", str(tmp_path / "c1"))
        await task.start("c1")
        await heard.until("/tasks/start")
        await task.kill("c1", signal.SIGKILL)
        ended = await task.wait("c1")
        told = await heard.until("/tasks/exit")
        assert told.container_id == "c1"
        assert told.body == messages.TaskExit("c1", "c1", pid, 137, ended.exited_ns)
        assert [event.topic for event in heard.events] == [
            "/tasks/create", "/tasks/start", "/tasks/oom", "/tasks/exit",
        ]  # fmt: skip
        assert heard.events[2].body == messages.TaskOOM("c1")
        await heard.server.close()

    run(shim, work)


def test_the_socket_is_the_engines_alone(tmp_path: Path) -> None:
    path = tmp_path / "events"

    async def work(heard: Heard) -> None:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        with pytest.raises(errors.Unavailable, match="in use"):
            await Events(str(path), print).start()

    served(path, work)
    assert not path.exists()


def test_the_socket_of_an_engine_that_died_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "events"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))

    async def work(heard: Heard) -> None:
        client = await connect(path)
        payload = forward("TaskOOM", messages.TaskOOM("c1").encode(), "/tasks/oom")
        assert await client.call(SERVICE, "Forward", payload, timeout_s=20) == b""
        assert heard.events == [Event("/tasks/oom", "c1", messages.TaskOOM("c1"), "ns")]
        await client.close()

    served(path, work)


@pytest.mark.parametrize("kind", ["folder", "long"])
def test_places_where_no_socket_can_be(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "absent" / "s" if kind == "folder" else tmp_path / ("x" * 120)

    async def main() -> None:
        with pytest.raises(errors.Unavailable, match="cannot listen at"):
            await Events(str(path), print).start()

    asyncio.run(main())


def test_events_of_other_types_have_no_body(tmp_path: Path) -> None:
    path = tmp_path / "events"

    async def work(heard: Heard) -> None:
        client = await connect(path)
        await client.call(SERVICE, "Forward", forward("ImageCreate", b"\xff"), timeout_s=20)
        assert heard.events == [Event("/tasks/x", "", None, "ns")]
        await client.close()

    served(path, work)


@pytest.mark.parametrize(
    ("method", "payload", "kind"),
    [
        ("Publish", b"", errors.Unimplemented),
        ("Forward", b"", errors.InvalidArgument),
        ("Forward", b"\xff", errors.InvalidArgument),
        ("Forward", forward("TaskExit", b"\x0a\x7f"), errors.InvalidArgument),
        ("Forward", messages.ForwardRequest(messages.Envelope()).encode(), errors.InvalidArgument),
    ],
)
def test_calls_that_are_refused(
    tmp_path: Path, method: str, payload: bytes, kind: type[errors.EngineError]
) -> None:
    path = tmp_path / "events"

    async def work(heard: Heard) -> None:
        client = await connect(path)
        with pytest.raises(kind):
            await client.call(SERVICE, method, payload, timeout_s=20)
        await client.call(SERVICE, "Forward", forward("TaskOOM", b""), timeout_s=20)
        assert len(heard.events) == 1
        await client.close()

    served(path, work)


def test_a_fault_of_who_is_told_ends_its_event_alone(tmp_path: Path) -> None:
    async def main() -> None:
        def fault(event: Event) -> None:
            raise RuntimeError(event.topic)

        events = Events(str(tmp_path / "events"), fault)
        await events.start()
        client = await connect(tmp_path / "events")
        for _ in range(2):
            with pytest.raises(errors.Internal):
                await client.call(SERVICE, "Forward", forward("TaskOOM", b""), timeout_s=20)
        await client.close()
        await events.close()

    asyncio.run(main())


@given(st.lists(st.binary(max_size=80), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_any_bytes_leave_it_serving(
    tmp_path_factory: pytest.TempPathFactory, data: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("events") / "s"

    async def work(heard: Heard) -> None:
        for chunk in data:
            _, writer = await asyncio.open_unix_connection(str(path))
            writer.write(chunk)
            writer.close()
        client = await connect(path)
        await client.call(SERVICE, "Forward", forward("TaskOOM", b""), timeout_s=20)
        assert len(heard.events) == 1
        await client.close()

    served(path, work)
