"""Ends processes with everything that they have started."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import TYPE_CHECKING

from isula_edge.sys import process

if TYPE_CHECKING:
    from collections.abc import Iterable

    from isula_edge.sys.process import Identity

__all__ = ["end", "end_tree", "parent"]

_log = logging.getLogger(__name__)
_ROUNDS = 100
_ROUND_S = 0.05


def parent(pid: int) -> int | None:
    """The parent of process ``pid``, 0 being nobody; None when there is no such process."""
    found = process.stat_fields(pid) if pid > 0 else []
    return int(found[1]) if found else None


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    living = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        found = process.stat_fields(name)
        if found:
            children.setdefault(int(found[1]), []).append(int(name))
            if found[0] not in (b"Z", b"X"):
                living.add(int(name))
    wanted, below = [root], []
    while wanted:
        more = children.get(wanted.pop(), [])
        below += more
        wanted += more
    return [pid for pid in below if pid in living]


async def end(found: Iterable[Identity]) -> bool:
    """Kills these processes and waits for their end; False when one does not end at once."""
    left = [*found]
    for one in left:
        process.signal_process(one, signal.SIGKILL)
    for _ in range(_ROUNDS):
        left = [one for one in left if one.alive()]
        if not left:
            return True
        futures = [process.gone(one) for one in left]
        try:
            await asyncio.wait(futures, timeout=_ROUND_S)
        finally:
            for future in futures:
                future.cancel()
    return False


async def end_tree(root: Identity) -> None:
    """Kills ``root``, a child subreaper, and every process below it.

    It is stopped first: what its descendants leave behind becomes its child, so nothing
    gets away.
    """
    try:
        process.signal_process(root, signal.SIGSTOP)
        for _ in range(_ROUNDS):
            below = [*filter(None, map(process.identify, _descendants(root.pid)))]
            if not root.alive() or not below:
                break
            if not await end(below):
                _log.warning("processes below %d do not end", root.pid)
                break
    finally:
        process.signal_process(root, signal.SIGKILL)
    await end([root])
