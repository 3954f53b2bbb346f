"""One operation per container, many at once, and the collection of garbage alone."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter

import pytest

from isula_edge.network.turns import Turns


def test_any_order_of_starts_ends_and_cancellations() -> None:
    chance = random.Random(9)
    turns = Turns()
    running: Counter[str] = Counter()
    done: Counter[str] = Counter()

    async def one(name: str) -> None:
        async with turns.of(name):
            running[name] += 1
            assert running[name] == 1
            assert not running["alone"]
            for _ in range(chance.randint(0, 3)):
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(0)
            running[name] -= 1
            done[name] += 1

    async def alone() -> None:
        async with turns.alone():
            assert not running.total()
            running["alone"] += 1
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            running["alone"] -= 1
            done["alone"] += 1

    async def main() -> None:
        tasks = []
        for _ in range(600):
            kind = one(chance.choice("abc")) if chance.random() < 0.8 else alone()
            tasks.append(asyncio.create_task(kind))
            if chance.random() < 0.5:
                await asyncio.sleep(0)
            if chance.random() < 0.3:
                chance.choice(tasks).cancel()
        answers = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
        bad = [a for a in answers if a and not isinstance(a, asyncio.CancelledError)]
        assert bad == []
        await one("a")
        await alone()

    asyncio.run(main())
    assert min(done[name] for name in ("a", "b", "c", "alone")) > 10
    assert not turns._locks
    assert not turns._users


def test_different_containers_at_once() -> None:
    async def main() -> None:
        turns = Turns()
        async with turns.of("a"), turns.of("b"):
            waiting = asyncio.create_task(turns.of("a").__aenter__())
            await asyncio.sleep(0)
            assert not waiting.done()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    asyncio.run(main())
