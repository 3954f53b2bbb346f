"""Work that several callers ask for at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from isula_edge import errors
from isula_edge.service.attempts import Attempts


class Work:
    """Waits until it is let go; counts how it began and ended."""

    def __init__(self) -> None:
        self.begun = self.cancelled = 0
        self.go_on = asyncio.Event()
        self.undone = asyncio.Event()

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            await self.undone.wait()
            raise
        return number


def settle() -> Any:
    """Lets everything run that can."""

    async def turns() -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    return turns()


def test_callers_with_one_request_share_one_attempt() -> None:
    async def work() -> None:
        attempts: Attempts[int] = Attempts()
        job = Work()
        callers = [asyncio.ensure_future(attempts.run("k", "x", job)) for _ in range(3)]
        await settle()
        job.go_on.set()
        assert await asyncio.gather(*callers) == [1, 1, 1]
        # what is done is not remembered
        assert await attempts.run("k", "x", job) == 2

    asyncio.run(work())


def test_names_do_not_wait_for_each_other() -> None:
    async def work() -> None:
        attempts: Attempts[int] = Attempts()
        slow, fast = Work(), Work()
        fast.go_on.set()
        waiting = asyncio.ensure_future(attempts.run("slow", 1, slow))
        await settle()
        assert await attempts.run("fast", 1, fast) == 1
        slow.go_on.set()
        assert await waiting == 1

    asyncio.run(work())


def test_another_request_by_the_same_name_is_refused_meanwhile() -> None:
    async def work() -> None:
        attempts: Attempts[int] = Attempts()
        job = Work()
        first = asyncio.ensure_future(attempts.run("k", {"a": 1}, job))
        await settle()
        with pytest.raises(errors.AlreadyExists, match="k is being made") as caught:
            await attempts.run("k", {"a": 2}, job)
        assert caught.value.retryable
        job.go_on.set()
        assert await first == 1
        assert await attempts.run("k", {"a": 2}, job) == 2

    asyncio.run(work())


def test_who_leaves_takes_nothing_from_those_who_stay() -> None:
    async def work() -> None:
        attempts: Attempts[int] = Attempts()
        job = Work()
        leaver, stayer = (asyncio.ensure_future(attempts.run("k", 1, job)) for _ in range(2))
        await settle()
        leaver.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaver
        job.go_on.set()
        assert await stayer == 1
        assert job.cancelled == 0

    asyncio.run(work())


def test_when_the_last_has_gone_it_is_cancelled_and_who_comes_begins_anew() -> None:
    async def work() -> None:
        attempts: Attempts[int] = Attempts()
        job = Work()
        leaver = asyncio.ensure_future(attempts.run("k", 1, job))
        await settle()
        leaver.cancel()
        await settle()
        assert (leaver.cancelled(), job.cancelled) == (True, 1)
        # another request too: nothing is under way for it but the undoing
        newcomers = [asyncio.ensure_future(attempts.run("k", 2, job)) for _ in range(2)]
        await settle()
        assert job.begun == 1
        job.go_on.set()
        job.undone.set()
        assert await asyncio.gather(*newcomers) == [2, 2]

    asyncio.run(work())


def test_a_failure_is_everybodys_and_is_forgotten() -> None:
    async def work() -> None:
        attempts: Attempts[int] = Attempts()
        go_on = asyncio.Event()

        async def fail() -> int:
            await go_on.wait()
            raise errors.NoSpace("full")

        async def succeed() -> int:
            return 5

        callers = [asyncio.ensure_future(attempts.run("k", 1, fail)) for _ in range(2)]
        await settle()
        go_on.set()
        found = await asyncio.gather(*callers, return_exceptions=True)
        assert [type(item) for item in found] == [errors.NoSpace] * 2
        assert await attempts.run("k", 1, succeed) == 5

    asyncio.run(work())
