"""Paths of unix sockets."""

from __future__ import annotations

import os
import socket
import stat

from isula_edge import errors

__all__ = ["clear"]


def clear(path: str) -> None:
    """Removes the socket of a program that has died; nothing there is fine.

    Unavailable when one answers, or when it is no socket.
    """
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise errors.Unavailable(
            f"unix://{path} is no socket: give another path", kind="socket", ref=path
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:
            pass  # its queue is full
        except OSError:
            os.unlink(path)
            return
    raise errors.Unavailable(
        f"unix://{path} is in use by another program", kind="socket", ref=path
    )
