"""The user's terminal: its size, raw mode, and the keys that leave a container."""

from __future__ import annotations

__all__ = ["DetachKeys", "RawMode", "size"]

import posix

from isula_cli.parser import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DEFAULT_KEYS = ("ctrl-a,q", "ctrl-p,ctrl-q")


def size() -> list[int] | None:
    """Rows and columns of the terminal on fd 1 or 0; None when neither is one."""
    for fd in (1, 0):
        try:
            columns, rows = posix.get_terminal_size(fd)
        except OSError:
            continue
        if rows and columns:
            return [rows, columns]
    return None


class RawMode:
    """Standard input without line editing, echo and signals while the block runs."""

    def __enter__(self) -> RawMode:
        """Change the terminal; leaving the block puts it back as it was."""
        import termios as t

        self._old: list[Any] = t.tcgetattr(0)
        new = [*self._old[:6], list(self._old[6])]
        new[0] &= ~(t.BRKINT | t.ICRNL | t.INPCK | t.ISTRIP | t.IXON | t.INLCR | t.IGNCR)
        new[1] &= ~t.OPOST
        new[2] = new[2] & ~(t.CSIZE | t.PARENB) | t.CS8
        new[3] &= ~(t.ECHO | t.ECHONL | t.ICANON | t.IEXTEN | t.ISIG)
        new[6][t.VMIN], new[6][t.VTIME] = 1, 0
        t.tcsetattr(0, t.TCSANOW, new)
        return self

    def __exit__(self, *exc_info: object) -> None:
        import termios as t

        t.tcsetattr(0, t.TCSANOW, self._old)


class DetachKeys:
    """Watches what is typed for the keys that leave the container running.

    ``text`` is such as ``ctrl-p,ctrl-q``; empty means ctrl-a q and ctrl-p ctrl-q both.
    Raises UsageError for keys that do not exist.
    """

    def __init__(self, text: str = "") -> None:
        self._sequences = [_sequence(one) for one in ([text] if text else _DEFAULT_KEYS)]
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to send on of ``data``, and whether the keys have been typed.

        The beginning of a sequence is held back until it is clear what it is.
        """
        sent = bytearray()
        for value in data:
            self._held += bytes((value,))
            while self._held and not self._begins_one():
                sent.append(self._held[0])
                self._held = self._held[1:]
            if self._held in self._sequences:
                return bytes(sent), True
        return bytes(sent), False

    def _begins_one(self) -> bool:
        return any(sequence.startswith(self._held) for sequence in self._sequences)


def _sequence(text: str) -> bytes:
    found = bytearray()
    for key in text.split(","):
        letter = key[5:] if key.startswith("ctrl-") else ""
        if len(key) == 1 and key.isascii():
            found.append(ord(key))
        elif len(letter) == 1 and (letter in "@[\\]^_" or "a" <= letter <= "z"):
            found.append(ord(letter.upper()) & 31)
        else:
            raise UsageError(f"Invalid detach keys ({text}) provided")
    return bytes(found)
