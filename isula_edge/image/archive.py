"""Random access to a tar that holds images: where each file lies, without unpacking it.

Only what archives of images use is known here: regular files, hard and symbolic links,
long names (GNU and pax).  Layers themselves are read by :mod:`isula_edge.image.tar`.
"""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.image.tar_extensions import parse_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Archive", "Member", "MemberReader"]

_BLOCK = 512
_MAX_MEMBERS = 100_000
_MAX_EXTENSION = 1 << 20
_MAX_NAME = 4096
_MAX_NAMES = 32 << 20
_MAX_LINKS = 16
_REGULAR = b"0\0007"
_LINKS = b"12"


@dataclass(frozen=True, slots=True)
class Member:
    """A file: where its content begins and how long it is."""

    offset: int
    size: int


class MemberReader:
    """Reads one member from its begin to its end."""

    def __init__(self, fd: int, member: Member) -> None:
        self._fd = fd
        self._at = member.offset
        self._end = member.offset + member.size

    def read(self, size: int, /) -> bytes:
        """The next ``size`` bytes; fewer only at the end."""
        size = min(size, self._end - self._at)
        data = os.pread(self._fd, size, self._at) if size > 0 else b""
        if len(data) < size:
            raise errors.DataLoss("the archive is cut off", kind="file")
        self._at += len(data)
        return data


class Archive:
    """The tar behind ``fd``, a seekable file.  Raises InvalidArgument when it is no tar.

    ``check`` is called for every header; what it raises ends the work.
    """

    def __init__(self, fd: int, check: Callable[[], object] | None = None) -> None:
        self._fd = fd
        self._members: dict[str, Member | str] = {}
        names = 0
        for name, member in _entries(fd, check):
            self._members[name] = member
            names += len(name) + (len(member) if isinstance(member, str) else 0)
            if len(self._members) > _MAX_MEMBERS:
                raise _bad(f"more than {_MAX_MEMBERS} files")
            if names > _MAX_NAMES:
                raise _bad(f"names of more than {_MAX_NAMES >> 20} MiB")

    def find(self, path: str) -> Member | None:
        """The file ``path`` (links are followed inside the archive), or None."""
        name = _clean(path)
        for _ in range(_MAX_LINKS):
            found = self._members.get(name)
            if not isinstance(found, str):
                return found
            name = found
        return None

    def open(self, member: Member) -> MemberReader:
        """A reader for ``member``."""
        return MemberReader(self._fd, member)

    def read(self, path: str, limit: int) -> bytes | None:
        """The content of a small file or None; ResourceExhausted when it is above ``limit``."""
        member = self.find(path)
        if member is None:
            return None
        if member.size > limit:
            raise errors.ResourceExhausted(
                f"{path} in the archive is larger than {limit} bytes", kind="file", ref=path
            )
        return self.open(member).read(member.size)


def _clean(path: str) -> str:
    """``path`` without leading slashes, ``.`` and ``..``, never above the archive's root."""
    return posixpath.normpath("/" + path).lstrip("/")


def _entries(fd: int, check: Callable[[], object] | None) -> Iterator[tuple[str, Member | str]]:
    """Name and content, or for a link its target, of every member."""
    size_of_file = os.fstat(fd).st_size
    at = 0
    pending: dict[str, str] = {}
    seen = False
    while True:
        if check is not None:
            check()
        header = os.pread(fd, _BLOCK, at)
        if len(header) < _BLOCK or not header.strip(b"\0"):
            if not seen and not header:
                raise _bad("empty")
            return
        if _number(header[148:156]) != sum(header[:148]) + 8 * 32 + sum(header[156:]):
            raise _bad("bad header checksum" if seen else "no tar")
        seen = True
        at += _BLOCK
        kind = header[156:157]
        size = _number(header[124:136])
        if kind in b"LKx" and kind:
            if not 0 <= size <= _MAX_EXTENSION:
                raise _bad("oversized header")
            pending.update(_extension(kind, os.pread(fd, size, at)))
        else:
            size = _pax_size(pending, size)
            if size < 0 or at + (size if kind in _REGULAR else 0) > size_of_file:
                raise _bad("cut off")
            name = _clean(pending.get("path") or _name(header))
            if kind in _LINKS:
                target = pending.get("linkpath") or _text(header[157:257])
                base = posixpath.dirname(name) if kind == b"2" else ""
                yield name, _clean(posixpath.join("/", base, target))
                size = 0
            elif kind in _REGULAR:
                yield name, Member(at, size)
            pending = {} if kind != b"g" else pending
        at += (size + _BLOCK - 1) // _BLOCK * _BLOCK


def _name(header: bytes) -> str:
    name = _text(header[:100])
    if header[257:263] == b"ustar\0":
        prefix = _text(header[345:500])
        return f"{prefix}/{name}" if prefix else name
    return name


def _extension(kind: bytes, data: bytes) -> dict[str, str]:
    if kind in b"LK":
        records = [(b"path" if kind == b"L" else b"linkpath", data.partition(b"\0")[0])]
    else:
        try:
            records = parse_records(data).items
        except errors.DataLoss:
            raise _bad("bad pax header") from None
    found: dict[str, str] = {}
    for key, value in records:
        if key in (b"path", b"linkpath", b"size"):
            if len(value) > _MAX_NAME:
                raise _bad(f"a name of more than {_MAX_NAME} bytes")
            found[key.decode("ascii")] = value.decode("utf-8", "surrogateescape")
    return found


def _pax_size(pending: dict[str, str], size: int) -> int:
    text = pending.get("size", "")
    if not text:
        return size
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _number(data: bytes) -> int:
    if data[0] & 0x80:
        return int.from_bytes(data[1:], "big") if data[0] == 0x80 else -1
    text = data.strip(b" \0")
    try:
        return int(text, 8) if text else 0
    except ValueError:
        return -1


def _bad(why: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(f"not an archive of images: {why}", kind="file")
