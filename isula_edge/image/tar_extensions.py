"""What a tar says beside its headers: pax records, and maps of files with holes."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from isula_edge import errors

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Records",
    "Sparse",
    "check_sparse",
    "damaged",
    "decimal",
    "gnu_sparse",
    "nanoseconds",
    "number",
    "parse_records",
    "pax_sparse",
    "shown",
]

Sparse = list[tuple[int, int]]
"""Offset and length of every piece of data of a file with holes."""

_BLOCK = 512
_MAX_PIECES = 1 << 16
_GNU_PIECE = struct.Struct("12s12s")
_DECIMALS = 9
_MAX_SECONDS = 1 << 33


class Records:
    """The records of one pax header, in their order."""

    __slots__ = ("has_sparse", "items")

    def __init__(self, items: list[tuple[bytes, bytes]]) -> None:
        self.items = items
        self.has_sparse = any(key.startswith(b"GNU.sparse.") for key, _ in items)

    def get(self, key: bytes) -> bytes:
        """The last value of ``key``, or nothing."""
        return next((value for name, value in reversed(self.items) if name == key), b"")


def parse_records(data: bytes) -> Records:
    """The records in a pax header: ``length key=value`` and a line feed, one after another."""
    items = []
    at = 0
    while at < len(data):
        blank = data.find(b" ", at, at + 8)
        end = at + decimal(data[at:blank]) if blank > at else 0
        equals = data.find(b"=", blank + 1, end)
        if not blank < equals < end <= len(data) or data[end - 1] != 0x0A:
            raise damaged("a pax header is malformed")
        items.append((data[blank + 1 : equals], data[equals + 1 : end - 1]))
        at = end
    return Records(items)


def number(field: bytes) -> int:
    """A number of a header: octal digits, or base 256 when the first bit is set."""
    text = field.strip(b"\0 ")
    if text.isdigit():
        try:
            return int(text, 8)
        except ValueError:
            raise damaged(f"{text!r} is no number") from None
    if not text:
        return 0
    if field[0] & 0x80:
        found = int.from_bytes(field, "big", signed=True)
        # the first bit is a mark; the sign is the second one
        return found if field[0] & 0x40 else found + (1 << (len(field) * 8 - 1))
    raise damaged(f"{text[:16]!r} is no number")


def decimal(text: bytes) -> int:
    """A number in digits, not negative."""
    if not text.isdigit() or len(text) > 18:
        raise damaged(f"{text[:20]!r} is no number")
    return int(text)


def nanoseconds(text: bytes) -> int:
    """A time of a pax record, in seconds with a fraction; far times are brought near."""
    sign = -1 if text.startswith(b"-") else 1
    whole, _, fraction = text.removeprefix(b"-").partition(b".")
    if fraction and not fraction.isdigit():
        raise damaged(f"{text[:20]!r} is no time")
    seconds = min(decimal(whole or b"0"), _MAX_SECONDS)
    part = int(fraction[:_DECIMALS].ljust(_DECIMALS, b"0")) if fraction else 0
    return sign * (seconds * 1_000_000_000 + part)


def gnu_sparse(header: bytes, extra_block: Callable[[], bytes]) -> Sparse:
    """The map in an old GNU header, which goes on in ``extra_block()`` as long as it says so."""
    pieces = _gnu_pieces(header[386:482])
    more = header[482]
    while more:
        block = extra_block()
        pieces += _gnu_pieces(block[:504])
        more = block[504]
        if len(pieces) > _MAX_PIECES:
            raise _too_many()
    return pieces


def _gnu_pieces(data: bytes) -> Sparse:
    return [
        (number(offset), number(length))
        for offset, length in _GNU_PIECE.iter_unpack(data)
        if offset[0] and length[0]
    ]


def pax_sparse(records: Records, exactly: Callable[[int], bytes]) -> tuple[Sparse, int] | None:
    """Map and size of a file with holes by pax records; version 1.0 has the map in the data.

    None when the records do not describe one.
    """
    if records.get(b"GNU.sparse.major") == b"1":
        if records.get(b"GNU.sparse.minor") not in (b"0", b""):
            raise damaged("a sparse file has an unknown format")
        return _map_in_data(exactly), decimal(records.get(b"GNU.sparse.realsize"))
    size = records.get(b"GNU.sparse.size")
    if not size:
        return None
    numbers = records.get(b"GNU.sparse.map")
    if numbers:
        values = [decimal(text) for text in numbers.split(b",")]
    else:
        keys = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
        values = [decimal(value) for key, value in records.items if key in keys]
    return _pairs(values), decimal(size)


def _map_in_data(exactly: Callable[[int], bytes]) -> Sparse:
    """Lines in whole blocks: how many pieces, then offset and length of each."""
    text = b""
    lines: list[bytes] = []
    wanted = 1
    while len(lines) < wanted:
        text += exactly(_BLOCK)
        *found, text = text.split(b"\n")
        lines += found
        if wanted == 1 and lines:
            pieces = decimal(lines[0])
            if pieces > _MAX_PIECES:
                raise _too_many()
            wanted = 1 + 2 * pieces
        # what follows the map in its last block is padding
        if len(lines) < wanted and len(text) > 20:
            raise damaged("the map of a sparse file is malformed")
    return _pairs([decimal(line) for line in lines[1:wanted]])


def _pairs(values: list[int]) -> Sparse:
    if len(values) % 2:
        raise damaged("the map of a sparse file is malformed")
    if len(values) > 2 * _MAX_PIECES:
        raise _too_many()
    return list(zip(values[::2], values[1::2], strict=True))


def check_sparse(pieces: Sparse, size: int, stored: int, name: str) -> None:
    """Raises DataLoss unless the pieces follow each other within ``size`` and fill ``stored``."""
    end = 0
    total = 0
    for offset, length in pieces:
        if offset < end or length < 0:
            raise damaged(f"the map of sparse file {name} is malformed")
        end = offset + length
        total += length
    if end > size or total != stored:
        raise damaged(f"the map of sparse file {name} does not fit its size")


def shown(name: bytes) -> str:
    """``name`` for a person: on one line, without control characters, not too long."""
    text = "".join(
        char if char.isprintable() else ascii(char)[1:-1]
        for char in name[:4096].decode("utf-8", "backslashreplace")
    )
    return text if len(text) <= 200 else f"{text[:100]}...{text[-97:]}"


def damaged(why: str) -> errors.DataLoss:
    """The error for a tar that is not whole."""
    return errors.DataLoss(f"the tar is damaged: {why}", kind="layer")


def _too_many() -> errors.ResourceExhausted:
    return errors.ResourceExhausted(
        f"a sparse file has more than {_MAX_PIECES} pieces", kind="layer"
    )
