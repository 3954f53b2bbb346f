"""Removing a container: one that runs only goes by force, whoever started it when."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.container import leftovers
from isula_edge.container.life import Life
from isula_edge.container.table import Table

if TYPE_CHECKING:
    from pathlib import Path

ONE = "ab" + "1" * 62


class Removing(Life):
    """A life of which only the order of a removal is real."""

    def __init__(self) -> None:
        self.done: list[str] = []

    async def _kill_hard(self, container: Any) -> None:
        self.done.append("killed")
        container.running = False

    async def _remove(self, container: Any) -> None:
        assert not container.running
        self.done.append("removed")


@pytest.mark.parametrize("force", [False, True])
def test_a_container_that_is_started_just_before_its_removal(force: bool) -> None:
    life = Removing()

    async def scenario() -> None:
        container: Any = SimpleNamespace(id="c", running=False, lock=asyncio.Lock())
        async with container.lock:
            removal = asyncio.create_task(life.remove(container, force=force))
            await asyncio.sleep(0)
            container.running = True
        await removal

    if force:
        asyncio.run(scenario())
        assert life.done == ["killed", "removed"]
    else:
        with pytest.raises(errors.FailedPrecondition, match="running container"):
            asyncio.run(scenario())
        assert life.done == []


def test_a_container_lives_as_long_as_a_process_is_called_by_its_id() -> None:
    assert not leftovers.living(ONE)
    command = [sys.executable, "-c", "print(flush=True); input()", ONE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert leftovers.living(ONE)
        process.communicate(b"\n")
    assert not leftovers.living(ONE)


def test_a_damaged_container_goes_on_at_every_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also at those that find its record in quarantine already."""
    life: Any = Removing()
    life._table = Table(str(tmp_path))
    life._state, life._runtimes = str(tmp_path / "state"), {"lxc": None}
    (tmp_path / "state/lxc" / ONE).mkdir(parents=True)
    (tmp_path / f"quarantine/g%engines%lxc%{ONE}").mkdir(parents=True)
    ended: list[str] = []
    monkeypatch.setattr(leftovers, "end_processes", lambda name, *_: ended.append(name))
    asyncio.run(life._end_leftovers())
    assert ended == []
