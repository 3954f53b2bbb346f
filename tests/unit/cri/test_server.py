"""Every RPC of both versions has a handler, and every error a status."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("grpc")

import grpc

from isula_cri import messages, server
from isula_cri.containers import ContainerCalls
from isula_cri.events import EventCalls
from isula_cri.images import ImageService
from isula_cri.info import InfoCalls
from isula_cri.pods import PodCalls
from isula_cri.statistics import StatisticsCalls
from isula_cri.streams import StreamCalls
from isula_edge import errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PARTS = (
    ContainerCalls, EventCalls, ImageService, InfoCalls, PodCalls, StatisticsCalls, StreamCalls,
)  # fmt: skip
METHODS = {
    method.name: method for service in messages.services().values() for method in service.methods
}


class Context:
    """Remembers how a call was ended."""

    def __init__(self) -> None:
        self.ended: tuple[Any, str] | None = None

    async def abort(self, code: Any, text: str) -> None:
        self.ended = (code, text)


class Failing:
    """Every kind of call, failing with one error."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def unary(self, request: Any, context: Any) -> Any:
        raise self.error

    async def stream(self, request: Any, context: Any) -> AsyncIterator[Any]:
        yield 1
        raise self.error


@pytest.mark.parametrize("name", METHODS)
def test_somebody_implements_it(name: str) -> None:
    assert [part for part in PARTS if hasattr(part, name)] != []


def test_nobody_implements_what_there_is_not() -> None:
    for part in PARTS:
        public = {name for name in vars(part) if name[0].isupper()}
        assert public <= set(METHODS), part


def test_the_older_version_has_less() -> None:
    for name, listed in server.V1ALPHA2.items():
        assert set(listed) < {method.name for method in messages.services()[name].methods}
    older = server.V1ALPHA2["RuntimeService"]
    assert {"Version", "RunPodSandbox", "ExecSync", "Status", "ReopenContainerLog"} <= set(older)
    assert not {"GetContainerEvents", "RuntimeConfig", "CheckpointContainer"} & set(older)
    assert not [name for name in older if name.startswith("Stream")]
    assert server._implementation("Version", [InfoCalls], older) is not None
    assert server._implementation("RuntimeConfig", [InfoCalls], older) is None
    assert server._implementation("RuntimeConfig", [InfoCalls], None) is not None


ERRORS: list[tuple[BaseException, str, str]] = [
    (errors.NotFound("no such thing", hint="make it"), "NOT_FOUND", "no such thing (make it)"),
    (errors.InvalidArgument("wrong"), "INVALID_ARGUMENT", "wrong"),
    (errors.FailedPrecondition("not now"), "FAILED_PRECONDITION", "not now"),
    (errors.NoSpace("full"), "RESOURCE_EXHAUSTED", "full"),
    (OSError(errno.ENOSPC, "No space left"), "RESOURCE_EXHAUSTED", "[Errno 28] No space left"),
    (OSError(errno.EDQUOT, "Quota"), "RESOURCE_EXHAUSTED", "[Errno 122] Quota"),
    (PermissionError(errno.EACCES, "no"), "INTERNAL", "[Errno 13] no"),
    (KeyError("a"), "INTERNAL", "KeyError: 'a'"),
]


@pytest.mark.parametrize(("error", "code", "text"), ERRORS)
def test_an_error_is_a_status(error: BaseException, code: str, text: str) -> None:
    async def work() -> None:
        failing = Failing(error)
        context = Context()
        await server._unary("Any", failing.unary)(None, context)
        assert context.ended == (grpc.StatusCode[code], text)
        context = Context()
        # what came before is sent
        found = [item async for item in server._stream("Any", failing.stream)(None, context)]
        assert found == [1]
        assert context.ended == (grpc.StatusCode[code], text)

    asyncio.run(work())


@pytest.mark.parametrize("kind", [item for item in vars(errors).values() if isinstance(item, type)])
def test_every_error_has_a_code_of_grpc(kind: type) -> None:
    if issubclass(kind, errors.EngineError):
        assert kind.grpc in grpc.StatusCode.__members__


def test_a_call_that_nobody_serves_says_so() -> None:
    async def work() -> None:
        context = Context()
        await server._unary("Any", None)(None, context)
        assert context.ended is not None
        assert context.ended[0] is grpc.StatusCode.UNIMPLEMENTED
        context = Context()
        assert [item async for item in server._stream("Any", None)(None, context)] == []
        assert context.ended is not None
        assert context.ended[0] is grpc.StatusCode.UNIMPLEMENTED

    asyncio.run(work())


def test_a_call_that_is_cancelled_is_no_failure() -> None:
    async def work() -> None:
        context = Context()
        with pytest.raises(asyncio.CancelledError):
            await server._unary("Any", Failing(asyncio.CancelledError()).unary)(None, context)
        assert context.ended is None

    asyncio.run(work())


def test_what_succeeds_is_answered() -> None:
    async def echo(request: Any, context: Any) -> Any:
        del context
        return request

    async def twice(request: Any, context: Any) -> AsyncIterator[Any]:
        del context
        yield request
        yield request

    async def work() -> None:
        context = Context()
        assert await server._unary("Any", echo)(5, context) == 5
        assert [item async for item in server._stream("Any", twice)(5, context)] == [5, 5]
        assert context.ended is None

    asyncio.run(work())


@pytest.mark.parametrize("version", ["v1", "v1alpha2"])
def test_the_version_is_that_by_which_it_was_asked(version: str) -> None:
    async def answer(request: Any, context: Any) -> Any:
        del request, context
        return messages.VersionResponse(version="0.1.0")

    handler = server._handler(METHODS["Version"], answer, f"runtime.{version}")
    found = asyncio.run(handler.unary_unary(messages.VersionRequest(), Context()))
    assert (found.version, found.runtime_api_version) == ("0.1.0", version)


# gRPC's threads take long in an emulator, and the suites over gRPC do the rest
@pytest.mark.native
@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_sockets(tmp_path: Path, mode: int) -> None:
    path = str(tmp_path / "new" / "c.sock")

    async def work() -> None:
        made = server.Server([])
        made.listen(path, mode)
        found = os.stat(path).st_mode
        assert stat.S_ISSOCK(found)
        assert stat.S_IMODE(found) == mode
        other = server.Server([])
        with pytest.raises(errors.EngineError, match=r"c\.sock"):
            other.listen(path, mode)
        # what a crash has left is replaced
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
            left.bind(f"{path}2")
        other.listen(f"{path}2", mode)
        taken = tmp_path / "file"
        taken.write_text("")
        with pytest.raises(OSError, match="file"):
            made.listen(f"{taken}/c.sock", mode)
        await other.close()
        await made.close()

    before = os.umask(0o022)
    try:
        asyncio.run(work())
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
