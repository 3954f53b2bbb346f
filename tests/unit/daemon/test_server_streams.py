"""Requests that go on: input, output, and what the end of either side does to them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors, wire
from tests.unit.daemon.served import Raw, Served, Waiting, ended

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from isula_edge.daemon.server import Session


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path) as found:
        yield found
    assert found.problems == []


def test_a_second_request_on_a_busy_connection_is_refused(served: Served) -> None:
    waiting = Waiting(served, reads=True)
    with Raw(served) as raw:
        raw.request("wait")
        assert waiting.begun.wait(20)
        raw.request("echo")
        assert waiting.left.wait(20)
        waiting.go_on()
        assert "before the answer" in ended(raw).message
    assert waiting.wait() == "leftfinished"
    assert served.answers("echo") == []


def test_other_connections_are_served_meanwhile(served: Served) -> None:
    waiting = Waiting(served)
    with Raw(served) as raw, Raw(served) as other:
        raw.request("wait")
        assert waiting.begun.wait(20)
        other.request("echo")
        assert other.read() == {"r": {}}
        waiting.go_on()
        assert raw.read() == {"r": {"done": True}}


def test_a_client_that_leaves_cancels_what_only_waits(served: Served) -> None:
    waiting = Waiting(served, only_waiting=True)
    with Raw(served) as raw:
        raw.request("wait")
        assert waiting.begun.wait(20)
    assert waiting.wait() == "cancelled"


def test_a_client_that_leaves_does_not_cancel_what_changes_something(served: Served) -> None:
    waiting = Waiting(served, reads=True)
    with Raw(served) as raw:
        raw.request("wait")
        assert waiting.begun.wait(20)
    waiting.go_on()
    assert waiting.wait() == "leftfinished"


def test_only_waiting_after_the_client_has_left_ends_at_once(served: Served) -> None:
    how: list[str] = []
    done = threading.Event()

    async def late(_params: dict[str, Any], session: Session) -> dict[str, Any]:
        try:
            async for _ in session.input():
                pass
            session.only_waiting()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            how.append("cancelled")
            raise
        finally:
            done.set()
        return {}

    served.methods["late"] = late
    with Raw(served) as raw:
        raw.request("late")
    assert done.wait(20)
    assert how == ["cancelled"]


@pytest.mark.parametrize(("number", "ends"), [(2, True), (3, True), (15, True), (10, False)])
def test_a_signal_that_asks_for_the_end_is_seen_before_anybody_reads(
    served: Served, number: int, ends: bool
) -> None:
    found: list[object] = []

    async def start(_params: dict[str, Any], session: Session) -> dict[str, Any]:
        await session.item("begun")
        with contextlib.suppress(TimeoutError):
            # what is no such signal is waited for no longer than it takes to come
            await asyncio.wait_for(session.interrupted.wait(), 20 if ends else 0.2)
        found.append(session.interrupted.is_set())
        # and it is still there for the one who reads
        async for event in session.input():
            found.append(event)
            break
        return {}

    served.methods["start"] = start
    with Raw(served) as raw:
        raw.request("start")
        assert raw.read() == {"v": "begun"}
        raw.frame({"s": number})
        assert raw.read() == {"r": {}}
    assert found == [ends, ("signal", number)]


def test_input_arrives_in_order_and_kind(served: Served) -> None:
    waiting = Waiting(served, reads=True)
    sent: list[tuple[dict[str, Any], tuple[str, object]]] = [
        ({"i": b"data"}, ("data", b"data")),
        ({"w": [24, 80]}, ("resize", (24, 80))),
        ({"s": 15}, ("signal", 15)),
        ({"i": b""}, ("data", b"")),
        ({"e": True}, ("eof", True)),
    ]
    with Raw(served) as raw:
        raw.request("wait")
        for number, (value, _) in enumerate(sent, 1):
            raw.frame(value)
            assert raw.read() == {"v": number}
    waiting.go_on()
    waiting.wait()
    assert waiting.input == [event for _, event in sent]


BAD_INPUT = [{"z": 1}, {"i": "text"}, {"i": 5}]


@pytest.mark.parametrize("value", BAD_INPUT)
def test_bad_input_ends_the_connection_with_an_answer(
    served: Served, value: dict[str, Any]
) -> None:
    waiting = Waiting(served, only_waiting=True)
    with Raw(served) as raw:
        raw.request("wait")
        assert waiting.begun.wait(20)
        raw.frame(value)
        assert isinstance(ended(raw), errors.InvalidArgument)
    assert waiting.wait() == "cancelled"


@pytest.mark.parametrize("value", [5, None, [], [1], [1, 2, 3], ["a", "b"], [None, 1], "ab"])
def test_a_bad_size_ends_the_connection_and_not_what_changes_something(
    tmp_path: Path, value: object
) -> None:
    with Served(tmp_path) as served:
        waiting = Waiting(served, reads=True)
        with Raw(served) as raw:
            raw.request("wait")
            assert waiting.begun.wait(20)
            raw.frame({"w": value})
            assert waiting.left.wait(20)
            waiting.go_on()
            assert isinstance(ended(raw), errors.InvalidArgument)
        assert waiting.wait() == "leftfinished"


def test_input_that_is_not_read_holds_up_its_sender_alone(served: Served) -> None:
    waiting = Waiting(served)
    with Raw(served) as raw, Raw(served) as other:
        raw.request("wait")
        assert waiting.begun.wait(20)
        raw.socket.settimeout(0)
        assert pour(raw) < 64 << 20
        raw.socket.settimeout(20)
        other.request("echo")
        assert other.read() == {"r": {}}
        waiting.go_on()
        assert raw.read() == {"r": {"done": True}}


def pour(raw: Raw) -> int:
    """Sends input until the other side takes no more: bytes that it took."""
    piece = wire.pack({"i": b"x" * 65536})
    sent = 0
    while sent < 64 << 20:
        try:
            sent += raw.socket.send(piece[sent % len(piece) :])
        except BlockingIOError:
            break
    return sent


def test_a_client_that_leaves_unread_input_behind_cancels_what_only_waits(served: Served) -> None:
    waiting = Waiting(served, only_waiting=True)
    with Raw(served) as raw:
        raw.request("wait")
        assert waiting.begun.wait(20)
        for _ in range(40):
            raw.frame({"i": b"x"})
    noticed = waiting.ended.wait(2)
    waiting.go_on()
    waiting.wait()
    assert noticed


def test_a_slow_reader_holds_up_its_own_stream_alone(served: Served) -> None:
    written = []
    done = threading.Event()

    async def pour(_params: dict[str, Any], session: Session) -> dict[str, Any]:
        for number in range(200):
            await session.out(b"%6d" % number + b"x" * 65530)
            written.append(number)
        done.set()
        return {"count": len(written)}

    served.methods["pour"] = pour
    with Raw(served) as slow, Raw(served) as other:
        slow.request("pour")
        other.request("echo")
        assert other.read() == {"r": {}}
        first = slow.read()
        assert first is not None
        assert first["o"][:6] == b"     0"
        assert not done.is_set()
        assert len(written) < 50
        for number in range(1, 200):
            piece = slow.read()
            assert piece is not None
            assert int(piece["o"][:6]) == number
        assert slow.read() == {"r": {"count": 200}}


def test_both_outputs_and_items_arrive_in_order(served: Served) -> None:
    async def speak(_params: dict[str, Any], session: Session) -> dict[str, Any]:
        await session.item({"id": 1})
        await session.out(b"out")
        await session.err(b"err")
        return {"exit_code": 3}

    served.methods["speak"] = speak
    with Raw(served) as raw:
        raw.request("speak")
        found = [raw.read() for _ in range(4)]
    assert found == [{"v": {"id": 1}}, {"o": b"out"}, {"E": b"err"}, {"r": {"exit_code": 3}}]


def test_the_end_of_the_daemon_ends_what_only_waits(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        waiting = Waiting(served, only_waiting=True)
        with Raw(served) as raw:
            raw.request("wait")
            assert waiting.begun.wait(20)
            served.close()
            assert waiting.wait() == "cancelled"
            while raw.read() is not None:
                pass


def test_the_end_of_the_daemon_waits_for_what_changes_something(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        waiting = Waiting(served, reads=True)
        with Raw(served) as raw:
            raw.request("wait")
            assert waiting.begun.wait(20)
            closing = threading.Thread(target=served.close)
            closing.start()
            waiting.go_on()
            assert waiting.wait() == "leftfinished"
            closing.join(20)
