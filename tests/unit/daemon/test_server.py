"""The daemon's socket: bad connections end alone, and one request runs at a time on each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isula_edge import errors, wire
from tests.unit.daemon.served import Raw, Served, ended

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from isula_edge.daemon.server import Session


def size(length: int) -> bytes:
    return length.to_bytes(4, "big")


def frame(data: bytes) -> bytes:
    return size(len(data)) + data


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path) as found:
        yield found
    assert found.problems == []


REQUEST = wire.pack({"m": "echo", "p": {"a": 1}})

GARBAGE = {
    "another protocol": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "does not begin"),
    "zeros": (b"\0" * 100, "does not begin"),
    "version 0": (wire.PREAMBLE_MAGIC + b"\0\0" + REQUEST, "speaks version 0"),
    "version 2": (wire.PREAMBLE_MAGIC + b"\0\2" + REQUEST, "speaks version 2"),
    "version 65535": (wire.PREAMBLE_MAGIC + b"\xff\xff" + REQUEST, "speaks version 65535"),
    "too large": (wire.PREAMBLE + size(wire.MAX_REQUEST + 1), "limit is"),
    "far too large": (wire.PREAMBLE + b"\xff" * 100, "limit is"),
    "an empty frame": (wire.PREAMBLE + size(0), "truncated"),
    "no CBOR": (wire.PREAMBLE + frame(b"\xff" * 9), ""),
    "trailing bytes": (wire.PREAMBLE + frame(wire.encode({}) + b"x"), "trailing"),
    "nested too deeply": (wire.PREAMBLE + frame(b"\x81" * 5000), "nested"),
    "a list": (wire.PREAMBLE + wire.pack([1]), "no map"),
    "text": (wire.PREAMBLE + wire.pack("m"), "no map"),
    "no method": (wire.PREAMBLE + wire.pack({}), "no method"),
    "an unknown frame": (wire.PREAMBLE + wire.pack({"z": 1}), "no method"),
    "a method that is no text": (wire.PREAMBLE + wire.pack({"m": 5, "p": {}}), "wrong types"),
    "params that are no map": (wire.PREAMBLE + wire.pack({"m": "echo", "p": []}), "wrong types"),
}


@pytest.mark.parametrize("case", GARBAGE)
def test_garbage_is_answered_once_while_another_client_goes_on(served: Served, case: str) -> None:
    data, text = GARBAGE[case]
    with Raw(served) as other:
        other.request("echo", n=1)
        assert other.read() == {"r": {"n": 1}}
        with Raw(served, data) as bad:
            error = ended(bad)
        assert isinstance(error, errors.InvalidArgument)
        assert text in error.message
        other.request("echo", n=2)
        assert other.read() == {"r": {"n": 2}}


@pytest.mark.parametrize("end", range(len(wire.PREAMBLE + REQUEST)))
def test_a_client_that_leaves_anywhere_harms_nobody(served: Served, end: int) -> None:
    with Raw(served, (wire.PREAMBLE + REQUEST)[:end]):
        pass
    with Raw(served) as other:
        other.request("echo")
        assert other.read() == {"r": {}}
    assert served.seen == [("echo", {})]


@given(data=st.binary(max_size=100))
@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_random_frames_are_answered_once_or_are_requests(served: Served, data: bytes) -> None:
    with Raw(served) as bad:
        bad.send(frame(data))
        bad.send(size(wire.MAX_REQUEST + 1))
        assert isinstance(ended(bad), errors.InvalidArgument)


def test_a_request_without_params(served: Served) -> None:
    with Raw(served) as raw:
        raw.frame({"m": "echo"})
        assert raw.read() == {"r": {}}


def test_a_request_of_the_largest_size(served: Served) -> None:
    with Raw(served) as raw:
        overhead = len(wire.encode({"m": "echo", "p": {"d": b"x" * (1 << 20)}})) - (1 << 20)
        data = b"x" * (wire.MAX_REQUEST - overhead)
        raw.request("echo", d=data)
        assert raw.read() == {"r": {"d": data}}


def test_input_behind_the_end_of_a_request_is_left_out(served: Served) -> None:
    with Raw(served) as raw:
        raw.request("echo", n=1)
        assert raw.read() == {"r": {"n": 1}}
        for stray in ({"i": b"late"}, {"e": True}, {"w": [1, 2]}, {"s": 15}):
            raw.frame(stray)
        raw.request("echo", n=2)
        assert raw.read() == {"r": {"n": 2}}


def test_an_error_of_the_engine_ends_its_request_alone(served: Served) -> None:
    async def refuse(_params: dict[str, Any], _session: Session) -> dict[str, Any]:
        raise errors.NotFound("No such thing", kind="thing", ref="x", hint="look")

    served.methods["refuse"] = refuse
    with Raw(served) as raw:
        raw.request("refuse")
        answer = raw.read()
        assert answer == {
            "x": errors.to_wire(
                errors.NotFound("No such thing", kind="thing", ref="x", hint="look")
            )
        }
        raw.request("echo")
        assert raw.read() == {"r": {}}


FAULTS = [
    (ZeroDivisionError("a bug"), errors.Internal, "ZeroDivisionError: a bug"),
    (PermissionError(13, "denied", "/x"), errors.Internal, "denied"),
    (OSError(28, "full", "/x"), errors.NoSpace, "no space left on device: /x"),
    (OSError(122, "quota"), errors.NoSpace, "no space left on device"),
]


@pytest.mark.parametrize(("fault", "cls", "text"), FAULTS)
def test_a_fault_ends_its_request_alone(
    served: Served, fault: Exception, cls: type[errors.EngineError], text: str
) -> None:
    async def fail(_params: dict[str, Any], _session: Session) -> dict[str, Any]:
        raise fault

    served.methods["fail"] = fail
    with Raw(served) as raw:
        raw.request("fail")
        answer = raw.read()
        assert answer is not None
        error = errors.from_wire(answer["x"])
        assert type(error) is cls
        assert text in error.message
        raw.request("echo")
        assert raw.read() == {"r": {}}
