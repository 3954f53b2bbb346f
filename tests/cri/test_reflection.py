"""Every RPC of the API is served, or refused with a reason, in both versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from isula_cri import messages
from isula_cri.server import V1ALPHA2
from tests.cri.client import Cri

if TYPE_CHECKING:
    from tests.cri.node import Machine

REFUSED = {"CheckpointPod", "RestorePod"}
"""Calls that this engine does not serve, on purpose."""
HANGS = {"GetContainerEvents"}
"""A stream that begins with the next event."""


def code_of(endpoint: str, method: str, package: str, *, streams: bool) -> tuple[str, str]:
    """Status and text of an empty call."""
    cri = Cri(endpoint, package)
    try:
        answer = cri(method, timeout_s=2 if method in HANGS else 30)
        if streams:
            list(answer)
    except grpc.RpcError as error:
        return error.code().name, str(error.details())
    finally:
        cri.close()
    return "OK", ""


ALL = [
    (service, method.name, method.server_streaming)
    for service, described in messages.services().items()
    for method in described.methods
]


@pytest.mark.parametrize(("service", "method", "streams"), ALL)
def test_v1(machine: Machine, service: str, method: str, streams: bool) -> None:
    code, text = code_of(machine.endpoint, method, "runtime.v1", streams=streams)
    if method in REFUSED:
        assert code == "UNIMPLEMENTED", service
        assert "pod" in text
    elif method in HANGS:
        assert code == "DEADLINE_EXCEEDED"
    else:
        assert code in ("OK", "NOT_FOUND", "INVALID_ARGUMENT"), text


@pytest.mark.parametrize(("service", "method", "streams"), ALL)
def test_v1alpha2(machine: Machine, service: str, method: str, streams: bool) -> None:
    code, text = code_of(machine.endpoint, method, "runtime.v1alpha2", streams=streams)
    if method in V1ALPHA2[service]:
        assert code in ("OK", "NOT_FOUND", "INVALID_ARGUMENT"), text
    else:
        assert code == "UNIMPLEMENTED"
        assert "version of the CRI" in text
