"""Who makes pods keeps a synchronization out, and the other way round; nobody waits for ever."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from isula_cri.nri.gate import Gate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def run(work: Callable[[Gate], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            await work(Gate())

    asyncio.run(main())


async def turns(count: int = 5) -> None:
    """Lets every task that can go on do so."""
    for _ in range(count):
        await asyncio.sleep(0)


async def alone(gate: Gate, seen: list[str], go: asyncio.Event) -> None:
    async with gate.alone():
        seen.append("alone")
        await go.wait()
        seen.append("left")


async def inside(gate: Gate, seen: list[str]) -> None:
    async with gate.inside():
        seen.append("inside")


def test_one_alone_waits_for_all_inside() -> None:
    async def work(gate: Gate) -> None:
        seen: list[str] = []
        go = asyncio.Event()
        go.set()
        async with gate.inside():
            task = asyncio.create_task(alone(gate, seen, go))
            await turns()
            # who waits to be alone keeps nobody out
            await asyncio.create_task(inside(gate, seen))
            assert seen == ["inside"]
            assert not gate.closed
        await task
        assert seen == ["inside", "alone", "left"]

    run(work)


def test_one_alone_keeps_the_others_out() -> None:
    async def work(gate: Gate) -> None:
        seen: list[str] = []
        go = asyncio.Event()
        first = asyncio.create_task(alone(gate, seen, go))
        await turns()
        second = asyncio.create_task(alone(gate, seen, go))
        third = asyncio.create_task(inside(gate, seen))
        await turns()
        assert seen == ["alone"]
        assert gate.closed
        go.set()
        await asyncio.gather(first, second, third)
        assert sorted(seen) == ["alone", "alone", "inside", "left", "left"]
        assert "alone left" in " ".join(seen)

    run(work)


def test_nested_and_in_tasks_of_who_is_inside() -> None:
    async def work(gate: Gate) -> None:
        seen: list[str] = []
        async with gate.inside(), gate.inside():
            await asyncio.gather(inside(gate, seen), inside(gate, seen))
        assert seen == ["inside", "inside"]
        async with gate.alone():
            assert gate.closed

    run(work)


def test_a_task_that_goes_on_is_no_longer_inside() -> None:
    async def work(gate: Gate) -> None:
        seen: list[str] = []
        left = asyncio.Event()

        async def later() -> None:
            await left.wait()
            await inside(gate, seen)

        async with gate.inside():
            task = asyncio.create_task(later())
            await turns()
        async with gate.alone():
            left.set()
            await turns()
            assert seen == []
        await task
        assert seen == ["inside"]

    run(work)


def test_who_fails_or_gives_up_leaves() -> None:
    async def work(gate: Gate) -> None:
        with pytest.raises(KeyError):
            async with gate.inside():
                raise KeyError
        async with gate.inside():
            waiting = asyncio.create_task(alone(gate, [], asyncio.Event()))
            await turns()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        task = asyncio.create_task(alone(gate, [], asyncio.Event()))
        await turns()
        assert gate.closed
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with gate.inside():
            assert not gate.closed

    run(work)
