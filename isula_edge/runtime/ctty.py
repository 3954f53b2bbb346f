"""A program of about 350 bytes that gives a container's init its controlling terminal.

Stock LXC calls setsid(2) for init and leaves it without a controlling terminal, so a shell
says "can't access tty; job control turned off"; and it switches the outer terminal to
ONLCR while it starts, which doubles every carriage return.  For containers with a terminal
this program is what LXC executes.  It waits at :data:`GATE` until the daemon has set the
outer terminal to raw, does ioctl(0, TIOCSCTTY, 0) and executes its arguments in the same
process, which stays pid 1.  It must run in any root file system, hence no interpreter and
no library: it is put together here of the instructions that the profile has.
"""

from __future__ import annotations

import errno
import os

from isula_edge import errors
from isula_edge.profile.code import find
from isula_edge.sys import atomic

__all__ = ["GATE", "NAME", "build", "install"]

NAME = "isula-ctty"
"""The program's name inside a container."""
GATE = "/dev/isula-gate"
"""The FIFO it reads one byte from before it goes on; absent is fine."""

_AT_FDCWD = -100
_TIOCSCTTY = 0x540E


def build(machine: str) -> bytes:
    """The ELF file for ``machine``; Unimplemented for one without a profile."""
    code = find(machine)
    if code is None:
        raise errors.Unimplemented(
            f"runtime lxc has no terminal helper for {machine}",
            kind="architecture",
            ref=machine,
            hint="use --runtime runc for containers with a terminal",
        )
    # the path lies between headers and code, so its address is known beforehand
    path = GATE.encode() + b"\0" * (16 - len(GATE) % 16)
    steps = (
        code.call("openat", _AT_FDCWD, code.data, os.O_CLOEXEC),
        # one byte into a scratch buffer; without a gate this fails, and that is fine
        code.result + code.buffer + code.argument(2, 1) + code.call("read"),
        code.call("ioctl", 0, _TIOCSCTTY, 0),
        code.executing(),
    )
    return code.program(path, b"".join(steps))


def install(folder: str, machine: str) -> str:
    """Writes the helper into ``folder`` when it is not there yet; its path.

    ``folder`` must be on a file system that is not mounted noexec.
    """
    path = f"{folder}/ctty-{machine}"
    data = build(machine)
    try:
        with open(path, "rb") as file:
            if file.read() == data:
                return path
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
    atomic.make_dir(folder, 0o755)
    atomic.write(path, data, 0o755)
    os.chmod(path, 0o755)  # noqa: S103  # any user of a container runs it
    return path
