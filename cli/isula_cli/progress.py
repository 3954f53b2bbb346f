"""How far the layers of a request are: bars on a terminal, a line per change elsewhere.

Nothing is changed on the terminal that would have to be put back: the cursor waits on the
line below the bars, and a client that ends at any moment leaves it there.
"""

from __future__ import annotations

__all__ = ["Bars", "Lines", "Progress", "follow", "show"]

import posix
import time

from isula_cli.context import write_all
from isula_cli.human import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from isula_edge.client import Stream

_REDRAW_S = 0.1
_WINDOW_S = 3.0
_SHORTEST_BAR, _LONGEST_BAR = 10, 50
_WORD = len("Downloading")
_FINISHED = ("Done", "Exists", "Sent")
_NO_SIZE = (80, 24)


class _Layer:
    """The latest of one layer, how much was ``fetched``, and how fast that comes."""

    def __init__(self, name: str) -> None:
        self.name = _printable(name)
        self.status = ""
        self.current = self.total = self.fetched = 0
        self._comes = False
        self._marks: list[tuple[float, int]] = []

    def take(self, item: dict[str, Any], now: float) -> bool:
        """Take an item: whether the status has changed."""
        before, had = self.status, self.current
        self.status = _printable(str(item["status"]))
        self.current, self.total = int(item.get("current", 0)), int(item.get("total", 0))
        if self._comes:
            # what is there at first is of an earlier try, or came for somebody else
            self.fetched += max(self.current - had, 0)
        self._comes = self._comes or self.status == "Downloading"
        if self.status != before:
            self._marks = [(now, self.current)] * 2
        elif now - self._marks[1][0] >= _WINDOW_S:
            self._marks = [self._marks[1], (now, self.current)]
        return self.status != before

    def rate(self, now: float) -> float:
        """Bytes a second of the last three to six seconds; 0 while it is not known."""
        since, before = self._marks[0]
        return (self.current - before) / (now - since) if now - since >= 1 else 0.0

    @property
    def rank(self) -> int:
        """Which layers are shown first when there is no room for all."""
        if self.status in _FINISHED:
            return 2
        return 1 if self.status == "Waiting" else 0


class Progress:
    """Takes the items of a stream; a context manager that ends with everything shown."""

    def __init__(self, fd: int, now: Callable[[], float] = time.monotonic) -> None:
        self._fd = fd
        self._now = now
        self._layers: dict[str, _Layer] = {}

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc_info: object) -> None:
        return

    def item(self, value: dict[str, Any]) -> None:
        """Take an item: a map with ``id``, ``status``, ``current`` and ``total``."""
        layer = self._layers.get(value["id"])
        if layer is None:
            layer = self._layers[value["id"]] = _Layer(str(value["id"]))
        self._changed(layer, layer.take(value, self._now()))

    def wait_ms(self) -> int:
        """For how long nothing has to be done, in milliseconds; -1 for ever."""
        return -1

    def tick(self) -> None:
        """Do what has to be done when :meth:`wait_ms` has passed."""

    def summary(self) -> None:
        """Say how much was fetched, and how much had been there already."""
        layers = [layer for layer in self._layers.values() if layer.total or layer.current]
        if not layers:
            return
        total = sum(max(layer.total, layer.current) for layer in layers)
        fetched = sum(layer.fetched for layer in layers)
        count = f"{len(layers)} layer{'s' if len(layers) > 1 else ''}"
        self._write(f"{count}, {size(total)}: {size(fetched)} fetched, ".encode())
        self._write(f"{size(max(total - fetched, 0))} already there{self._end}".encode())

    _end = "\n"

    def _changed(self, layer: _Layer, status: bool) -> None:
        raise NotImplementedError

    def _write(self, data: bytes) -> None:
        """Write, unless the reader has gone: that is no reason to stop the request."""
        if self._fd >= 0:
            try:
                write_all(self._fd, data)
            except OSError:
                self._fd = -1


class Lines(Progress):
    """One plain line whenever the status of a layer changes."""

    def _changed(self, layer: _Layer, status: bool) -> None:
        if status:
            self._write(f"{layer.name}: {layer.status}\n".encode())


