"""Listening sockets: made here, or handed over by systemd."""

from __future__ import annotations

import contextlib
import grp
import logging
import os
import socket
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.sys import unix
from isula_edge.sys.notify import listen_fds

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["group_id", "listen", "remove"]

_log = logging.getLogger(__name__)
_BACKLOG = 512
_MAY_BE_MISSING = ("isula", "docker")
# by identity: a closed socket has no number any more
_made: dict[socket.socket, tuple[str, int]] = {}


def listen(hosts: Sequence[str], group: str) -> list[socket.socket]:
    """Sockets for ``hosts`` (``unix:///path``), mode 0660 and of ``group``.

    Those that the service manager hands over replace all of them.
    """
    given = listen_fds()
    if given:
        return [socket.socket(fileno=fd) for fd in given]
    gid = group_id(group)
    found = []
    try:
        for host in hosts:
            found.append(_unix(host.removeprefix("unix://"), gid))
    except BaseException:
        remove(found)
        raise
    return found


def group_id(group: str) -> int:
    """The number of a group; root's where isula's own has not been made.  InvalidArgument."""
    if group.isdigit():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        if group not in _MAY_BE_MISSING:
            raise errors.InvalidArgument(
                f"group: there is no group {group}", hint=f"groupadd --system {group}"
            ) from None
        _log.info("there is no group %s: the socket belongs to root alone", group)
        return 0


def _unix(path: str, gid: int) -> socket.socket:
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    unix.clear(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        mask = os.umask(0o177)
        try:
            sock.bind(path)
        finally:
            os.umask(mask)
        os.chown(path, 0, gid)
        os.chmod(path, 0o660)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise errors.Unavailable(f"cannot listen on unix://{path}: {error}") from error
    _made[sock] = (path, os.stat(path).st_ino)
    return sock


def remove(found: Sequence[socket.socket]) -> None:
    """Closes sockets, and deletes the files of those made by :func:`listen`."""
    for sock in found:
        path, inode = _made.pop(sock, ("", 0))
        sock.close()
        with contextlib.suppress(OSError):
            if path and os.stat(path).st_ino == inode:
                os.unlink(path)
