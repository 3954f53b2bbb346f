"""Whatever goes wrong while a worker is talked to: it is ended before the caller goes on."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import pytest

from isula_edge import errors, wire
from isula_edge.service.worker import run_worker
from isula_edge.sys import process
from isula_edge.sys.process import Reaper

EVENT = wire.pack({"v": {"id": "x"}})
GARBAGE = b"\xff\xff\xff\xff"
WORKER = """
import os, sys
os.write(1, bytes.fromhex(sys.argv[1]))
while os.read(0, 1 << 20):
    pass
"""


@pytest.mark.parametrize(
    ("said", "raised"), [(EVENT, KeyError), (EVENT, OSError), (GARBAGE, errors.Internal)]
)
def test_the_worker_has_ended(
    monkeypatch: pytest.MonkeyPatch, said: bytes, raised: type[Exception]
) -> None:
    command = [sys.executable, "-c", WORKER, said.hex()]
    monkeypatch.setattr(process, "python_command", lambda _module: command)
    ended: list[int] = []

    async def handle(_event: dict[str, Any]) -> None:
        raise raised("the daemon's own fault")

    async def scenario() -> None:
        reaper = Reaper()
        reaper.install()
        watch = reaper.watch

        def watched(pid: int) -> asyncio.Future[int]:
            found = watch(pid)
            found.add_done_callback(lambda _future: ended.append(pid))
            return found

        monkeypatch.setattr(reaper, "watch", watched)
        with pytest.raises(raised):
            await run_worker(reaper, {"op": "none"}, handle)
        await asyncio.sleep(0)
        assert len(ended) == 1

    asyncio.run(scenario())
    with pytest.raises(ProcessLookupError):
        os.kill(ended[0], 0)
