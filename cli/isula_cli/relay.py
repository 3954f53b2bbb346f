"""Standard input, output, error, window size and signals between fds 0-2 and a stream.

One loop of poll: nothing is polled at intervals, a side that does not read never keeps
the other from being read, and it ends the moment the result arrives, whatever standard
input is doing.
"""

from __future__ import annotations

__all__ = ["attach", "parameters", "pump"]

import posix
import select

from isula_cli import terminal
from isula_cli.context import write_all
from isula_edge import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import Any

    from isula_cli.progress import Progress
    from isula_edge.client import Stream
else:
    import _signal as signal

_READ_SIZE = 32768
_SEEK_CUR = 1
_PROXIED = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2")
_OUTPUT = {"o": 1, "E": 2}


def parameters(*, stdin: bool, tty: bool) -> dict[str, Any]:
    """Parameters of an attached request: ``stdin`` and, with a terminal, its ``size``."""
    size = terminal.size() if tty else None
    return {"stdin": stdin, "size": size} if size else {"stdin": stdin}


def attach(stream: Stream, *, stdin: bool, tty: bool, keys: str = "", proxy: bool = False) -> int:
    """Relay until the process ends: its exit code, 0 when the user typed the detach keys.

    With ``proxy`` the signals that would end the client go to the process.
    """
    raw = stdin and tty and posix.isatty(0)
    relay = _Relay(stream, stdin=stdin)
    relay.keys = terminal.DetachKeys(keys) if raw or keys else None
    if not raw:
        relay.catch_signals(resize=tty, proxy=proxy)
        return relay.exit_code()
    with terminal.RawMode():
        relay.catch_signals(resize=True, proxy=proxy)
        if not proxy:
            signal.signal(signal.SIGTERM, _terminated)
            signal.signal(signal.SIGHUP, _terminated)
        return relay.exit_code()


def pump(stream: Stream, shown: Progress | None = None) -> dict[str, Any]:
    """Send standard input to its end and show that, and the stream's items: the result."""
    relay = _Relay(stream, stdin=True)
    if shown is not None:
        relay.shown = shown
        relay.size = _bytes_left(0)
    relay.exit_code()
    return stream.result or {}


def _bytes_left(fd: int) -> int:
    """How much there is to read of a file; 0 for what is none."""
    try:
        return max(posix.fstat(fd).st_size - posix.lseek(fd, 0, _SEEK_CUR), 0)
    except OSError:
        return 0


def _terminated(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def _nothing(_number: int, _frame: object) -> None:
    """Handle a signal whose number arrives through the wake-up pipe."""


class _Relay:
    def __init__(self, stream: Stream, *, stdin: bool) -> None:
        self.stream = stream
        self.stdin = stdin
        self.keys: terminal.DetachKeys | None = None
        self.shown: Progress | None = None
        self.size = self.sent = 0
        self.pending = bytearray()
        self.wake = -1
        self.proxied: set[int] = set()
        self.detached = False

    def catch_signals(self, *, resize: bool, proxy: bool) -> None:
        """Have signals arrive in the loop; the process ends with the command, so they stay."""
        if proxy:
            self.proxied = {int(getattr(signal, name)) for name in _PROXIED}
        if not resize and not proxy:
            return
        self.wake, writer = posix.pipe2(posix.O_NONBLOCK | posix.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (*self.proxied, *((signal.SIGWINCH,) if resize else ())):
            signal.signal(number, _nothing)

    def exit_code(self) -> int:
        poller = select.poll()
        if self.wake >= 0:
            poller.register(self.wake, select.POLLIN)
        reading = False
        while True:
            self.show()
            if self.stream.result is not None:
                return int(self.stream.result.get("exit_code", 0))
            wanted = select.POLLIN | (select.POLLOUT if self.pending else 0)
            poller.register(self.stream, wanted)
            read = self.stdin and not self.pending
            if read and not reading:
                poller.register(0, select.POLLIN)
            elif reading and not read:
                poller.unregister(0)
            reading = read
            ready = poller.poll(self.shown.wait_ms() if self.shown is not None else -1)
            if not ready and self.shown is not None:
                self.shown.tick()
            self.react(dict(ready))
            if self.detached:
                self.stream.__exit__()
                return 0

    def show(self) -> None:
        while (frame := self.stream.take()) is not None:
            kind, value = frame
            if kind in _OUTPUT:
                write_all(_OUTPUT[kind], value)
            elif self.shown is not None:
                self.shown.item(value)

    def show_sent(self, status: str) -> None:
        if self.shown is not None:
            item = {"id": "stdin", "status": status, "current": self.sent, "total": self.size}
            self.shown.item(item)

    def react(self, ready: dict[int, int]) -> None:
        if self.wake in ready:
            self.on_signals(posix.read(self.wake, 512))
        events = ready.get(self.stream.fileno(), 0)
        if events & ~select.POLLOUT:
            self.stream.receive()
        elif self.pending:
            del self.pending[: self.stream.send_some(self.pending)]
        if 0 in ready and not self.pending:
            self.on_input()

    def on_signals(self, numbers: bytes) -> None:
        for number in numbers:
            if number == signal.SIGWINCH:
                size = terminal.size()
                if size is not None:
                    self.pending += wire.pack({"w": size})
            elif number in self.proxied:
                self.pending += wire.pack({"s": number})

    def on_input(self) -> None:
        try:
            data = posix.read(0, _READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.stdin = False
            self.pending += wire.pack({"e": True})
            self.show_sent("Sent")
            return
        if self.keys is not None:
            data, self.detached = self.keys.feed(data)
        self.sent += len(data)
        self.show_sent("Sending")
        if data:
            self.pending += wire.pack({"i": data})