class Bars(Progress):
    """One line for each layer on the terminal, drawn anew ten times a second at most.

    The size of the terminal is asked for each time.  When it has fewer lines than there are
    layers, those that something happens to are shown, and how many others there are.
    """

    _end = "\r\n"

    def __init__(self, fd: int, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__(fd, now)
        self._drawn = 0
        self._next = 0.0
        self._stale = False

    def __exit__(self, *exc_info: object) -> None:
        self.draw()

    def _changed(self, layer: _Layer, status: bool) -> None:
        self._stale = True
        self.tick()

    def wait_ms(self) -> int:
        """For how long nothing has to be drawn."""
        if not self._stale:
            return -1
        return max(int((self._next - self._now()) * 1000) + 1, 0)

    def tick(self) -> None:
        """Draw, if something has changed and it is time."""
        if self._stale and self._now() >= self._next:
            self.draw()

    def summary(self) -> None:
        """Say it below the bars, which stay as they are."""
        self.draw()
        super().summary()
        self._layers.clear()
        self._drawn = 0

    def draw(self) -> None:
        """Draw every line over what was drawn before."""
        columns, rows = _size(self._fd)
        lines = self._lines(rows - 1, columns - 1)
        up = min(self._drawn, rows - 1)
        text = "\r" + (f"\x1b[{up}A" if up else "")
        text += "".join(f"{line}\x1b[K\r\n" for line in lines)
        if self._layers:
            # also what the terminal shows of the keys for an interrupt
            self._write(f"{text}\x1b[J".encode())
        self._drawn = len(lines)
        self._next = self._now() + _REDRAW_S
        self._stale = False

    def _lines(self, room: int, width: int) -> list[str]:
        """What to draw: at most ``room`` lines of at most ``width`` characters."""
        layers = list(self._layers.values())
        if room < 1:
            return []
        shown, rest = _chosen(layers, room)
        now = self._now()
        lines = [_line(layer, width, now) for layer in shown]
        if rest:
            lines.append(_others(rest, width))
        return lines


def show(fd: int) -> Progress:
    """Bars on ``fd``, or else on standard error, if that is a terminal; else lines there.

    Standard output gets nothing unless it is a terminal: scripts read it.  Terminals that
    cannot move the cursor (``TERM=dumb``) and users who want it plain (``NO_COLOR``) get
    lines too.
    """
    if posix.environ.get(b"TERM", b"dumb") != b"dumb" and not posix.environ.get(b"NO_COLOR"):
        for place in (fd, 2):
            if posix.isatty(place):
                return Bars(place)
    return Lines(2)


def follow(stream: Stream, shown: Progress) -> dict[str, Any]:
    """Show the items of ``stream`` until it ends: its result."""
    import select

    poller = select.poll()
    poller.register(stream, select.POLLIN)
    while True:
        while (frame := stream.take()) is not None:
            if frame[0] == "v":
                shown.item(frame[1])
        if stream.result is not None:
            return stream.result
        if poller.poll(shown.wait_ms()):
            stream.receive()
        else:
            shown.tick()


def _printable(text: str) -> str:
    return "".join(char if " " <= char <= "~" else "?" for char in text)


def _size(fd: int) -> tuple[int, int]:
    """Columns and rows of a terminal; one that does not know is an ordinary one."""
    try:
        columns, rows = posix.get_terminal_size(fd)
    except OSError:
        return _NO_SIZE
    return columns or _NO_SIZE[0], rows or _NO_SIZE[1]


def _chosen(layers: list[_Layer], room: int) -> tuple[list[_Layer], list[_Layer]]:
    """The layers that get a line, in their order, and the others."""
    if len(layers) <= room:
        return layers, []
    order = range(len(layers))
    first = sorted(order, key=lambda at: (rank := layers[at].rank, -at if rank == 2 else at))
    kept = set(first[: room - 1])
    return [layers[at] for at in sorted(kept)], [layers[at] for at in order if at not in kept]


def _others(layers: Iterable[_Layer], width: int) -> str:
    counts: dict[str, int] = {}
    for layer in layers:
        counts[layer.status] = counts.get(layer.status, 0) + 1
    listed = ", ".join(f"{count} {status}" for status, count in counts.items())
    return f"{sum(counts.values())} more: {listed}"[:width]


def _line(layer: _Layer, width: int, now: float) -> str:
    """A layer in one line; what there is no room for is left out, the speed first."""
    if not 0 <= layer.current < layer.total or layer.rank:
        known = layer.total > 0 or layer.current <= 0 or layer.rank
        text = f"{layer.name}: {layer.status}" + ("" if known else f" {size(layer.current)}")
        return text[:width]
    head = f"{layer.name}: {layer.status:<{_WORD}} "
    numbers = f" {size(layer.current):>6}/{size(layer.total)}"
    rate = layer.rate(now)
    speed = f" {size(int(rate))}/s" if rate >= 1 else ""
    if speed:
        speed += f" {_left((layer.total - layer.current) / rate)}"
    room = width - len(head) - len(numbers) - 2
    if room - len(speed) < _SHORTEST_BAR:
        speed = ""
    length = min(room - len(speed), _LONGEST_BAR)
    if length < _SHORTEST_BAR:
        return f"{layer.name}: {layer.status}{numbers}"[:width]
    filled = length * layer.current // layer.total
    arrow = "=" * max(filled - 1, 0) + ">" * min(filled, 1)
    return f"{head}[{arrow:<{length}}]{numbers}{speed}"


def _left(seconds: float) -> str:
    whole = int(seconds) + 1
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"
