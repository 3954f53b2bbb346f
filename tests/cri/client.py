"""A client of the CRI without generated code: calls are named as the interface names them."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

# the tests start programs; grpc's own handlers of forks only slow that down
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc
import pytest

from isula_cri import messages

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Cri", "refused"]

_LIMIT = 64 << 20
_OPTIONS = [
    ("grpc.max_receive_message_length", _LIMIT),
    ("grpc.max_send_message_length", _LIMIT),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


class Cri:
    """Calls of the services of ``package`` at ``endpoint``: ``cri("Version").runtime_name``."""

    def __init__(self, endpoint: str, package: str = messages.PACKAGE) -> None:
        self._channel = grpc.insecure_channel(endpoint, options=_OPTIONS)
        self._calls: dict[str, tuple[Any, Any]] = {}
        for name, service in messages.services().items():
            for method in service.methods:
                asked = getattr(messages, method.input_type.name)
                answer = getattr(messages, method.output_type.name)
                streams = method.server_streaming
                make = self._channel.unary_stream if streams else self._channel.unary_unary
                call = make(
                    f"/{package}.{name}/{method.name}",
                    request_serializer=asked.SerializeToString,
                    response_deserializer=answer.FromString,
                )
                self._calls[method.name] = (call, asked)

    def __call__(self, method: str, *, timeout_s: float = 60, **fields: Any) -> Any:
        """The answer; fields of messages may be dictionaries, enumerations their names.

        Methods that stream give an iterator with ``cancel()``; grpc.RpcError is a refusal.
        """
        call, asked = self._calls[method]
        return call(asked(**fields), timeout=timeout_s, wait_for_ready=False)

    def later(self, method: str, *, timeout_s: float = 60, **fields: Any) -> Any:
        """A call that has begun: ``result()`` waits for its answer, ``cancel()`` leaves it."""
        call, asked = self._calls[method]
        return call.future(asked(**fields), timeout=timeout_s)

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()


@contextlib.contextmanager
def refused(*codes: str) -> Iterator[pytest.ExceptionInfo[Any]]:
    """The call inside must fail, with one of ``codes`` if any are given."""
    with pytest.raises(grpc.RpcError) as found:
        yield found
    code = found.value.code().name
    assert not codes or code in codes, f"{code}: {found.value.details()}"
