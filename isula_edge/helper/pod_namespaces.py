"""The helper that makes the namespaces of a pod with a user namespace of its own.

unshare(CLONE_NEWUSER) wants a process with one thread, which the engine is not.  It
answers on standard output, one line per step, and waits on standard input in between:
``user`` (the engine writes the maps), ``made`` (the engine pins ``/proc/PID/ns``), and
where a process is to hold a shared process id namespace, that one's pid.  Instead of these it
answers ``refused TEXT`` for what the user asked for, ``failed ERRNO TEXT`` for the rest.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.sys import process, syscalls
from isula_edge.sys.userns import why_none

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FLAGS", "enter", "main", "start_pause"]

FLAGS = {
    "network": syscalls.CLONE_NEWNET,
    "ipc": syscalls.CLONE_NEWIPC,
    "uts": syscalls.CLONE_NEWUTS,
}
"""Runtime-spec types that a thread can make for itself."""
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def enter(kinds: list[str], hostname: str, sysctls: Mapping[str, str]) -> None:
    """Puts the calling thread into new namespaces of ``kinds``, all set up inside.

    lo is up, host name and ``sysctls`` are set; InvalidArgument for one that cannot be.
    """
    flags = 0
    for kind in kinds:
        flags |= FLAGS[kind]
    syscalls.unshare(flags)
    if "uts" in kinds:
        socket.sethostname(hostname)
    if "network" in kinds:
        _lo_up()
    for key, value in sysctls.items():
        try:
            with open(f"/proc/sys/{key.replace('.', '/')}", "w", encoding="ascii") as file:
                file.write(value)
        except (OSError, UnicodeError) as error:
            raise errors.InvalidArgument(
                f"sysctl {key}={value} is refused by the kernel: {error}", kind="sysctl", ref=key
            ) from error


def _lo_up() -> None:
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        request = struct.pack("16sH14x", b"lo", 0)
        (flags,) = struct.unpack("16xH14x", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


def start_pause(root: str, program: bytes, name: str) -> int:
    """Starts ``program``, an ELF file, as the holder of a new process id namespace: its pid.

    It runs in the calling thread's other namespaces, in a root of its own below ``root``
    that holds nothing else: who may look at /proc/1/root inside must see nothing of the
    host's.  ``name`` is its argument, for who looks for it.  The thread is of no use
    afterwards.
    """
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    # a tmpfs of its own: the state directory may be mounted noexec
    syscalls.mount("pause", root, "tmpfs", 0, "mode=755,size=64k")
    with open(f"{root}/pause", "wb") as file:
        file.write(program)
    os.chmod(f"{root}/pause", 0o755)  # noqa: S103  # executed before it drops its user ids
    read_end, write_end = os.pipe()
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        os.chdir(root)
        syscalls.pivot_root(".", ".")
        syscalls.umount(".", syscalls.MNT_DETACH)
        process.spawn(["/pause", name], stdin=null, stdout=write_end, stderr=null, new_session=True)
        os.close(write_end)
        write_end = -1
        answer = os.read(read_end, 4)
    finally:
        for fd in (read_end, write_end, null):
            if fd >= 0:
                os.close(fd)
    (pid,) = struct.unpack("<i", answer) if len(answer) == 4 else (-1,)
    if pid <= 0:
        raise OSError(-pid, f"no process id namespace: {os.strerror(-pid)}")
    return int(pid)


def main() -> int:
    """``HOSTNAME KINDS ROOT PROGRAM SYSCTL…``: see above; ROOT is '' where no process is needed."""
    try:
        _main(*sys.argv[1:])
    except errors.EngineError as error:
        _step(f"refused {error.message}")
    except OSError as error:
        _step(f"failed {error.errno or 0} {error.strerror or error}")
    return 0


def _main(hostname: str, words: str, root: str, program: str, *sysctls: str) -> None:
    kinds = words.split(",") if words else []
    data, name = b"", ""
    if root:
        # now: root of the namespace may be let through to neither of them
        with open(program, "rb") as file:
            data = file.read()
        os.chdir(os.path.dirname(root))
        name = os.path.basename(os.getcwd())
    try:
        syscalls.unshare(syscalls.CLONE_NEWUSER)
    except OSError as error:
        number = error.errno or 0
        raise OSError(number, why_none(number)) from error
    _step("user")
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    enter(kinds, hostname, dict(item.partition("=")[::2] for item in sysctls))
    _step("made")
    if root:
        _step(str(start_pause(os.path.basename(root), data, name)))


def _step(word: str) -> None:
    os.write(1, f"{word}\n".encode())
    if not os.read(0, 1):
        sys.exit(1)
