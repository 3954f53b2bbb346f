"""Calls of the Container Runtime Interface, each timed, as a kubelet makes them."""

from __future__ import annotations

import os
import time
from typing import Any

# the harness starts programs; grpc's own handlers of forks only slow that down
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc

from benchmarks.engines import EngineError
from isula_cri import messages

__all__ = ["Client"]

_LIMIT = 16 << 20
_OPTIONS = [
    ("grpc.max_receive_message_length", _LIMIT),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


class Client:
    """One connection to an engine, for calls of any number of threads."""

    def __init__(self, socket: str, timeout_s: float) -> None:
        self._channel = grpc.insecure_channel(f"unix://{socket}", options=_OPTIONS)
        self._timeout_s = timeout_s
        self._calls = {
            method.name: (
                self._channel.unary_unary(
                    f"/{messages.PACKAGE}.{name}/{method.name}",
                    request_serializer=getattr(messages, method.input_type.name).SerializeToString,
                    response_deserializer=getattr(messages, method.output_type.name).FromString,
                ),
                getattr(messages, method.input_type.name),
            )
            for name, service in messages.services().items()
            for method in service.methods
            if not method.server_streaming
        }

    def timed(self, method: str, **fields: Any) -> tuple[Any, float]:
        """The answer and the seconds until it was there; EngineError when it is refused."""
        call, request = self._calls[method]
        asked = request(**fields)
        began = time.perf_counter()
        try:
            answer = call(asked, timeout=self._timeout_s)
        except grpc.RpcError as e:
            raise EngineError(f"{method}: {e.code().name}: {e.details()}") from e
        return answer, time.perf_counter() - began

    def __call__(self, method: str, **fields: Any) -> Any:
        """The answer; EngineError when it is refused."""
        return self.timed(method, **fields)[0]

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()
