"""Waiting for the end of a container: only the exit file says that it is over."""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from isula_edge.container.life import Life
from isula_edge.sys import process

if TYPE_CHECKING:
    from pathlib import Path

    from isula_edge.container.record import Container
    from isula_edge.runtime.base import Bundle


class Watching(Life):
    """A life of which only the waiting is real."""

    def __init__(self, state: str) -> None:
        self._state = state
        self._waiters = {}
        self._runtimes = cast("Any", {"lxc": SimpleNamespace(guest=None)})
        self.ended = 0

    async def _ended(self, container: Container, bundle: Bundle) -> None:
        del container, bundle
        self.ended += 1


def test_an_overflow_of_events_ends_no_container(tmp_path: Path) -> None:
    (tmp_path / "exits").mkdir()
    life = Watching(str(tmp_path))
    container = SimpleNamespace(
        id="c",
        runtime="lxc",
        state=SimpleNamespace(init=lambda: process.identify(os.getpid())),
    )

    async def scenario() -> None:
        task = asyncio.create_task(life._watch(cast("Any", container), cast("Any", None)))
        for name in ("", "", "other", "c"):
            for _ in range(5):
                await asyncio.sleep(0)
            life._exit_file_seen(name)
            for _ in range(5):
                await asyncio.sleep(0)
            assert (life.ended, task.done()) == (0, False)
        (tmp_path / "exits" / "c").write_text("0")
        life._exit_file_seen("")
        await asyncio.wait_for(task, 60)

    asyncio.run(scenario())
    assert life.ended == 1
