"""The small languages of option values: sizes, CPUs, ulimits, signals, ports of Docker's words.

Texts of refusals follow iSulad where its test-suite matches them.
"""

from __future__ import annotations

import re
import signal

from isula_edge import errors

__all__ = [
    "RLIMITS",
    "key_values",
    "parse_bool",
    "parse_cpus",
    "parse_cpuset",
    "parse_int",
    "parse_quota",
    "parse_signal",
    "parse_size",
    "parse_ulimit",
]

RLIMITS = (
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime "
    "sigpending stack"
).split()
# [0-9], since \d and isdigit() take digits of all scripts, and not without end, since int()
# refuses what has thousands of them
_SIZE = re.compile(r"([0-9]{1,99}(?:\.[0-9]{1,99})?)\s*([kmgtp]?)(i?b)?", re.IGNORECASE)
_SIGNAL = re.compile(r"([A-Z0-9]+)(?:([+-])([0-9]{1,3}))?")
_CRI_SIGNAL = re.compile(r"^(RTMIN|RTMAX)(PLUS|MINUS)(?=[0-9])")
_CPUS = re.compile(r"[0-9]{1,99}(\.[0-9]*)?|\.[0-9]+")
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
_INT64 = 2**63
_LEAST_QUOTA = 4096


def _bad(flag: str, value: str, why: str = "Invalid argument") -> errors.InvalidArgument:
    return errors.InvalidArgument(
        f'Invalid value "{value}" for flag --{flag}: {why}', kind="flag", ref=flag
    )


def parse_size(flag: str, value: str, *, unlimited: bool = False) -> int:
    """Bytes of ``64m``, ``1.5GiB`` …; -1 where ``unlimited`` allows it."""
    text = str(value).strip()
    if unlimited and text == "-1":
        return -1
    found = _SIZE.fullmatch(text)
    if found is None:
        raise _bad(flag, value)
    number, unit, _ = found.groups()
    shift = _UNITS[unit.lower()]
    whole, _, part = number.partition(".")
    size = int(whole) << shift
    if part:
        size += (int(part) << shift) // 10 ** len(part)
    if size >= _INT64:
        raise _bad(flag, value, "Numerical result out of range")
    return size


def parse_quota(value: str) -> int:
    """Bytes of a writable layer; 0 for the default, else at least a block."""
    try:
        size = parse_size("storage-opt", value)
    except errors.InvalidArgument as error:
        raise errors.InvalidArgument(
            f"Invalid quota size: '{value}'", kind="flag", ref="storage-opt"
        ) from error
    if 0 < size < _LEAST_QUOTA:
        raise errors.InvalidArgument(
            f"Illegal storage quota size {size}, {_LEAST_QUOTA} at least",
            kind="flag",
            ref="storage-opt",
        )
    return size


def parse_int(flag: str, value: str, low: int = -_INT64, high: int = _INT64 - 1) -> int:
    """A decimal integer between ``low`` and ``high``."""
    text = str(value).strip()
    if not re.fullmatch(r"[+-]?[0-9]{1,99}", text):
        raise _bad(flag, value)
    number = int(text)
    if not low <= number <= high:
        raise _bad(flag, value, "Numerical result out of range")
    return number


def parse_cpus(value: str, available: int) -> int:
    """``--cpus`` in 10⁻⁹ CPUs, between 0.01 and the machine's number."""
    text = str(value).strip()
    if not _CPUS.fullmatch(text):
        raise _bad("cpus", value)
    whole, _, part = text.partition(".")
    nano = int(whole or 0) * 10**9 + int((part + "0" * 9)[:9])
    if nano and not 10**7 <= nano <= available * 10**9:
        raise errors.InvalidArgument(
            f"Range of CPUs is from 0.01 to {available}.00, "
            f"as there are only {available} CPUs available",
            kind="flag",
            ref="cpus",
        )
    return nano


def _list(text: str) -> set[int]:
    numbers: set[int] = set()
    for part in text.split(","):
        found = _RANGE.fullmatch(part)
        if found is None:
            raise ValueError
        start, end = int(found[1]), int(found[2] or found[1])
        if end < start or end > 1 << 16:
            raise ValueError
        numbers.update(range(start, end + 1))
    return numbers


