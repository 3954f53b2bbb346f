"""All containers, found by id, name or a prefix of the id, and their records on disk."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.container.record import Container
from isula_edge.snapshot.base import remove_tree
from isula_edge.store.records import quarantine, quarantined_names, read_record, write_record
from isula_edge.store.schema import NewerRecord
from isula_edge.sys import atomic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isula_edge.sys.reserve import Reserve

__all__ = ["Table"]

_NAME = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_ID = re.compile(r"[0-9a-f]{1,64}")
_log = logging.getLogger(__name__)


def _folders(path: str) -> list[str]:
    """Directories in ``path``, sorted; anything else there is not ours."""
    with os.scandir(path) as entries:
        return sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))


class Table:
    """Containers of one graph.

    Names are an index in memory, rebuilt from the records, so the two never disagree.
    """

    def __init__(self, graph: str, reserve: Reserve | None = None) -> None:
        self.folder = f"{graph}/engines"
        self._reserve = reserve
        self._quarantine = f"{graph}/quarantine"
        self.quarantined: list[str] = []
        self.newer: set[str] = set()
        self._by_id: dict[str, Container] = {}
        self._names: dict[str, str] = {}
        atomic.make_dir(self.folder, 0o711)
        # iSulad's name of the directory, which scripts know
        with contextlib.suppress(OSError):
            os.symlink("lxc", f"{self.folder}/lcr")

    def __iter__(self) -> Iterator[Container]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def dir(self, container: Container) -> str:
        """The container's durable directory."""
        return f"{self.folder}/{container.runtime}/{container.id}"

    def load(self) -> None:
        """Reads every record; a damaged one is quarantined and the rest goes on (case A01)."""
        for runtime in _folders(self.folder):
            for folder in _folders(runtime):
                self._load_one(folder)

    def _load_one(self, folder: str) -> None:
        name = os.path.basename(folder)
        path = f"{folder}/container.cbor"
        if name.startswith(("dead-", atomic.TEMP_PREFIX)):
            remove_tree(folder)
            return
        try:
            atomic.sweep(folder)
            container = Container.from_record(read_record(path, "container"))
        except FileNotFoundError:
            # a crash before the record was written: nobody was told of this container
            _log.warning("removing unfinished container %s", name)
            remove_tree(folder)
            return
        except NewerRecord as error:
            self.newer.add(name)
            _log.warning("container %s is left alone: %s", name, error)
            return
        except (errors.DamagedRecord, OSError, KeyError, TypeError, ValueError) as error:
            moved = quarantine(folder, self._quarantine)
            self.quarantined.append(moved)
            _log.error("container %s is damaged: %s; moved to %s", name, error, moved)
            return
        if container.name in self._names:
            container.name = container.id
        self._by_id[container.id] = container
        self._names[container.name] = container.id

    def unreadable(self) -> str:
        """A text with the ids of all containers whose record is damaged or a newer engine's.

        They may run, and what they have written is kept.
        """
        return " ".join((*quarantined_names(self._quarantine), *sorted(self.newer)))

    def reserve(self, name: str, container_id: str) -> None:
        """Takes ``name`` for ``container_id``; AlreadyExists or InvalidArgument."""
        if not _NAME.fullmatch(name) or len(name) > 1024:
            raise errors.InvalidArgument(
                f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed.",
                kind="container",
                ref=name,
            )
        plain = name.lstrip("/")
        holder = self._names.get(plain)
        if holder is not None:
            raise errors.AlreadyExists(
                f'Conflict. The name "{plain}" is already in use by container {holder}. '
                "You have to remove (or rename) that container to be able to reuse that name.",
                kind="container",
                ref=plain,
            )
        self._names[plain] = container_id

    def release(self, name: str) -> None:
        """Gives ``name`` back; not taken is fine."""
        self._names.pop(name.lstrip("/"), None)

    def known(self) -> set[str]:
        """Ids of all containers, those that are being made too."""
        return {*self._by_id, *self._names.values(), *self.newer}

    def add(self, container: Container) -> None:
        """Makes a container, whose name is reserved, findable."""
        self._by_id[container.id] = container

    def save(self, container: Container, *, durable: bool = True, urgent: bool = False) -> None:
        """Writes the container's record; raises NoSpace.

        An ``urgent`` one replaces the record that is there on a full disk too.
        """
        path = f"{self.dir(container)}/container.cbor"
        write_record(
            path,
            "container",
            container.to_record(),
            durable=durable,
            reserve=self._reserve,
            urgent=urgent,
        )

    def forget(self, container: Container) -> None:
        """Takes the container out of memory; its directory is the caller's business."""
        self._by_id.pop(container.id, None)
        if self._names.get(container.name) == container.id:
            self._names.pop(container.name)

    def rename(self, container: Container, new_name: str) -> None:
        """Changes the name, on disk before anybody can see it."""
        old = container.name
        if not _NAME.fullmatch(new_name):
            raise errors.FailedPrecondition(
                f"Invalid container new name ({new_name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are "
                "allowed.",
                kind="container",
                ref=new_name,
            )
        self.reserve(new_name, container.id)
        container.name = new_name.lstrip("/")
        try:
            self.save(container)
        except (errors.EngineError, OSError):
            container.name = old
            self.release(new_name)
            raise
        self.release(old)

    def get(self, ref: str) -> Container:
        """By exact id, exact name, then unique prefix of the id.

        Raises NotFound, or InvalidArgument listing the matches of an ambiguous prefix.
        """
        found = self._by_id.get(ref) or self._by_id.get(self._names.get(ref.lstrip("/"), ""))
        if found is not None:
            return found
        if _ID.fullmatch(ref):
            matches = [key for key in self._by_id if key.startswith(ref)]
            if len(matches) == 1:
                return self._by_id[matches[0]]
            if matches:
                shown = ", ".join(key[:12] for key in matches[:5])
                raise errors.InvalidArgument(
                    f"container id prefix {ref} is ambiguous: {shown}", kind="container", ref=ref
                )
        if ref and not _NAME.fullmatch(ref) and not _ID.fullmatch(ref):
            raise errors.InvalidArgument(
                f"Invalid container name: {ref}", kind="container", ref=ref
            )
        raise errors.NotFound(f"No such container:{ref}", kind="container", ref=ref)

    def uses(self) -> dict[str, list[Container]]:
        """Containers by the id of their image."""
        table: dict[str, list[Container]] = {}
        for container in self._by_id.values():
            for image in dict.fromkeys(container.images):
                table.setdefault(image, []).append(container)
        return table

    def chains(self) -> set[Any]:
        """Chain ids of every layer that a container needs."""
        return {chain for container in self._by_id.values() for chain in container.layers}
