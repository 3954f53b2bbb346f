"""The sizes of a terminal, as JSON objects one after the other."""

from __future__ import annotations

import json

__all__ = ["Sizes"]

_LONGEST = 1024


class Sizes:
    """Takes bytes in any pieces; after what is no size it ignores everything."""

    def __init__(self) -> None:
        self._text = ""
        self._broken = False
        self._decoder = json.JSONDecoder()

    def feed(self, data: bytes) -> list[tuple[int, int]]:
        """The sizes that are whole now, as rows and columns."""
        if self._broken:
            return []
        self._text = (self._text + data.decode("latin-1")).lstrip()
        found = []
        while self._text:
            try:
                value, end = self._decoder.raw_decode(self._text)
            except (ValueError, RecursionError):
                self._broken = len(self._text) > _LONGEST
                break
            size = _size(value)
            if size is None:
                self._broken = True
                break
            found.append(size)
            self._text = self._text[end:].lstrip()
        if self._broken:
            self._text = ""
        return found


def _size(value: object) -> tuple[int, int] | None:
    if not isinstance(value, dict):
        return None
    rows, columns = value.get("Height", 0), value.get("Width", 0)
    for number in (rows, columns):
        if type(number) is not int or not 0 <= number <= 0xFFFF:
            return None
    return rows, columns
