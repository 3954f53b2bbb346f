"""Messages to the service manager, sd_notify(3): READY, RELOADING, STOPPING, STATUS."""

from __future__ import annotations

import contextlib
import os
import socket

__all__ = ["listen_fds", "notify"]

_FIRST_FD = 3


def notify(*assignments: str) -> bool:
    """Sends the lines to ``$NOTIFY_SOCKET``; False when there is none or it does not take them."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
    ):
        sock.sendto("\n".join(assignments).encode(), address)
        return True
    return False


def listen_fds() -> list[int]:
    """Descriptors handed over by socket activation (sd_listen_fds(3)), or none."""
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()):
        return []
    count = os.environ.pop("LISTEN_FDS", "0")
    os.environ.pop("LISTEN_FDNAMES", None)
    fds = list(range(_FIRST_FD, _FIRST_FD + (int(count) if count.isdigit() else 0)))
    for fd in fds:
        os.set_inheritable(fd, False)
    return fds
