"""Reading and writing one record file, and directories of them."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import struct
import zlib
from typing import TYPE_CHECKING, Any

import cbor2

from isula_edge import errors
from isula_edge.store import schema
from isula_edge.sys import atomic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isula_edge.sys.reserve import Reserve

__all__ = [
    "SUFFIX",
    "RecordStore",
    "pack_record",
    "quarantine",
    "quarantined_names",
    "read_record",
    "write_record",
]

SUFFIX = ".cbor"
_HEADER = struct.Struct(">4sHII")
_MAGIC = b"ISR1"
# these say nothing about the record
_PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR)
_log = logging.getLogger(__name__)


def pack_record(kind: str, payload: dict[str, Any]) -> bytes:
    """The bytes of a record in the current layout."""
    body = cbor2.dumps(payload)
    return _HEADER.pack(_MAGIC, schema.CURRENT[kind], len(body), zlib.crc32(body)) + body


def write_record(
    path: str,
    kind: str,
    payload: dict[str, Any],
    *,
    durable: bool = True,
    reserve: Reserve | None = None,
    urgent: bool = False,
) -> None:
    """Replaces the record at ``path`` atomically; raises NoSpace.

    An ``urgent`` one replaces a record that is there, and does so on a full disk too if
    there is a ``reserve``, which every other one is fitted to.
    """
    data = pack_record(kind, payload)
    if reserve is not None and not urgent:
        reserve.fit(len(data))
    atomic.write(path, data, 0o600, durable=durable, spare=reserve if urgent else None)


def read_record(path: str, kind: str) -> dict[str, Any]:
    """The payload of the record at ``path`` in the current layout.

    Raises FileNotFoundError when there is none, DamagedRecord when its magic, length,
    checksum, CBOR or version is wrong, and NewerRecord when a newer engine wrote it.
    """
    with open(path, "rb") as file:
        data = file.read()
    try:
        magic, version, length, crc = _HEADER.unpack_from(data)
        body = data[_HEADER.size :]
        if magic != _MAGIC or len(body) != length or zlib.crc32(body) != crc:
            raise ValueError("wrong magic, length or checksum")
        payload = cbor2.loads(body)
        if not isinstance(payload, dict):
            raise ValueError("payload is no map")
    except (struct.error, ValueError, cbor2.CBORDecodeError) as error:
        raise errors.DamagedRecord(
            f"{kind} record {path} is damaged: {error}", kind=kind, ref=path
        ) from error
    return schema.migrate(kind, version, payload)


def quarantine(path: str, folder: str) -> str:
    """Moves what is damaged into ``folder`` under a name that says where it was; its new path.

    Where it cannot be moved (a full or read-only disk) it stays, and so does its path.
    """
    try:
        return _move(path, folder)
    except OSError as error:
        _log.error("cannot put %s aside: %s", path, error)
        return path


def quarantined_names(folder: str) -> list[str]:
    """The names of everything in quarantine ``folder``; they contain ids of what is damaged."""
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def _move(path: str, folder: str) -> str:
    os.makedirs(folder, 0o700, exist_ok=True)
    # a name has 255 bytes at most, and its end tells the most
    base = os.path.join(
        folder, path.strip("/").replace("/", "%").encode()[-200:].decode(errors="replace")
    )
    target, count = base, 0
    while os.path.exists(target):
        count += 1
        target = f"{base}.{count}"
    os.rename(path, target)
    with contextlib.suppress(OSError):
        atomic.fsync_dir(folder)
        atomic.fsync_dir(os.path.dirname(path))
    return target


class RecordStore:
    """The records of one kind in one directory, ``<folder>/<key>.cbor``.

    Damaged ones are moved to ``quarantine_dir`` while loading and listed in
    ``quarantined``; nothing here is fatal to the engine (case A01).  Those of a newer
    engine are left where they are; ``newer`` has their keys.  With a ``reserve`` urgent
    writes succeed on a full disk.
    """

    def __init__(
        self, folder: str, kind: str, quarantine_dir: str, reserve: Reserve | None = None
    ) -> None:
        self.folder = folder
        self.reserve = reserve
        self.kind = kind
        self.quarantine_dir = quarantine_dir
        self.quarantined: list[str] = []
        self.newer: set[str] = set()
        atomic.make_dir(folder)

    def path(self, key: str) -> str:
        """Where the record ``key`` is or would be."""
        return f"{self.folder}/{key}{SUFFIX}"

    def load(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every readable record with its key; damaged ones are quarantined.

        Removes what a crash left half-written: only while nobody else writes.
        """
        atomic.sweep(self.folder)
        for name in sorted(os.listdir(self.folder)):
            if not name.endswith(SUFFIX):
                continue
            key = name[: -len(SUFFIX)]
            payload = self.read(key)
            if payload is not None:
                self._fit(key)
                yield key, payload

    def _fit(self, key: str) -> None:
        """Lets the reserve grow to a record that an earlier engine wrote."""
        if self.reserve is not None:
            with contextlib.suppress(errors.NoSpace, OSError):
                self.reserve.fit(os.stat(self.path(key)).st_size)

    def keys(self) -> list[str]:
        """Keys of the records there are now; may be asked while others write."""
        names = sorted(os.listdir(self.folder))
        return [name[: -len(SUFFIX)] for name in names if name.endswith(SUFFIX)]

    def read(self, key: str) -> dict[str, Any] | None:
        """One record, or None when it is absent, a newer engine's or damaged.

        A damaged one is quarantined now.
        """
        path = self.path(key)
        try:
            return read_record(path, self.kind)
        except FileNotFoundError:
            return None
        except schema.NewerRecord as error:
            if key not in self.newer:
                self.newer.add(key)
                _log.warning("%s is left alone: %s", path, error)
            return None
        except (errors.DamagedRecord, OSError) as error:
            if isinstance(error, OSError) and error.errno in _PASSING:
                raise
            self.put_aside(key, str(error))
            return None

    def put_aside(self, key: str, why: str) -> str:
        """Moves the record ``key`` to quarantine: its path there."""
        moved = quarantine(self.path(key), self.quarantine_dir)
        self.quarantined.append(moved)
        _log.error("%s record %s: %s; moved to %s", self.kind, key, why, moved)
        return moved

    def write(self, key: str, payload: dict[str, Any], *, urgent: bool = False) -> None:
        """Makes the record durable; raises NoSpace, if ``urgent`` only without a reserve."""
        write_record(self.path(key), self.kind, payload, reserve=self.reserve, urgent=urgent)
        self.newer.discard(key)

    def remove(self, key: str) -> None:
        """Deletes the record durably; works on a full disk; absent is fine."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(key))
            self.newer.discard(key)
            atomic.fsync_dir(self.folder)
