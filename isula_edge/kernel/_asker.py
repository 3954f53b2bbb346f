"""Asks calls in a process that is thrown away.

A probe that changes its process (unshare(2) does), that a seccomp filter answers with a
signal, or that never returns ends with that process; the engine only waits so long.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import time
import warnings
from typing import TYPE_CHECKING

from isula_edge.kernel.source import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LIMIT_S", "Asker"]

LIMIT_S = 5.0
"""What one call may take.  Those that load a module take longest."""

_MOST_LOST = 3
"""Children that may be lost before nothing more is asked."""

_PR_SET_PDEATHSIG = 1


class Asker:
    """One child at a time, started by the first question and ended by :meth:`close`.

    ``ask`` runs in the child.  A child that gives no answer within ``limit_s`` seconds is
    killed, and the call is added to ``unanswered``; after three such, nothing more is asked.
    """

    def __init__(self, ask: Callable[[str], Answer | None], limit_s: float = LIMIT_S) -> None:
        self._ask = ask
        self._limit_s = limit_s
        self._pid = self._requests = self._replies = 0
        self.unanswered: list[str] = []

    def answer(self, name: str) -> Answer | None:
        """What the child says to ``name``; None when it says nothing.

        EPERM when a filter ended the child for it (SIGSYS).
        """
        if len(self.unanswered) >= _MOST_LOST:
            self.unanswered.append(name)
            return None
        if not self._pid:
            self._start()
        reply = b""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._requests, name.encode() + b"\n")
            reply = self._reply()
        if reply:
            ret, _, errname = reply.decode().strip().partition(" ")
            return None if ret == "-" else Answer(int(ret), errname)
        if self._end() == signal.SIGSYS:
            return Answer(-1, "EPERM")
        self.unanswered.append(name)
        return None

    def close(self) -> None:
        """Ends the child."""
        if self._pid:
            self._end()

    def _start(self) -> None:
        request_out, self._requests = os.pipe()
        self._replies, reply_in = os.pipe()
        with warnings.catch_warnings():
            # the child only makes system calls, whatever other threads held
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if self._pid == 0:
            _serve(request_out, reply_in, self._ask)
        os.close(request_out)
        os.close(reply_in)

    def _reply(self) -> bytes:
        """One line, or b'' when the child ended or the time is over."""
        waiting = select.poll()
        waiting.register(self._replies, select.POLLIN)
        end = time.monotonic() + self._limit_s
        reply = b""
        while not reply.endswith(b"\n"):
            left = end - time.monotonic()
            if left <= 0 or not waiting.poll(left * 1000):
                return b""
            part = os.read(self._replies, 256)
            if not part:
                return b""
            reply += part
        return reply

    def _end(self) -> int:
        """Kills and collects the child: the signal that had ended it, or 0.

        One that sleeps in the kernel cannot be killed, and is left to itself.
        """
        pid, self._pid = self._pid, 0
        os.close(self._requests)
        number = _collect(pid, 0.2)
        if number is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            _collect(pid, 1.0)
        os.close(self._replies)
        return number or 0


def _collect(pid: int, limit_s: float) -> int | None:
    end = time.monotonic() + limit_s
    while True:
        try:
            found, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return 0  # somebody who waits for every child was first
        if found:
            return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if time.monotonic() >= end:
            return None
        time.sleep(0.001)


def _serve(requests: int, replies: int, ask: Callable[[str], Answer | None]) -> None:
    """The child: answers one name after the other, and never returns."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) not in (requests, replies):
                with contextlib.suppress(OSError):
                    os.close(int(name))
        with open(requests, encoding="utf-8") as names:
            for line in names:
                answer = ask(line.strip())
                text = "-" if answer is None else f"{answer.ret} {answer.errname}"
                os.write(replies, f"{text}\n".encode())
        status = 0
    finally:
        os._exit(status)
