"""Durations, times and sizes as people read them, and columns of text."""

from __future__ import annotations

__all__ = ["ago", "duration", "size", "table"]

import time

from isula_cli.context import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_SPANS = (
    (_MINUTE, 1, "seconds"),
    (2 * _MINUTE, 0, "About a minute"),
    (_HOUR, _MINUTE, "minutes"),
    (2 * _HOUR, 0, "About an hour"),
    (2 * _DAY, _HOUR, "hours"),
    (14 * _DAY, _DAY, "days"),
    (90 * _DAY, 7 * _DAY, "weeks"),
    (730 * _DAY, 30 * _DAY, "months"),
)


def duration(since_ns: int, now_ns: int | None = None) -> str:
    """Time that has passed since ``since_ns``; ``-`` for never and for the future."""
    if now_ns is None:
        now_ns = time.time_ns()
    seconds = (now_ns - since_ns) // 1_000_000_000
    if since_ns <= 0 or seconds < 0:
        return "-"
    if seconds < 1:
        return "Less than a second"
    for limit, unit, word in _SPANS:
        if seconds < limit:
            count = seconds // unit if unit else 0
            if not count:
                return word
            return f"{count} {word[:-1] if count == 1 else word}"
    years = seconds // (365 * _DAY)
    return f"{years} years"


def ago(since_ns: int) -> str:
    """The same with `` ago``."""
    text = duration(since_ns)
    return text if text == "-" else text + " ago"


def size(count: int) -> str:
    """Bytes in decimal units with three digits, such as ``1.23MB``."""
    value = float(count)
    units = ("B", "kB", "MB", "GB", "TB", "PB")
    at = 0
    while value >= 999.5 and at < len(units) - 1:
        value /= 1000
        at += 1
    return f"{value:.3g}{units[at]}"


def table(rows: Iterable[Sequence[str]]) -> str:
    """Rows as lines, their columns aligned and three blanks apart; see ``context.shown``."""
    lines = [[shown(cell, "") for cell in row] for row in rows]
    widths: list[int] = []
    for row in lines:
        for at, cell in enumerate(row):
            if at == len(widths):
                widths.append(0)
            widths[at] = max(widths[at], len(cell))
    text = ""
    for row in lines:
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        text += "   ".join(padded).rstrip() + "\n"
    return text
