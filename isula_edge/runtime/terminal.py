"""Pseudo-terminals on the host and in a container's own devpts instance."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import struct
import termios
import tty

__all__ = ["lxc_can_open", "open_pty", "pty_in", "set_size"]

_TIOCGPTN = 0x80045430
_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441
"""Linux 4.13."""


def set_size(fd: int, rows: int, columns: int) -> None:
    """TIOCSWINSZ; the kernel sends SIGWINCH to the terminal's foreground processes."""
    with contextlib.suppress(OSError):
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def open_pty(*, raw: bool = True) -> tuple[int, int, str]:
    """A pty of the host: master, slave (both close-on-exec), the slave's name."""
    master, slave = os.openpty()
    if raw:
        tty.setraw(slave)
    return master, slave, os.ttyname(slave)


@functools.cache
def lxc_can_open() -> bool:
    """Whether LXC can make a terminal for a container.

    It asks for the slave by TIOCGPTPEER and takes another way only where that is ENOTTY:
    Linux 3.4 answers EINVAL.
    """
    master, slave = os.openpty()
    try:
        os.close(fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno != errno.EINVAL
    finally:
        os.close(master)
        os.close(slave)
    return True


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
