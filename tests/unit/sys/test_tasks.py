"""Work that is not left half done."""

from __future__ import annotations

import asyncio

import pytest

from isula_edge.sys.tasks import to_its_end


def test_work_goes_on_when_its_caller_leaves() -> None:
    done: list[str] = []

    async def work() -> None:
        go_on = asyncio.Event()

        async def long() -> str:
            await go_on.wait()
            done.append("work")
            return "x"

        caller = asyncio.ensure_future(to_its_end(long()))
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.sleep(0)
        assert not caller.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert done == ["work"]
        assert await to_its_end(long()) == "x"

    asyncio.run(work())
