"""The processes that the fake shim serves: real ones, on the host, with streams over FIFOs."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import termios
import threading
import time
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.runtime import shim_messages as messages

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Process"]

# the process exists from Create on, and is continued, and becomes the program, at Start
_HOLDER = 'kill -STOP $$; exec "$@"'


class Process:
    """A process of a container: its first, or an exec."""

    def __init__(
        self,
        described: dict[str, Any],
        request: Any,
        bundle: Path,
        ended: Callable[[Process], None],
    ) -> None:
        """``ended`` is called in the loop after its end."""
        self.terminal: bool = request.terminal
        self.paths = (request.stdin, request.stdout, request.stderr)
        self.status = messages.CREATED
        self.exit = messages.WaitResponse()
        self.ended = asyncio.Event()
        self.copies: list[threading.Thread] = []
        self.hold = -1
        self.master = -1
        self._child = self._spawn(described, bundle)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        loop = asyncio.get_running_loop()

        def finish(code: int) -> None:
            self.status = messages.STOPPED
            self.exit = messages.WaitResponse(code, time.time_ns())
            self.ended.set()
            ended(self)

        def watch() -> None:
            code = self._child.wait()
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(finish, code if code >= 0 else 128 - code)

        threading.Thread(target=watch, daemon=True).start()

    @property
    def pid(self) -> int:
        return self._child.pid

    def _spawn(self, described: dict[str, Any], bundle: Path) -> subprocess.Popen[bytes]:
        args = described["args"]
        env = dict(pair.partition("=")[::2] for pair in described.get("env") or ())
        if shutil.which(args[0], path=env.get("PATH", os.defpath)) is None:
            raise errors.Internal(
                "OCI runtime create failed: unable to start container process: "
                f'exec: "{args[0]}": executable file not found in $PATH: unknown'
            )
        slave = subprocess.PIPE
        if self.terminal:
            self.master, slave = os.openpty()
        cwd = described.get("cwd") or "/"

        def take_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        child = subprocess.Popen(
            ["/bin/sh", "-c", _HOLDER, "sh", *args],
            stdin=slave, stdout=slave, stderr=slave, env=env,
            cwd=cwd if os.path.isdir(cwd) else bundle,
            start_new_session=True, preexec_fn=take_terminal if self.terminal else None,
        )  # fmt: skip
        if self.terminal:
            os.close(slave)
        return child

    def open_streams(self) -> None:
        """Opens the shim's ends of the FIFOs and begins to copy."""
        stdin, stdout, stderr = self.paths
        if not self.terminal and bool(stdout) != bool(stderr):
            raise errors.Internal('opening file "" failed: open : no such file or directory')
        child = self._child
        if self.terminal:
            outputs = [(os.dup(self.master), stdout)]
            into = os.dup(self.master)
        else:
            assert child.stdin is not None
            assert child.stdout is not None
            assert child.stderr is not None
            outputs = [
                (os.dup(child.stdout.fileno()), stdout),
                (os.dup(child.stderr.fileno()), stderr),
            ]
            into = os.dup(child.stdin.fileno())
            for stream in (child.stdin, child.stdout, child.stderr):
                stream.close()
        if stdin:
            # as long as the shim has a writing end itself, the process's input does not end
            self.hold = os.open(stdin, os.O_RDWR)
            source = os.open(stdin, os.O_RDONLY)
            threading.Thread(target=_copy, args=(source, into), daemon=True).start()
        else:
            os.close(into)
        for source, path in outputs:
            # its own reading end: nothing is lost while nobody reads
            sink = os.open(path, os.O_RDWR) if path else os.open("/dev/null", os.O_WRONLY)
            thread = threading.Thread(target=_copy, args=(source, sink), daemon=True)
            thread.start()
            self.copies.append(thread)

    def run(self) -> None:
        """Lets it become its program."""
        self.status = messages.RUNNING
        self.signal(signal.SIGCONT, group=False)

    def signal(self, number: int, *, group: bool) -> None:
        if group:
            os.killpg(self.pid, number)
        else:
            self._child.send_signal(number)

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def close_stdin(self) -> None:
        if self.hold >= 0:
            os.close(self.hold)
            self.hold = -1

    def forget(self) -> None:
        self.close_stdin()
        if self.status == messages.CREATED:
            self.signal(signal.SIGKILL, group=True)


def _copy(source: int, sink: int) -> None:
    """Until the end of ``source``, or until nobody reads ``sink``."""
    try:
        while chunk := os.read(source, 65536):
            while chunk:
                chunk = chunk[os.write(sink, chunk) :]
    except OSError:
        pass  # EIO is the end of a terminal
    finally:
        os.close(source)
        os.close(sink)
