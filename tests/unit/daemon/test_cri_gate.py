"""gRPC on the client's socket: told from frames by its first bytes, and handed over."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from isula_edge import errors, wire
from isula_edge.daemon.cri import PREFACE, CriGate
from isula_edge.daemon.server import Server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from isula_edge.daemon.server import Session
    from isula_edge.service.engine import Engine


class FakeCri:
    """Answers what it reads in capitals; an empty read ends a connection."""

    opened: list[FakeCri]
    failure: BaseException | None = None

    def __init__(self, path: str) -> None:
        self.path = path
        self.read = bytearray()
        self.closed = False
        self._server: asyncio.Server
        self.works: set[asyncio.Task[Any]] = set()

    @classmethod
    async def open(cls, engine: Any, group: int) -> FakeCri:
        # others come meanwhile
        await asyncio.sleep(0)
        if cls.failure is not None:
            raise cls.failure
        assert group == 5
        made = cls(engine.path)
        cls.opened.append(made)
        made._server = await asyncio.start_unix_server(made._serve, made.path)
        return made

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.works.add(cast("asyncio.Task[Any]", asyncio.current_task()))
        while data := await reader.read(1 << 16):
            self.read += data
            writer.write(data.upper())
            if data.endswith(b"bye"):
                break
        await shut(writer)

    async def close(self) -> None:
        self.closed = True
        self._server.close()
        await asyncio.gather(*self.works)


class Rig:
    """A server of the engine with a gate, whose CRI is a fake."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "d.sock")
        engine = cast("Engine", SimpleNamespace(path=str(folder / "cri.sock")))
        self.gate = CriGate(engine, 5)

    def run(self, work: Callable[[], Awaitable[None]]) -> None:
        async def main() -> None:
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listening.bind(self.path)
            listening.listen()
            listening.setblocking(False)
            server = Server(answer, self.gate.hand_over)
            await server.listen(listening)
            try:
                await asyncio.wait_for(work(), 60)
            finally:
                await server.close()
                await self.gate.close()

        asyncio.run(main())

    async def connect(self, first: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(self.path)
        writer.write(first)
        return reader, writer


async def shut(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def answer(method: str, params: dict[str, Any], _session: Session) -> dict[str, Any]:
    return {"method": method, **params}


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    module = ModuleType("isula_cri.cri")
    vars(module)["Cri"] = FakeCri
    monkeypatch.setitem(sys.modules, "isula_cri.cri", module)
    FakeCri.opened, FakeCri.failure = [], None
    return Rig(tmp_path)


def test_frames_are_ours_and_load_nothing(rig: Rig) -> None:
    async def work() -> None:
        reader, writer = await rig.connect(wire.PREAMBLE + wire.pack({"m": "echo", "p": {"a": 1}}))
        size = int.from_bytes(await reader.readexactly(4), "big")
        assert wire.decode(await reader.readexactly(size)) == {"r": {"method": "echo", "a": 1}}
        await shut(writer)

    rig.run(work)
    assert FakeCri.opened == []


@pytest.mark.parametrize("cut", [len(wire.PREAMBLE), len(wire.PREAMBLE) + 1, len(PREFACE)])
def test_a_grpc_client_meets_the_cri_with_all_its_bytes(rig: Rig, cut: int) -> None:
    async def work() -> None:
        reader, writer = await rig.connect(PREFACE[:cut])
        await writer.drain()
        writer.write(PREFACE[cut:] + b"settings")
        wanted = (PREFACE + b"settings").upper()
        assert await reader.readexactly(len(wanted)) == wanted
        await shut(writer)

    rig.run(work)
    (cri,) = FakeCri.opened
    assert bytes(cri.read) == PREFACE + b"settings"
    assert cri.closed


def test_much_goes_through_unchanged(rig: Rig) -> None:
    data = b"0123456789abcdef" * 65536

    async def work() -> None:
        reader, writer = await rig.connect(PREFACE)
        sending = asyncio.ensure_future(send(writer, data))
        found = await reader.readexactly(len(PREFACE) + len(data))
        await sending
        assert found == (PREFACE + data).upper()
        await shut(writer)

    rig.run(work)
    assert bytes(FakeCri.opened[0].read) == PREFACE + data


async def send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


def test_it_is_loaded_once_for_many(rig: Rig) -> None:
    async def work() -> None:
        pairs = await asyncio.gather(*(rig.connect(PREFACE + b"x") for _ in range(5)))
        for reader, writer in pairs:
            assert (await reader.readexactly(len(PREFACE) + 1)).endswith(b"X")
            await shut(writer)

    rig.run(work)
    assert len(FakeCri.opened) == 1


def test_when_one_side_ends_so_does_the_other(rig: Rig) -> None:
    async def work() -> None:
        reader, writer = await rig.connect(PREFACE + b"bye")
        assert (await reader.read()).endswith(b"BYE")
        await shut(writer)
        reader, writer = await rig.connect(PREFACE + b"x")
        await reader.readexactly(len(PREFACE) + 1)
        await shut(writer)
        await asyncio.gather(*FakeCri.opened[0].works)
        assert len(FakeCri.opened[0].works) == 2

    rig.run(work)


@pytest.mark.parametrize(
    "failure",
    [
        errors.FailedPrecondition("no plug-ins", hint="install them"),
        PermissionError(13, "Permission denied", "/run/x"),
    ],
)
def test_without_a_cri_the_client_is_sent_away_and_another_try_is_one(
    rig: Rig, caplog: pytest.LogCaptureFixture, failure: BaseException
) -> None:
    FakeCri.failure = failure

    async def work() -> None:
        reader, writer = await rig.connect(PREFACE)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        await shut(writer)
        FakeCri.failure = None
        reader, writer = await rig.connect(PREFACE)
        await reader.readexactly(len(PREFACE))
        await shut(writer)

    with caplog.at_level(logging.ERROR):
        rig.run(work)
    assert len(FakeCri.opened) == 1
    (record,) = caplog.records
    assert "a gRPC client is sent away: " in record.getMessage()


def test_packages_that_are_missing_are_named(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isula_cri.cri", None)

    async def work() -> None:
        with pytest.raises(errors.FailedPrecondition, match=r"isula_cri\.cri") as caught:
            await rig.gate.open()
        assert "isula-edge[cri]" in caught.value.hint

    rig.run(work)


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n", b"PRI / HTTP/2.0\r\n\r\n", b"\0" * 32])
def test_what_is_neither_is_refused_and_loads_nothing(rig: Rig, first: bytes) -> None:
    async def work() -> None:
        reader, writer = await rig.connect(first)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        await shut(writer)

    rig.run(work)
    assert FakeCri.opened == []
