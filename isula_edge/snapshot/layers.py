"""Committed layers: records, trees and the way from one to the other."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from typing import TYPE_CHECKING, Any

from isula_edge.snapshot.base import remove_tree
from isula_edge.snapshot.choose import driver_class
from isula_edge.store.records import RecordStore
from isula_edge.sys import atomic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isula_edge.snapshot.base import Driver, Style
    from isula_edge.types import ChainId, Digest

__all__ = ["Ingest", "LayerStore"]

_INGEST = "ingest-"


def _dir_name(chain_id: str) -> str:
    return chain_id.partition(":")[2][:24]


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """One at a time of all processes that commit layers in ``folder``."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


class Ingest:
    """A layer being unpacked into ``path`` with whiteouts in ``style``."""

    def __init__(self, store: LayerStore, path: str, parent: ChainId | None) -> None:
        self._store = store
        self.path = path
        self.style: Style = store.driver.style
        self.parent = parent

    def commit(
        self,
        chain_id: ChainId,
        diff_id: Digest,
        *,
        digest: str = "",
        compressed_size: int = 0,
        size: int = 0,
    ) -> None:
        """Makes the tree durable, gives it its place and writes its record.

        Somebody else may have committed the same layer meanwhile: then ours is dropped.
        """
        store = self._store
        atomic.fsync_tree(self.path)
        target = f"{store.driver.home}/{_dir_name(chain_id)}"
        with _locked(store.driver.home):
            if not store.has(chain_id):
                # a tree without a record is what a crash left between rename and record
                if os.path.lexists(target):
                    remove_tree(target)
                os.rename(self.path, target)
                atomic.fsync_dir(store.driver.home)
                self._record(chain_id, diff_id, digest or "", compressed_size, size)
                return
        self.abort()

    def _record(
        self, chain_id: ChainId, diff_id: Digest, digest: str, compressed_size: int, size: int
    ) -> None:
        self._store.records.write(
            chain_id.partition(":")[2],
            {
                "chain_id": chain_id,
                "parent": self.parent or "",
                "diff_id": diff_id,
                "digest": digest,
                "compressed_size": compressed_size,
                "size": size,
                "dir": _dir_name(chain_id),
            },
        )

    def abort(self) -> None:
        """Removes what was unpacked."""
        remove_tree(self.path)


class LayerStore:
    """Layers of one graph.  Opened by the daemon, and by a worker that unpacks into it."""

    def __init__(self, graph: str, driver_name: str, driver: Driver | None = None) -> None:
        home = f"{graph}/storage/{driver_name}"
        self.driver: Driver = driver or driver_class(driver_name)(home, "overlay")
        self.records = RecordStore(f"{graph}/layers", "layer", f"{graph}/quarantine")

    def has(self, chain_id: ChainId) -> bool:
        """Whether the layer is committed."""
        return os.path.exists(self.records.path(chain_id.partition(":")[2]))

    def get(self, chain_id: ChainId) -> dict[str, Any] | None:
        """The layer's record (see isula_edge.store.schema), or None."""
        return self.records.read(chain_id.partition(":")[2])

    def dirs(self, chain_ids: list[ChainId]) -> list[str]:
        """Directories relative to the driver's home, topmost first, of layers given bottom-up."""
        return [_dir_name(chain) for chain in reversed(chain_ids)]

    def begin(self, parent: ChainId | None) -> Ingest:
        """A fresh place to unpack a layer that lies on ``parent``."""
        path = f"{self.driver.home}/{_INGEST}{secrets.token_hex(8)}"
        with atomic.space_errors(path):
            self.driver.begin(path, _dir_name(parent) if parent else None)
        return Ingest(self, path, parent)

    def remove(self, chain_id: ChainId) -> None:
        """Deletes record, then tree."""
        self.records.remove(chain_id.partition(":")[2])
        remove_tree(f"{self.driver.home}/{_dir_name(chain_id)}")

    def all(self) -> dict[ChainId, dict[str, Any]]:
        """Every readable layer record whose tree exists, by chain id.

        A record whose tree is gone (someone deleted it) is moved to quarantine.
        """
        found: dict[ChainId, dict[str, Any]] = {}
        for key, record in self.records.load():
            if os.path.isdir(f"{self.driver.home}/{record['dir']}"):
                found[record["chain_id"]] = record
            else:
                from isula_edge.store.records import quarantine

                moved = quarantine(self.records.path(key), self.records.quarantine_dir)
                self.records.quarantined.append(moved)
        return found

    def sweep(self, known: set[str]) -> int:
        """At start: removes interrupted ingests, dead trees and trees without a record.

        ``known`` holds the chain ids with a record.  Returns how many were removed.
        """
        keep = {_dir_name(chain) for chain in known} | {"rw"}
        count = 0
        for name in os.listdir(self.driver.home):
            if name not in keep:
                with contextlib.suppress(OSError):
                    remove_tree(f"{self.driver.home}/{name}")
                    count += 1
        return count
