"""A terminal for tests: a pty, and what would stand on its screen."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import termios

__all__ = ["Screen"]

_CONTROL = re.compile(r"\x1b\[(\d*)([AJK])|([\r\n])|([ -~]+)")


class Screen:
    """A pty of the given size; ``slave`` is the end for the program."""

    def __init__(self, rows: int = 24, columns: int = 80) -> None:
        self.master, self.slave = os.openpty()
        attributes = termios.tcgetattr(self.slave)
        attributes[1] &= ~termios.OPOST
        termios.tcsetattr(self.slave, termios.TCSANOW, attributes)
        self.data = ""
        self._lines, self._row, self._column = [""], 0, 0
        self.resize(rows, columns)

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self.master)
        if self.slave >= 0:
            os.close(self.slave)

    def resize(self, rows: int, columns: int) -> None:
        """Gives the terminal another size; what stands on it stays as it is."""
        self.read()
        self.rows, self.columns = rows or 24, columns or 80
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def read(self) -> str:
        """What was written since the last call.

        Raises AssertionError for a line that is too long, for a cursor that leaves the screen
        at its top, and for sequences that it does not know.
        """
        data = b""
        while select.select([self.master], [], [], 0)[0]:
            try:
                piece = os.read(self.master, 65536)
            except OSError:
                break
            if not piece:
                break
            data += piece
        text = data.decode()
        self.data += text
        end = 0
        for found in _CONTROL.finditer(text):
            assert found.start() == end, f"unexpected: {text[end : found.start()]!r}"
            end = found.end()
            self._take(*found.groups())
        assert end == len(text), f"unexpected: {text[end:]!r}"
        return text

    def _take(self, count: str, letter: str, control: str, text: str) -> None:
        row, line = self._row, self._lines[self._row]
        if text:
            end = self._column + len(text)
            self._lines[row] = line[: self._column].ljust(self._column) + text + line[end:]
            self._column = end
            assert end <= self.columns, f"wraps: {self._lines[row]!r}"
        elif control == "\r":
            self._column = 0
        elif control == "\n":
            self._row += 1
            self._lines += [""] * (self._row + 1 - len(self._lines))
        elif letter == "A":
            self._row -= int(count or 1)
            assert self._row >= max(len(self._lines) - self.rows, 0), "above the screen"
        elif letter == "K":
            self._lines[row] = line[: self._column]
        else:
            self._lines[row:] = [line[: self._column]]

    def lines(self) -> list[str]:
        """Everything that stands on the screen and above it, without empty lines at the end."""
        self.read()
        lines = [*self._lines]
        while lines and not lines[-1]:
            lines.pop()
        return lines
