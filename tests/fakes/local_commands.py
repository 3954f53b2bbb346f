"""A streaming backend whose containers are this machine: its processes, its ports."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import subprocess
import termios
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.container.streams import relay_exec
from isula_edge.runtime.base import ExecProcess
from isula_edge.sys import process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isula_edge.container.streams import Session

MISSING = "missing"
"""The id of a container, or a pod, that does not exist."""


class LocalCommands:
    """Runs what it is asked to run; ``ended`` are the exit codes so far."""

    def __init__(self) -> None:
        self.ended: list[int] = []
        self.attach_argv = ["cat"]

    async def exec(
        self, container_id: str, argv: list[str], tty: bool, stdin: bool, session: Session
    ) -> int:
        if container_id == MISSING:
            raise errors.NotFound(f"No such container:{container_id}", kind="container")
        try:
            child, running = _with_terminal(argv) if tty else _with_pipes(argv, stdin)
        except FileNotFoundError as error:
            raise errors.CommandNotFound(f"exec: {argv[0]}: not found") from error
        with child, _exit_code(child) as exited:
            try:
                code = await relay_exec(session, running, exited, process.identify(child.pid))
            finally:
                child.kill()
        self.ended.append(code)
        return code

    async def attach(self, container_id: str, stdin: bool, tty: bool, session: Session) -> int:
        return await self.exec(container_id, self.attach_argv, tty, stdin, session)

    async def port_forward(self, pod_id: str, port: int) -> socket.socket:
        if pod_id == MISSING:
            raise errors.NotFound(f"No such pod: {pod_id}", kind="pod")
        sock = socket.socket()
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        except OSError as error:
            sock.close()
            raise errors.Unavailable(f"port {port}: {error}") from error
        except asyncio.CancelledError:
            sock.close()
            raise
        return sock


def _with_pipes(argv: list[str], stdin: bool) -> tuple[subprocess.Popen[bytes], ExecProcess]:
    source = subprocess.PIPE if stdin else subprocess.DEVNULL
    child = subprocess.Popen(argv, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    pipes = child.stdin, child.stdout, child.stderr
    first, second, third = (os.dup(pipe.fileno()) if pipe else -1 for pipe in pipes)
    for pipe in filter(None, pipes):
        pipe.close()
    return child, ExecProcess(child.pid, first, second, third)


def _with_terminal(argv: list[str]) -> tuple[subprocess.Popen[bytes], ExecProcess]:
    master, slave = os.openpty()

    def control() -> None:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    try:
        child = subprocess.Popen(
            argv, stdin=slave, stdout=slave, stderr=slave, preexec_fn=control
        )
    except OSError:
        os.close(master)
        raise
    finally:
        os.close(slave)
    return child, ExecProcess(child.pid, master=master)


@contextlib.contextmanager
def _exit_code(child: subprocess.Popen[bytes]) -> Iterator[asyncio.Future[int]]:
    loop = asyncio.get_running_loop()
    exited: asyncio.Future[int] = loop.create_future()
    pidfd = os.pidfd_open(child.pid)

    def ended() -> None:
        code = child.wait()
        if not exited.done():
            exited.set_result(code if code >= 0 else 128 - code)

    loop.add_reader(pidfd, ended)
    try:
        yield exited
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
