"""A reader of ``features.toml`` that older Pythons have too (tomllib came with 3.11).

It knows the part of TOML 1.0 that this file is written in: tables with dotted names,
basic strings on one line, and arrays of such strings, also over several lines.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["parse"]

_NAME = r"[A-Za-z0-9_-]+"
_TABLE = re.compile(rf"\[({_NAME}(?:\.{_NAME})*)\]")
_KEY = re.compile(rf"({_NAME})\s*=\s*(.*)")
_STRING = re.compile(r'"((?:[^"\\]|\\["\\nt])*)"')
_ESCAPES = {'\\"': '"', "\\\\": "\\", "\\n": "\n", "\\t": "\t"}


def parse(text: str) -> dict[str, Any]:
    """The tables of ``text``; ValueError names the first line that is not understood."""
    root: dict[str, Any] = {}
    table = root
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        header = _TABLE.fullmatch(line)
        if header:
            table = root
            for name in header[1].split("."):
                table = table.setdefault(name, {})
                if not isinstance(table, dict):
                    raise ValueError(f"line {number}: {name} is a key and a table")
            continue
        pair = _KEY.fullmatch(line)
        if not pair:
            raise ValueError(f"line {number}: neither a table nor a key: {line}")
        value = pair[2]
        while value.startswith("[") and not value.endswith("]"):
            more = next(lines, None)
            if more is None:
                raise ValueError(f"line {number}: an array without an end")
            value += more[1].strip()
        table[pair[1]] = _value(value, number)
    return root


def _value(text: str, number: int) -> str | list[str]:
    if not text.startswith("["):
        whole = _STRING.fullmatch(text)
        if not whole:
            raise ValueError(f"line {number}: not a string: {text}")
        return _plain(whole[1])
    rest = _STRING.sub("", text[1:-1])
    if rest.strip(" ,"):
        raise ValueError(f"line {number}: not an array of strings: {text}")
    return [_plain(item) for item in _STRING.findall(text)]


def _plain(text: str) -> str:
    return re.sub(r'\\["\\nt]', lambda found: _ESCAPES[found[0]], text)
