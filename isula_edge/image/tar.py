"""A stream of tar read entry by entry, in constant memory.

Knows v7, ustar, GNU (long names, numbers in base 256, sparse files) and pax (path,
linkpath, size, uid, gid, mtime, extended attributes, sparse files 0.0, 0.1 and 1.0).
Names are bytes, as they stand in the archive: what they may mean is checked by whoever
makes files of them.  Global pax headers are passed over, as the engines that images are
made for do.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Protocol

from isula_edge import errors
from isula_edge.image import tar_extensions as extensions
from isula_edge.image.tar_extensions import number, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from isula_edge.image.tar_extensions import Records, Sparse

__all__ = [
    "BLOCK_DEVICE",
    "CHARACTER_DEVICE",
    "DIRECTORY",
    "FIFO",
    "HARD_LINK",
    "REGULAR",
    "SYMLINK",
    "Entry",
    "TarReader",
    "shown",
]

REGULAR = b"0"
HARD_LINK = b"1"
SYMLINK = b"2"
CHARACTER_DEVICE = b"3"
BLOCK_DEVICE = b"4"
DIRECTORY = b"5"
FIFO = b"6"

_BLOCK = 512
_CHUNK = 256 * 1024
_ZEROS = bytes(_BLOCK)
_MAX_EXTENSION = 1 << 20
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")
_NO_DATA = frozenset((HARD_LINK, SYMLINK, CHARACTER_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO))
_REGULAR = frozenset((REGULAR, b"\0", b"7", b"S"))
_XATTR = b"SCHILY.xattr."
# Linux's own limits of one attribute; ext4 has room for less in a whole file
_MAX_XATTR_NAME = 255
_MAX_XATTRS = 64 << 10


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Entry:
    """One file of an archive.

    ``size`` is that of the file; of a file with holes, ``sparse`` tells where its data lies.
    """

    __slots__ = (
        "device",
        "gid",
        "kind",
        "link",
        "mode",
        "mtime_ns",
        "name",
        "size",
        "sparse",
        "uid",
        "xattrs",
    )

    def __init__(self, name: bytes, kind: bytes) -> None:
        self.name = name
        self.kind = kind
        self.link = b""
        self.size = 0
        self.mode = 0
        self.uid = 0
        self.gid = 0
        self.mtime_ns = 0
        self.device = (0, 0)
        self.xattrs: dict[bytes, bytes] | None = None
        self.sparse: Sparse | None = None


class TarReader:
    """Reads ``stream``: :meth:`next`, then :meth:`part` until the entry's data ends.

    Data that is not read is passed over.  Raises InvalidArgument for what is no tar at
    all and DataLoss for a tar that is damaged or cut off.

    ``record`` is given every byte of the stream in its order, except what is read between
    :meth:`keep` and :meth:`kept`.
    """

    def __init__(
        self, stream: _Readable, record: Callable[[memoryview], object] | None = None
    ) -> None:
        self._read = stream.read
        self._record = record
        # where in the buffer begins what is not recorded yet; -1: it is not to be
        self._mark = 0
        self._buffer = b""
        self._at = 0
        self._left = 0
        self._padding = 0
        self._started = False

    def next(self) -> Entry | None:
        """The next entry, None at the end of the archive."""
        records: Records | None = None
        long_name = long_link = b""
        while True:
            self._pass_over()
            block = self._header_block()
            if block is None:
                return None
            fields = _HEADER.unpack(block)
            kind = fields[7]
            if kind == b"L":
                long_name = self._extension(fields).partition(b"\0")[0]
            elif kind == b"K":
                long_link = self._extension(fields).partition(b"\0")[0]
            elif kind in (b"x", b"X"):
                records = extensions.parse_records(self._extension(fields))
            elif kind == b"g":
                self._data_follows(number(fields[4]))
            else:
                return self._entry(block, fields, records, long_name, long_link)

    def part(self, limit: int = _CHUNK) -> memoryview:
        """Up to ``limit`` bytes of the entry's data; empty at its end."""
        if self._left == 0:
            return memoryview(b"")
        if self._at == len(self._buffer):
            self._fill()
        count = min(limit, self._left, len(self._buffer) - self._at)
        start = self._at
        self._at += count
        self._left -= count
        return memoryview(self._buffer)[start : self._at]

    def keep(self) -> None:
        """What :meth:`part` gives from here on is kept by the caller, and not recorded."""
        self._recorded()
        self._mark = -1

    def kept(self) -> None:
        """Ends what :meth:`keep` began."""
        self._mark = self._at

    def rest(self) -> None:
        """Records the stream to its end, after :meth:`next` has returned None."""
        self._at = len(self._buffer)
        while self._buffer:
            self._refill()
            self._at = len(self._buffer)

    def exactly(self, size: int) -> bytes:
        """``size`` bytes of the entry's data.  Raises DataLoss when it has fewer."""
        data = b""
        while len(data) < size:
            part = self.part(size - len(data))
            if not part:
                raise extensions.damaged("an entry is shorter than its header says")
            data += part
        return data

    def _recorded(self) -> None:
        """Records the buffer up to where reading is."""
        if self._record is not None and self._mark >= 0 and self._at > self._mark:
            self._record(memoryview(self._buffer)[self._mark : self._at])

    def _refill(self) -> None:
        """Gets the next part of the stream, the whole buffer being used up."""
        self._recorded()
        if self._mark > 0:
            self._mark = 0
        self._buffer = self._read(_CHUNK)
        self._at = 0

    def _fill(self) -> None:
        self._refill()
        if not self._buffer:
            raise extensions.damaged("it ends in the middle of an entry")

    def _data_follows(self, size: int) -> None:
        if size < 0:
            raise extensions.damaged("an entry has a negative size")
        self._left = size
        self._padding = -size % _BLOCK

    def _pass_over(self) -> None:
        """Goes to the next header."""
        at = self._at + self._left + self._padding
        while at > len(self._buffer):
            at -= len(self._buffer)
            self._at = len(self._buffer)
            self._fill()
        self._at = at
        self._left = self._padding = 0

    def _header_block(self) -> bytes | None:
        """The next header, its checksum verified; None at the end."""
        block = self._buffer[self._at : self._at + _BLOCK]
        self._at += len(block)
        if len(block) < _BLOCK:
            self._refill()
            self._at = min(_BLOCK - len(block), len(self._buffer))
            if not block and not self._buffer:
                return None
            block += self._buffer[: self._at]
            if len(block) < _BLOCK:
                if self._started:
                    raise extensions.damaged("it ends in the middle of a header")
                raise _no_tar()
        total = sum(block)
        if total == 0:
            return None
        field = block[148:156]
        try:
            wanted = number(field)
        except errors.DataLoss:
            wanted = -1
        if wanted != total - sum(field) + 256 and wanted != _signed_sum(block):
            if self._started:
                raise extensions.damaged("a header has a wrong checksum")
            raise _no_tar()
        self._started = True
        return block

    def _extension(self, fields: tuple[bytes, ...]) -> bytes:
        """The whole content of an entry that describes the next one."""
        size = number(fields[4])
        if size > _MAX_EXTENSION:
            raise extensions.damaged("an extended header has more than 1 MiB")
        self._data_follows(size)
        return self.exactly(size)

    def _entry(
        self,
        block: bytes,
        fields: tuple[bytes, ...],
        records: Records | None,
        long_name: bytes,
        long_link: bytes,
    ) -> Entry:
        kind = fields[7]
        entry = Entry(fields[0].partition(b"\0")[0], kind)
        if fields[14][0] and fields[9] == b"ustar\x0000":
            # star has times behind a shorter prefix
            prefix = fields[14][:131] if block[508:] == b"tar\0" else fields[14]
            entry.name = prefix.partition(b"\0")[0] + b"/" + entry.name
        entry.mode = number(fields[1])
        entry.uid = number(fields[2])
        entry.gid = number(fields[3])
        entry.size = number(fields[4])
        entry.mtime_ns = number(fields[5]) * 1_000_000_000
        if kind in _NO_DATA:
            entry.link = fields[8].partition(b"\0")[0]
            if kind in (CHARACTER_DEVICE, BLOCK_DEVICE):
                entry.device = (number(fields[12]), number(fields[13]))
        elif kind == b"\0" and entry.name.endswith(b"/"):
            # how v7 writes a directory
            entry.kind = DIRECTORY
        if records is not None:
            _apply(entry, records)
        if long_name:
            entry.name = long_name
        if kind not in (HARD_LINK, SYMLINK):
            # entries of directories are kept for long
            entry.link = b""
        elif long_link:
            entry.link = long_link
        self._data_follows(0 if kind in _NO_DATA else entry.size)
        if kind in _REGULAR and entry.kind != DIRECTORY:
            entry.kind = REGULAR
            self._sparse(entry, kind, block, records)
        return entry

    def _sparse(self, entry: Entry, kind: bytes, block: bytes, records: Records | None) -> None:
        """Finds out where the data of a file with holes lies, if it is one."""
        if kind == b"S":
            entry.sparse = extensions.gnu_sparse(block, self._extra_block)
            entry.size = number(block[483:495])
        elif records is not None and records.has_sparse:
            found = extensions.pax_sparse(records, self.exactly)
            if found is None:
                return
            entry.sparse, entry.size = found
            entry.name = records.get(b"GNU.sparse.name") or entry.name
        else:
            return
        extensions.check_sparse(entry.sparse, entry.size, self._left, shown(entry.name))

    def _extra_block(self) -> bytes:
        """A block between an old sparse header and its data."""
        left, padding = self._left, self._padding
        self._left = _BLOCK
        block = self.exactly(_BLOCK)
        self._left, self._padding = left, padding
        return block


