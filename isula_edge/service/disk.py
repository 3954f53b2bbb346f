"""What takes space below the graph, and what of it is of use: ``system df``.

Everything counts once: the sizes of all rows together are what ``du`` says of the graph
and of the directory for temporary files.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from isula_edge.image import partial, slots
from isula_edge.service.worker import ignored
from isula_edge.store.records import quarantined_names
from isula_edge.sys import atomic
from isula_edge.types import ChainId

if TYPE_CHECKING:
    from collections.abc import Iterable

    from isula_edge.service.engine import Engine

__all__ = ["Places", "Usage", "df", "measure", "places"]

_INGEST = "ingest-"
_CONTAINER = re.compile(r"%engines%[^%]+%([0-9a-f]{64})(?:\.[0-9]+)?$")
"""The name of a container's directory in quarantine."""


@dataclass(slots=True)
class Places:
    """Paths below the graph by what they are; ``layers`` and ``containers`` by their ids.

    ``unfinished`` are downloads and layers that are being unpacked, ``strays`` what a crash
    left and what is damaged.  ``damaged`` is all there is of containers whose record is in
    quarantine: they may run.  ``busy`` says that workers may be making some of these now.
    """

    layers: dict[str, list[str]] = field(default_factory=dict)
    containers: dict[str, list[str]] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    damaged: dict[str, list[str]] = field(default_factory=dict)
    records: list[str] = field(default_factory=list)
    downloads: str = ""
    busy: bool = False

    def abandoned(self) -> list[str]:
        """Layers that were being unpacked when their worker ended."""
        return [] if self.busy else [path for path in self.unfinished if f"/{_INGEST}" in path]

    def all(self) -> Iterable[str]:
        """Every path."""
        for group in (
            *self.layers.values(),
            *self.containers.values(),
            *self.damaged.values(),
        ):
            yield from group
        yield from (*self.unfinished, *self.strays, *self.records, self.downloads)


def places(engine: Engine) -> Places:
    """Where everything is now.

    While it is not busy nothing can appear or change its meaning before the caller awaits.
    """
    graph, home = engine.config.graph, engine.layers.driver.home
    found = Places(busy=engine.images.bringing)
    found.records = [f"{graph}/images", f"{graph}/layers"]
    found.downloads = f"{engine.images.tmpdir}/{partial.FOLDER}"
    trees = _layer_paths(engine)
    for name in _listed(home):
        path = f"{home}/{name}"
        if path in trees:
            found.layers.setdefault(trees[path], []).append(path)
        elif name.startswith(_INGEST):
            found.unfinished.append(path)
        elif name != "rw":
            found.strays.append(path)
    _add_containers(engine, found)
    for name in _listed(engine.images.tmpdir):
        if name not in (partial.FOLDER, slots.FOLDER):
            found.unfinished.append(f"{engine.images.tmpdir}/{name}")
    for folder in found.records:
        found.strays += [
            f"{folder}/{name}" for name in _listed(folder) if name.startswith(atomic.TEMP_PREFIX)
        ]
    return found


def _layer_paths(engine: Engine) -> dict[str, str]:
    """Chain ids by the paths of trees and recipes of every layer that is there or needed."""
    found = {}
    for chain in engine.store_chains() | engine.images.needed():
        found[engine.layers.tree(ChainId(chain))] = chain
        found[engine.layers.recipe(ChainId(chain))] = chain
    return found


def _add_containers(engine: Engine, found: Places) -> None:
    """Adds what containers have, and everything in quarantine."""
    graph = engine.config.graph
    known, unreadable = engine.table.known(), engine.table.unreadable()
    folders = [f"{engine.layers.driver.home}/rw"]
    folders += [f"{graph}/engines/{name}" for name in engine.runtimes]
    for folder in folders:
        for name in _listed(folder):
            path, plain = f"{folder}/{name}", name.removeprefix("dead-")
            if name in known:
                found.containers.setdefault(name, []).append(path)
            elif plain in unreadable:
                found.damaged.setdefault(plain, []).append(path)
            else:
                found.strays.append(path)
    for name in quarantined_names(f"{graph}/quarantine"):
        path, match = f"{graph}/quarantine/{name}", _CONTAINER.search(name)
        owner = match[1] if match else next((key for key in found.damaged if key in name), "")
        if owner:
            found.damaged.setdefault(owner, []).append(path)
        else:
            found.strays.append(path)


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes on disk.  ``total`` is all of the graph and of the temporary files."""

    total: int
    layers: dict[str, int]
    containers: dict[str, int]
    images: int
    unfinished: int
    in_progress: int
    strays: int

    @property
    def engine(self) -> int:
        """What is left: the engine's own files and directories."""
        counted = sum(self.layers.values()) + sum(self.containers.values())
        return self.total - counted - self.images - self.unfinished - self.strays


