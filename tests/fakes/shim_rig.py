"""Bundles and servers for tests that call a shim directly: the fake one, or a real one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from typing import TYPE_CHECKING, Any

from isula_edge.runtime import shim_process
from isula_edge.runtime.shim_task import Gone, Task
from isula_edge.sys import process
from isula_edge.sys.process import Reaper

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from isula_edge.runtime.shim_messages import Address
    from isula_edge.runtime.shim_process import Shim

__all__ = ["Rig", "Stream", "make_bundle", "run", "until_dead", "until_exists", "until_gone"]

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def make_bundle(
    folder: Path,
    id: str,
    args: list[str],
    *,
    terminal: bool = False,
    annotations: dict[str, str] | None = None,
    **quirks: Any,
) -> Path:
    """A bundle for the fake shim; ``quirks`` are those of this container."""
    bundle = folder / id
    bundle.mkdir()
    described = {
        "ociVersion": "1.0.2",
        "process": {"args": args, "env": [PATH], "cwd": "/", "terminal": terminal},
        "annotations": annotations or {},
    }
    (bundle / "config.json").write_text(json.dumps(described))
    if quirks:
        (bundle / "quirks").write_text(json.dumps(quirks))
    return bundle


class Stream:
    """The engine's end of a FIFO that a shim writes to."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path, 0o600)
        self.path = str(path)
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    async def read(self, wanted: bytes | None = None) -> bytes:
        """All until the end, or until ``wanted`` was read; the process has been started."""
        data = b""
        async with asyncio.timeout(30):
            while wanted is None or wanted not in data:
                try:
                    chunk = os.read(self._fd, 65536)
                except BlockingIOError:
                    await asyncio.sleep(0.01)
                    continue
                if not chunk:
                    break
                data += chunk
        return data

    def close(self) -> None:
        os.close(self._fd)


class Rig:
    """Servers of one shim, and what ends them after the test."""

    def __init__(self, shim: Shim, reaper: Reaper) -> None:
        self.shim = shim
        self.reaper = reaper
        self._bundles: list[Path] = []
        self._tasks: list[Task] = []
        self._streams: list[Stream] = []

    async def start(self, bundle: Path, **options: Any) -> Address:
        """Starts the server of ``bundle``: its address."""
        self._bundles.append(bundle)
        return await shim_process.start(self.reaper, self.shim, bundle.name, str(bundle), **options)

    async def serve(self, bundle: Path) -> Task:
        """Starts the server of ``bundle``, and connects."""
        return await self.connect(await self.start(bundle))

    async def connect(self, address: Address) -> Task:
        """One more connection."""
        task = await Task.connect(address, shim=self.shim.name)
        self._tasks.append(task)
        return task

    def stream(self, path: Path) -> Stream:
        """A new FIFO at ``path``, open for reading."""
        stream = Stream(path)
        self._streams.append(stream)
        return stream

    async def clean(self) -> None:
        for stream in self._streams:
            stream.close()
        for task in self._tasks:
            await task.close()
        for bundle in self._bundles:
            shim_process.end_server(self.shim, bundle.name)
            for pid in _pids(bundle):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            with contextlib.suppress(FileNotFoundError):
                address = (bundle / "address").read_text()
                if address.startswith("unix://"):
                    os.unlink(address.removeprefix("unix://"))


def _pids(bundle: Path) -> list[int]:
    """What the fake shim noted."""
    try:
        return [int(line) for line in (bundle / "pids").read_text().split()]
    except FileNotFoundError:
        return []


def run(shim: Shim, work: Callable[[Rig], Awaitable[None]], *, limit_s: float = 60) -> None:
    """``work`` with servers of ``shim``."""

    async def main() -> None:
        async with _rig(shim) as rig, asyncio.timeout(limit_s):
            await work(rig)

    asyncio.run(main())


@contextlib.asynccontextmanager
async def _rig(shim: Shim) -> AsyncIterator[Rig]:
    reaper = Reaper()
    reaper.install()
    rig = Rig(shim, reaper)
    try:
        yield rig
    finally:
        await rig.clean()
        # a loop that ends closes what the handler writes to before the handler is gone
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)


async def until_gone(address: Address) -> None:
    """Returns when nobody serves there any more."""
    async with asyncio.timeout(30):
        while True:
            try:
                task = await Task.connect(address)
            except Gone:
                return
            await task.close()
            await asyncio.sleep(0.02)


async def until_dead(pid: int) -> None:
    """Returns when no process runs as ``pid`` any more."""
    async with asyncio.timeout(30):
        while True:
            found = process.identify(pid)
            if found is None or not found.alive():
                return
            await asyncio.sleep(0.02)


async def until_exists(path: Path) -> None:
    """Returns when there is something at ``path``."""
    async with asyncio.timeout(30):
        while True:
            if path.exists():
                return
            await asyncio.sleep(0.02)