def _apply(entry: Entry, records: Records) -> None:
    """Puts pax records over what the header says; an empty value leaves it."""
    room = _MAX_XATTRS
    for key, value in records.items:
        setter = _SETTERS.get(key)
        if setter is not None:
            if value:
                setter(entry, value)
        elif key.startswith(_XATTR):
            if entry.xattrs is None:
                entry.xattrs = {}
            name = key[len(_XATTR) :]
            room -= len(value)
            if len(name) > _MAX_XATTR_NAME or room < 0:
                raise _large_xattr(entry, name)
            entry.xattrs[name] = value


def _large_xattr(entry: Entry, name: bytes) -> errors.InvalidArgument:
    file = shown(entry.name)
    why = (
        f"an extended attribute's name has more than {_MAX_XATTR_NAME} bytes"
        if len(name) > _MAX_XATTR_NAME
        else f"with {shown(name)} its extended attributes have more than {_MAX_XATTRS} bytes"
    )
    return errors.InvalidArgument(f"cannot unpack {file}: {why}", kind="layer", ref=file)


def _set_name(entry: Entry, value: bytes) -> None:
    entry.name = value


def _set_link(entry: Entry, value: bytes) -> None:
    entry.link = value


def _set_size(entry: Entry, value: bytes) -> None:
    entry.size = extensions.decimal(value)


def _set_uid(entry: Entry, value: bytes) -> None:
    entry.uid = extensions.decimal(value)


def _set_gid(entry: Entry, value: bytes) -> None:
    entry.gid = extensions.decimal(value)


def _set_mtime(entry: Entry, value: bytes) -> None:
    entry.mtime_ns = extensions.nanoseconds(value)


_SETTERS: dict[bytes, Callable[[Entry, bytes], None]] = {
    b"path": _set_name,
    b"linkpath": _set_link,
    b"size": _set_size,
    b"uid": _set_uid,
    b"gid": _set_gid,
    b"mtime": _set_mtime,
}


def _signed_sum(block: bytes) -> int:
    """The checksum of writers whose char is signed."""
    high = sum(1 for byte in block[:148] + block[156:] if byte & 0x80)
    return sum(block) - sum(block[148:156]) + 256 - 256 * high


def _no_tar() -> errors.InvalidArgument:
    return errors.InvalidArgument("not a tar archive", kind="layer")
