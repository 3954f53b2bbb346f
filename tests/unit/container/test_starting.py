"""Starts that go on while somebody wants the container to end."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from isula_edge import errors
from isula_edge.container.record import Status
from isula_edge.container.starting import Starts

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from isula_edge.container.record import Container


def container() -> Container:
    found = SimpleNamespace(
        id="1" * 64,
        name="box",
        state=SimpleNamespace(status=Status.STARTING),
        lock=asyncio.Lock(),
    )
    return cast("Container", found)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_what_the_start_gives() -> None:
    async def work() -> None:
        async def start() -> int:
            return 7

        assert await Starts().run(container(), start()) == 7

    run(work())


def test_one_who_wants_it_to_end_waits_for_a_start_that_succeeds() -> None:
    async def work() -> None:
        starts, box, go = Starts(), container(), asyncio.Event()

        async def start() -> None:
            async with box.lock:
                await go.wait()
                box.state.status = Status.RUNNING

        starting = asyncio.create_task(starts.run(box, start()))
        await asyncio.sleep(0)
        settling = asyncio.create_task(starts.settle(box, 60))
        await asyncio.sleep(0)
        assert not settling.done()
        go.set()
        assert await settling is False
        await starting

    run(work())


def test_a_start_that_hangs_is_ended_and_says_so() -> None:
    async def work() -> None:
        starts, box = Starts(), container()
        undone = []

        async def start() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                undone.append(True)
                box.state.status = Status.EXITED

        starting = asyncio.create_task(starts.run(box, start()))
        await asyncio.sleep(0)
        assert await starts.settle(box, 0) is True
        # what had to be undone has been
        assert undone == [True]
        with pytest.raises(errors.Aborted, match="box was ended while it was being started"):
            await starting
        # the next one is another matter
        assert await starts.settle(box, 0) is False

    run(work())


def test_a_request_that_is_cancelled_is_no_interruption() -> None:
    async def work() -> None:
        starts, box = Starts(), container()

        async def start() -> None:
            await asyncio.Event().wait()

        starting = asyncio.create_task(starts.run(box, start()))
        await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting

    run(work())


def test_nothing_is_waited_for_when_it_is_not_started() -> None:
    async def work() -> None:
        box = container()
        box.state.status = Status.RUNNING
        async with box.lock:
            assert await Starts().settle(box, None) is False

    run(work())
