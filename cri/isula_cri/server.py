"""The gRPC server: every RPC of both versions, handed to whoever implements it.

Methods are found by their names, so that an RPC of the proto that nobody implements
answers UNIMPLEMENTED with a reason.  Errors of the engine become gRPC statuses here.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from typing import TYPE_CHECKING, Any

import grpc

from isula_cri import messages
from isula_edge import errors
from isula_edge.sys import unix

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

__all__ = ["V1ALPHA2", "Server"]

_log = logging.getLogger(__name__)
_PACKAGES = ("runtime.v1", "runtime.v1alpha2")
_MAX_MESSAGE = 16 << 20
"""What kubelets and crictl accept."""
_STOP_S = 5.0
_LATER = {
    "RuntimeService": {
        "StreamPodSandboxes", "StreamContainers", "StreamContainerStats",
        "StreamPodSandboxStats", "StreamPodSandboxMetrics", "CheckpointContainer",
        "CheckpointPod", "RestorePod", "GetContainerEvents", "ListMetricDescriptors",
        "ListPodSandboxMetrics", "RuntimeConfig", "UpdatePodSandboxResources",
    },
    "ImageService": {"StreamImages"},
}  # fmt: skip
V1ALPHA2 = {
    name: [method.name for method in service.methods if method.name not in _LATER[name]]
    for name, service in messages.services().items()
}
"""The RPCs that runtime.v1alpha2 has, by service."""


class Server:
    """Serves the methods of ``parts`` on unix sockets."""

    def __init__(self, parts: Sequence[object]) -> None:
        options = [
            ("grpc.max_receive_message_length", _MAX_MESSAGE),
            ("grpc.max_send_message_length", _MAX_MESSAGE),
            ("grpc.so_reuseport", 0),
        ]
        self._server = grpc.aio.server(options=options)
        for package in _PACKAGES:
            for name, service in messages.services().items():
                known = V1ALPHA2[name] if package.endswith("alpha2") else None
                handlers = {
                    method.name: _handler(
                        method, _implementation(method.name, parts, known), package
                    )
                    for method in service.methods
                }
                generic = grpc.method_handlers_generic_handler(f"{package}.{name}", handlers)
                self._server.add_generic_rpc_handlers((generic,))

    def listen(self, path: str, mode: int) -> None:
        """Listens on a unix socket, whose file gets ``mode``; FailedPrecondition,
        Unavailable while another program answers on it.
        """
        os.makedirs(os.path.dirname(path), 0o711, exist_ok=True)
        unix.clear(path)
        try:
            # until chmod(2) only root may write to it, and so connect
            bound = self._server.add_insecure_port(f"unix:{path}")
            os.chmod(path, mode)
        except (RuntimeError, OSError) as error:
            bound = 0
            _log.error("%s", error)
        if not bound:
            raise errors.FailedPrecondition(f"cannot listen on {path}", kind="socket", ref=path)

    async def start(self) -> None:
        """Begins to serve."""
        await self._server.start()

    async def close(self) -> None:
        """Ends; calls under way get some seconds."""
        await self._server.stop(_STOP_S)


def _implementation(name: str, parts: Sequence[object], known: list[str] | None) -> Any:
    if known is not None and name not in known:
        return None
    return next((getattr(part, name) for part in parts if hasattr(part, name)), None)


def _handler(method: Any, work: Any, package: str) -> Any:
    request = getattr(messages, method.input_type.name)
    response = getattr(messages, method.output_type.name)
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(
            _stream(method.name, work), request.FromString, response.SerializeToString
        )
    if method.name == "Version":
        work = _of_version(work, package.rpartition(".")[2])
    return grpc.unary_unary_rpc_method_handler(
        _unary(method.name, work), request.FromString, response.SerializeToString
    )


def _unary(name: str, work: Callable[[Any, Any], Awaitable[Any]] | None) -> Any:
    async def call(request: Any, context: Any) -> Any:
        with _failures(name) as failure:
            return await (work or _absent)(request, context)
        return await context.abort(*failure)

    return call


def _of_version(work: Callable[[Any, Any], Awaitable[Any]], version: str) -> Any:
    """As ``work``, whose answer names the version of the API by which it was asked."""

    async def call(request: Any, context: Any) -> Any:
        answer = await work(request, context)
        answer.runtime_api_version = version
        return answer

    return call


def _stream(name: str, work: Callable[[Any, Any], AsyncIterator[Any]] | None) -> Any:
    async def call(request: Any, context: Any) -> AsyncIterator[Any]:
        with _failures(name) as failure:
            if work is None:
                await _absent(request, context)
            else:
                async for item in work(request, context):
                    yield item
            return
        await context.abort(*failure)

    return call


async def _absent(request: Any, context: Any) -> Any:
    del request, context
    raise errors.Unimplemented("this engine does not serve the call in this version of the CRI")


@contextlib.contextmanager
def _failures(name: str) -> Iterator[list[Any]]:
    """Swallows an error into the list it gives: status code and text."""
    failure: list[Any] = []
    try:
        yield failure
    except errors.EngineError as error:
        hint = f" ({error.hint})" if error.hint else ""
        failure += [grpc.StatusCode[error.grpc], f"{error.message}{hint}"]
        _log.info("%s: %s", name, error.message)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        code = grpc.StatusCode.RESOURCE_EXHAUSTED if full else grpc.StatusCode.INTERNAL
        failure += [code, str(error)]
        _log.error("%s failed", name, exc_info=error)
    except Exception as error:  # noqa: BLE001  # a fault of ours ends its call alone
        _log.exception("%s failed", name)
        failure += [grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}"]
