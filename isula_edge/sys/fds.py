"""Reading and writing descriptors inside asyncio without ever blocking the loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["hang_up", "readable", "writable", "write_all"]


@contextlib.contextmanager
def hang_up(fd: int) -> Iterator[asyncio.Future[None]]:
    """A future that is done when the peer of a socket closes, although nobody reads its data."""
    loop = asyncio.get_running_loop()
    gone: asyncio.Future[None] = loop.create_future()
    with select.epoll(1) as poll:
        poll.register(fd, select.EPOLLRDHUP)
        loop.add_reader(poll.fileno(), _set, gone)
        try:
            yield gone
        finally:
            loop.remove_reader(poll.fileno())
            gone.cancel()


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
