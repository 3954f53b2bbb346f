"""Points in time of ``--since`` and ``--until``, and how events print theirs."""

from __future__ import annotations

__all__ = ["parse", "stamp"]

import re
import time
from datetime import UTC, datetime

from isula_cli.parser import UsageError

_POINT = re.compile(
    r"(\d{4}-\d\d-\d\d(?:T\d\d(?::\d\d(?::\d\d)?)?)?)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?"
)
_BEFORE = re.compile(r"(\d+)(ms|s|m|h)")
_UNITS_NS = {"ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def parse(flag: str, text: str) -> int:
    """Nanoseconds since 1970 of a time such as ``2006-01-02T15:04:05.5``.

    Local time unless a zone follows; ``10m`` is ten minutes ago, digits alone are
    seconds since 1970.  Raises UsageError for anything else.
    """
    if text.isascii() and text.isdigit():
        return int(text) * 10**9
    before = _BEFORE.fullmatch(text)
    if before:
        return time.time_ns() - int(before[1]) * _UNITS_NS[before[2]]
    found = _POINT.fullmatch(text)
    try:
        if found is None:
            raise ValueError(text)
        point = datetime.fromisoformat(found[1] + (found[3] or "" if "T" in found[1] else ""))
        seconds = int(point.timestamp())
    except (ValueError, OverflowError):
        raise UsageError(f'Failed to parse time "{text}" of flag --{flag}', 1) from None
    return seconds * 10**9 + int((found[2] or "").ljust(9, "0"))


def stamp(time_ns: int) -> str:
    """Local time as RFC 3339 with nanoseconds and the zone."""
    point = datetime.fromtimestamp(time_ns // 10**9, UTC).astimezone()
    text = point.isoformat()
    return f"{text[:19]}.{time_ns % 10**9:09}{text[19:]}"
