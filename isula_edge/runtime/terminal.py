"""Pseudo-terminals on the host and in a container's own devpts instance."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import termios
import tty

__all__ = ["open_pty", "pty_in", "set_size"]

_TIOCGPTN = 0x80045430
_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441
"""Linux 4.13."""


def set_size(fd: int, rows: int, columns: int) -> None:
    """TIOCSWINSZ; the kernel sends SIGWINCH to the terminal's foreground processes."""
    with contextlib.suppress(OSError):
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def open_pty() -> tuple[int, int, str]:
    """A pty of the host in raw mode: master, slave (both close-on-exec), the slave's name."""
    master, slave = os.openpty()
    tty.setraw(slave)
    return master, slave, os.ttyname(slave)


def pty_in(pid: int, size: tuple[int, int] | None) -> tuple[int, int]:
    """A pty in the devpts of process ``pid``'s container: master and slave.

    There ``ttyname`` works inside the container, unlike with a terminal of the host.
    A container without a devpts of its own gets one of the host's.
    """
    try:
        master = os.open(f"/proc/{pid}/root/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        master, slave = os.openpty()
        if size:
            set_size(master, *size)
        return master, slave
    try:
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
        try:
            slave = fcntl.ioctl(master, _TIOCGPTPEER, flags)
        except OSError:
            number = struct.unpack("i", fcntl.ioctl(master, _TIOCGPTN, b"\0" * 4))[0]
            slave = os.open(f"/proc/{pid}/root/dev/pts/{number}", flags)
        if size:
            set_size(master, *size)
    except BaseException:
        os.close(master)
        raise
    return master, slave