async def measure(engine: Engine, where: Places) -> Usage:
    """The bytes at ``where``; a worker counts them."""
    graph, tmpdir = engine.config.graph, engine.images.tmpdir
    parts = list(where.all())
    roots = [{"top": graph, "parts": parts}]
    if not tmpdir.startswith(f"{graph}/"):
        roots.append({"top": tmpdir, "parts": [path for path in parts if path.startswith(tmpdir)]})

    result = await engine.images.ask({"op": "usage", "roots": roots}, ignored)
    size: dict[str, int] = {str(path): int(count) for path, count in result["bytes"].items()}

    def of(paths: Iterable[str]) -> int:
        return sum(size.get(path, 0) for path in paths)

    partials = partial.partials(tmpdir)
    active = sum(found.size_bytes for found in partials if found.in_use)
    return Usage(
        total=sum(size.values()),
        layers={chain: of(paths) for chain, paths in where.layers.items()},
        containers={name: of(paths) for name, paths in where.containers.items()},
        images=of(where.records),
        unfinished=of((*where.unfinished, where.downloads)),
        in_progress=of((*where.unfinished, where.downloads)) if where.busy else active,
        strays=of((*where.strays, *(path for it in where.damaged.values() for path in it))),
    )


async def df(engine: Engine) -> dict[str, Any]:
    """``{"rows", "images", "containers", "total"}``; see the method ``system.df``."""
    where = places(engine)
    usage = await measure(engine, where)
    return {
        "total": usage.total,
        "rows": [
            _images_row(engine, usage),
            _containers_row(engine, usage),
            {
                "type": "Unfinished downloads",
                "total": len(where.unfinished) + len(partial.partials(engine.images.tmpdir)),
                "active": int(where.busy),
                "size": usage.unfinished,
                "reclaimable": max(0, usage.unfinished - usage.in_progress),
            },
            _row(
                "Leftovers",
                len(where.strays) + sum(map(len, where.damaged.values())),
                0,
                usage.strays,
                usage.strays,
            ),
            _row("Engine data", 1, 1, usage.engine, 0),
        ],
        "images": _image_items(engine, usage),
        "containers": [
            {**item, "size": usage.containers.get(item["id"], 0)}
            for item in engine.containers.list({"all": True})
        ],
    }


def _row(kind: str, total: int, active: int, size: int, reclaimable: int) -> dict[str, Any]:
    return {
        "type": kind,
        "total": total,
        "active": active,
        "size": size,
        "reclaimable": reclaimable,
    }


def _images_row(engine: Engine, usage: Usage) -> dict[str, Any]:
    images = engine.images
    kept = [image for image in images.store if image.pinned or images.used(image)]
    needed = images.held() | {chain for image in kept for chain in image.chain_ids}
    free = sum(size for chain, size in usage.layers.items() if chain not in needed)
    active = sum(images.used(image) for image in images.store)
    size = sum(usage.layers.values()) + usage.images
    return _row("Images", len(images.store), active, size, free)


def _containers_row(engine: Engine, usage: Usage) -> dict[str, Any]:
    running = {container.id for container in engine.table if container.running}
    free = sum(size for name, size in usage.containers.items() if name not in running)
    size = sum(usage.containers.values())
    return _row("Containers", len(engine.table), len(running), size, free)


def _image_items(engine: Engine, usage: Usage) -> list[dict[str, Any]]:
    count: dict[str, int] = {}
    for image in engine.images.store:
        for chain in set(image.chain_ids):
            count[chain] = count.get(chain, 0) + 1
    users = engine.table.uses()
    found = []
    for image, item in zip(engine.images.chosen({}), engine.images.list({}), strict=True):
        own = {chain: usage.layers.get(chain, 0) for chain in image.chain_ids}
        shared = sum(size for chain, size in own.items() if count[chain] > 1)
        found.append(
            {
                **item,
                "size": sum(own.values()),
                "shared": shared,
                "unique": sum(own.values()) - shared,
                "containers": len(users.get(image.id, [])),
            }
        )
    return found
