"""The process that holds a pod's shared process id namespace: 4 KiB of memory, no image.

Only a pod whose containers share one process id namespace needs a process.  The program
clones a child into a new process id namespace and writes the child's pid, four bytes, to
its standard output.  The child, process 1 there, gives up its user ids and with them every
capability, ignores SIGCHLD, so that the kernel reaps whatever becomes its child, and
sleeps until it is killed.
"""

from __future__ import annotations

import os
import struct

from isula_edge import errors
from isula_edge.profile.code import Code, find

__all__ = ["build", "build_init"]

_CLONE_FLAGS = 0x20000000 | 17  # CLONE_NEWPID, SIGCHLD
_NOBODY = 65534
_PR_SET_NO_NEW_PRIVS = 38
_SIGCHLD = 17
_IGNORE = struct.pack("<4Q", 1, 0, 0, 0)
"""The kernel's struct sigaction: SIG_IGN, no flags, no mask, whatever the size of its fields."""


def build(machine: str = "") -> bytes:
    """The ELF file for ``machine`` ('' is this one); Unimplemented for one without a profile."""
    code = _code(machine)
    steps = (
        code.call("clone", _CLONE_FLAGS, 0, 0, 0, 0),
        code.parent,
        code.call("close", 1),
        code.call("setgroups", 0, 0),
        code.call("setresgid", _NOBODY, _NOBODY, _NOBODY),
        code.call("setresuid", _NOBODY, _NOBODY, _NOBODY),
        code.call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0),
        code.call("rt_sigaction", _SIGCHLD, code.data, 0, 8),
        code.sleep,
    )
    return code.program(_IGNORE, b"".join(steps))


def build_init(machine: str = "") -> bytes:
    """The ELF file of a sandbox's process 1, which is there and does nothing else."""
    code = _code(machine)
    ignore = code.call("rt_sigaction", _SIGCHLD, code.data, 0, 8)
    return code.program(_IGNORE, ignore + code.sleep)


def _code(machine: str) -> Code:
    code = find(machine)
    if code is None:
        machine = machine or os.uname().machine
        raise errors.Unimplemented(
            f"pods with one process id namespace cannot be had on {machine}",
            kind="architecture",
            ref=machine,
            hint="set shareProcessNamespace to false",
        )
    return code
