"""Committed layers: records, trees and the way from one to the other."""

from __future__ import annotations

import contextlib
import fcntl
import os
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
_RECIPE = ".recipe"
"""What a layer's original tar is made again with lies beside its tree, under this name."""


def _dir_name(chain_id: str) -> str:
    return chain_id.partition(":")[2][:24]


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


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
        recipe: int = 0,
        synced: bool = False,
    ) -> None:
        """Makes the tree durable (unless it is ``synced``), places it and writes its record.

        ``recipe`` is the size of what was written to :meth:`new_recipe`, 0 without one.
        Somebody else may have committed the same layer meanwhile: then ours is dropped.
        """
        store = self._store
        if not synced:
            store.sync()
        target = f"{store.driver.home}/{_dir_name(chain_id)}"
        with _locked(store.driver.home):
            if not store.has(chain_id):
                # a tree without a record is what a crash left between rename and record
                if os.path.lexists(target):
                    remove_tree(target)
                os.rename(self.path, target)
                try:
                    if recipe:
                        os.rename(self.path + _RECIPE, target + _RECIPE)
                    atomic.fsync_dir(store.driver.home)
                    self._record(chain_id, diff_id, digest or "", compressed_size, size, recipe)
                except BaseException:
                    # on a full disk, say, where its space is needed
                    with contextlib.suppress(OSError):
                        store.records.remove(chain_id.partition(":")[2])
                        remove_tree(target)
                        _unlink(target + _RECIPE)
                    raise
                return
        self.abort()

    @contextlib.contextmanager
    def new_recipe(self) -> Iterator[int]:
        """A descriptor for the layer's recipe, an empty file; :meth:`commit` makes it durable."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self.path + _RECIPE, flags, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)

    def _record(
        self,
        chain_id: ChainId,
        diff_id: Digest,
        digest: str,
        compressed_size: int,
        size: int,
        recipe: int,
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
                "recipe": recipe,
            },
        )

    def abort(self) -> None:
        """Removes what was unpacked."""
        remove_tree(self.path)
        _unlink(self.path + _RECIPE)


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

    def tree(self, chain_id: ChainId) -> str:
        """The directory of a committed layer."""
        return f"{self.driver.home}/{_dir_name(chain_id)}"

    def recipe(self, chain_id: ChainId) -> str:
        """The file with a committed layer's recipe, if its record says that there is one."""
        return self.tree(chain_id) + _RECIPE

    def begin(self, parent: ChainId | None) -> Ingest:
        """A fresh place to unpack a layer that lies on ``parent``."""
        path = f"{self.driver.home}/{_INGEST}{os.urandom(8).hex()}"
        try:
            with atomic.space_errors(path):
                self.driver.begin(path, _dir_name(parent) if parent else None)
        except BaseException:
            with contextlib.suppress(OSError):
                remove_tree(path)
            raise
        return Ingest(self, path, parent)

    def sync(self) -> None:
        """Forces everything that was unpacked to the disk."""
        atomic.fsync_tree(self.driver.home)

    def remove(self, chain_id: ChainId) -> None:
        """Deletes record, then tree and recipe."""
        tree = self.tree(chain_id)
        dead = f"{self.driver.home}/dead-{os.urandom(8).hex()}"
        # whoever commits the same layer meanwhile must find all of it or nothing
        with _locked(self.driver.home):
            self.records.remove(chain_id.partition(":")[2])
            try:
                os.rename(tree, dead)
            except OSError:
                remove_tree(tree)
            _unlink(self.recipe(chain_id))
        remove_tree(dead)

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
        with _locked(self.driver.home):
            # a worker of the engine before this one may have committed a layer since
            late = {_dir_name(f":{key}") for key in self.records.keys()}  # noqa: SIM118
            return self._sweep({_dir_name(chain) for chain in known} | late)

    def _sweep(self, trees: set[str]) -> int:
        keep = trees | {name + _RECIPE for name in trees} | {"rw"}
        count = 0
        for name in os.listdir(self.driver.home):
            if name not in keep:
                path = f"{self.driver.home}/{name}"
                with contextlib.suppress(OSError):
                    if name.endswith(_RECIPE):
                        _unlink(path)
                    else:
                        remove_tree(path)
                    count += 1
        return count