def parse_cpuset(flag: str, value: str, available: str) -> str:
    """A list like ``0-3,5``, all of it in ``available`` (a list of the same form)."""
    try:
        wanted = _list(value)
    except ValueError:
        raise errors.InvalidArgument(
            f"Checking {flag.replace('-', '.')} got invalid format: {value}.",
            kind="flag",
            ref=flag,
        ) from None
    if available and not wanted <= _list(available):
        what = "CPUs" if flag.endswith("cpus") else "memory nodes"
        raise errors.InvalidArgument(
            f"Requested {what} are not available - requested {value}, available: {available}.",
            kind="flag",
            ref=flag,
        )
    return value


def parse_bool(flag: str, value: object) -> bool:
    """A boolean as it came over the wire or as a word."""
    if isinstance(value, bool):
        return value
    text = str(value)
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False", ""):
        return False
    raise errors.InvalidArgument(
        f'Invalid boolean value "{value}" for flag --{flag}', kind="flag", ref=flag
    )


def parse_signal(text: str) -> int:
    """Number of a signal given by number or name, with or without SIG, ``RTMIN+3`` included.

    The CRI's names of those (``SIGRTMINPLUS3``, ``SIGRTMAXMINUS3``) are taken too.
    """
    word = str(text).strip().upper().removeprefix("SIG")
    word = _CRI_SIGNAL.sub(lambda found: found[1] + "+-"[found[2] == "MINUS"], word)
    if re.fullmatch("[0-9]{1,3}", word):
        number = int(word)
    else:
        found = _SIGNAL.fullmatch(word)
        base, sign, offset = found.groups() if found else ("", "", "")
        number = getattr(signal, f"SIG{base}", 0) if base else 0
        if sign:
            if base not in ("RTMIN", "RTMAX"):
                number = 0
            else:
                number = int(number) + int(offset) * (1 if sign == "+" else -1)
    if not 1 <= int(number) <= int(signal.SIGRTMAX):
        raise errors.InvalidArgument(f"Invalid signal: {text}", kind="signal", ref=str(text))
    return int(number)


def _limit(word: str, which: str) -> int:
    if word in ("-1", "unlimited"):
        return -1
    if not re.fullmatch("[0-9]{1,99}", word):
        raise errors.InvalidArgument(
            f'Invalid ulimit {which} value: "{word}"', kind="flag", ref="ulimit"
        )
    return int(word)


def parse_ulimit(text: str) -> tuple[str, int, int]:
    """``TYPE=SOFT[:HARD]`` as (type, soft, hard); -1 is unlimited."""

    def bad(why: str) -> errors.InvalidArgument:
        return errors.InvalidArgument(f'Invalid ulimit "{text}": {why}', kind="flag", ref="ulimit")

    if text.startswith("=") or text.endswith("="):
        raise bad("delimiter '=' can't be the first or the last character")
    name, equals, value = text.partition("=")
    if not equals or "=" in value:
        raise bad("Invalid ulimit argument")
    if value.startswith(":") or value.endswith(":"):
        raise bad("delimiter ':' can't be the first or the last character")
    parts = value.split(":")
    if len(parts) > 2:
        raise bad("Too many limit value arguments")
    if name not in RLIMITS:
        raise bad("Invalid ulimit type")
    soft = _limit(parts[0], "soft" if len(parts) == 2 else "hard")
    hard = _limit(parts[-1], "hard")
    if hard != -1 and (soft == -1 or soft > hard):
        raise bad("Ulimit soft limit must be less than or equal to hard limit")
    return name, soft, hard


def key_values(flag: str, items: list[str]) -> dict[str, str]:
    """``K[=V]`` items as a map, later ones winning."""
    table = {}
    for item in items:
        key, _, value = item.partition("=")
        if not key:
            raise errors.InvalidArgument(
                f"Invalid {flag} '{item}': empty name", kind="flag", ref=flag
            )
        table[key] = value
    return table
