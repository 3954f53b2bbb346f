"""Reading and writing descriptors inside asyncio without ever blocking the loop."""

from __future__ import annotations

import asyncio
import os

__all__ = ["readable", "writable", "write_all"]


async def readable(fd: int) -> None:
    """Waits until a read of ``fd`` has something to say."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(fd, _set, ready)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


async def writable(fd: int) -> None:
    """Waits until ``fd`` takes more."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_writer(fd, _set, ready)
    try:
        await ready
    finally:
        loop.remove_writer(fd)


async def write_all(fd: int, data: bytes) -> None:
    """Writes all of ``data`` without blocking the loop; a reader that is gone is fine."""
    os.set_blocking(fd, False)
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            await writable(fd)
        except OSError:
            return  # nobody reads any more


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
