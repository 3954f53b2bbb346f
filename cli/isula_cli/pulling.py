"""Pulling an image: the request, what is said about it, and progress on a terminal."""

from __future__ import annotations

__all__ = ["Progress", "pull"]

import posix
import time

from isula_cli.context import write_all, write_error
from isula_cli.human import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

_REDRAW_S = 0.1


class Progress:
    """One line per layer, drawn on the terminal ``fd``."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lines: dict[str, str] = {}
        self._drawn = 0
        self._next = 0.0

    def item(self, value: dict[str, Any]) -> None:
        """Take an item of the stream; draws ten times a second at most."""
        text = f"{value['id']}: {value['status']}"
        if value.get("total") and value["status"] == "Downloading":
            text += f" {size(value['current'])}/{size(value['total'])}"
        self._lines[value["id"]] = text
        if time.monotonic() >= self._next:
            self.draw()

    def draw(self) -> None:
        """Draw every line over what was drawn before."""
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        text = "".join(f"\x1b[2K{line}\r\n" for line in self._lines.values())
        self._drawn = len(self._lines)
        self._next = time.monotonic() + _REDRAW_S
        write_all(self._fd, (up + text).encode())


def pull(ctx: Context, image: str, platform: str, *, quiet: bool, bars_on: int) -> dict[str, Any]:
    """Pull ``image``: ``{"ref", "id"}``; progress goes to fd ``bars_on`` if a terminal."""
    if quiet:
        return ctx.client.pull(image, platform=platform)
    write_error(f'Image "{image}" pulling\n')
    bars = Progress(bars_on) if posix.isatty(bars_on) else None
    result = ctx.client.pull(image, platform=platform, progress=bars.item if bars else None)
    if bars:
        bars.draw()
    write_error(f'Image "{image}" pulled\n')
    return result
