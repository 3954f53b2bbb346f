"""What network interfaces have sent and received, in any network namespace."""

from __future__ import annotations

import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isula_edge.sys import syscalls

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Interface", "interfaces", "parse"]

_CLONE_NEWNET = 0x40000000


@dataclass(frozen=True, slots=True)
class Interface:
    """Counters of one interface since it was made."""

    name: str
    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


def parse(text: str) -> list[Interface]:
    """The interfaces in the text of /proc/net/dev, proc_net(5)."""
    found = []
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        # 8 columns of what was received, 8 of what was sent: bytes packets errs drop …
        numbers = [int(word) for word in rest.split()]
        found.append(Interface(name.strip(), *numbers[:4], *numbers[8:12]))
    return found


def interfaces(paths: Iterable[str]) -> dict[str, list[Interface]]:
    """The interfaces of each network namespace at ``paths``; one that is gone is left out.

    Blocking, for a few µs per namespace; the thread of the caller stays where it is.
    """
    wanted = list(dict.fromkeys(paths))
    if not wanted:
        return {}
    # a thread that ends afterwards need not find its way back
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_visit, wanted).result()


def _visit(paths: Iterable[str]) -> dict[str, list[Interface]]:
    found = {}
    for path in paths:
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                syscalls.setns(fd, _CLONE_NEWNET)
            finally:
                os.close(fd)
            # /proc/net is the whole process's
            with open(f"/proc/self/task/{threading.get_native_id()}/net/dev") as file:
                found[path] = parse(file.read())
    return found
