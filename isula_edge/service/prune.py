"""``system prune``: removes what nobody uses and says how much space that gave."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.container import leftovers
from isula_edge.image import partial
from isula_edge.service import disk, filters
from isula_edge.snapshot.base import remove_tree
from isula_edge.sys import atomic, syscalls

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from isula_edge.container.record import Container
    from isula_edge.image.store import Image
    from isula_edge.service.engine import Engine

__all__ = ["Chosen", "idle_strays", "prune", "remove_paths"]

_log = logging.getLogger(__name__)
_TEMPORARY_S = 3600.0


async def prune(
    engine: Engine, *, everything: bool, wanted: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Removes containers that do not run, images, unfinished downloads and leftovers.

    Images are those without a name, with ``everything`` all that no container uses.
    ``wanted`` limits containers and images: ``until`` (created before, ns since 1970),
    ``label`` and ``label!``.  Returns ``{"containers": [id], "images": [{"untagged": name} or
    {"deleted": id}], "downloads": number, "leftovers": number, "reclaimed": bytes}``.
    """
    chosen = Chosen(wanted)
    before = await disk.measure(engine, disk.places(engine))
    containers = await _containers(engine, chosen)
    removed = await _images(engine, everything=everything, chosen=chosen)
    downloads, strays = await _remove_strays(engine)
    after = await disk.measure(engine, disk.places(engine))
    return {
        "containers": containers,
        "images": removed,
        "downloads": downloads,
        "leftovers": strays,
        "reclaimed": max(0, before.total - after.total),
    }


class Chosen:
    """The filters of a prune; InvalidArgument for an unknown one or a bad value."""

    def __init__(self, wanted: Mapping[str, Sequence[str]]) -> None:
        for key in wanted:
            if key not in ("until", "label", "label!"):
                raise errors.InvalidArgument(
                    f"Unrecognised filter: {key}", kind="filter", ref=key, hint="until= and label="
                )
        points = wanted.get("until", ())
        if len(points) > 1:
            raise errors.InvalidArgument("only one until filter can be given", kind="filter")
        try:
            self._until = int(points[0]) if points else None
        except ValueError as error:
            raise errors.InvalidArgument(
                f"Unrecognised filter value for until: {points[0]}", kind="filter", ref="until"
            ) from error
        self._with = wanted.get("label", ())
        self._without = wanted.get("label!", ())

    def __call__(self, created_ns: int, labels: Mapping[str, str]) -> bool:
        """Whether something of this age and with these labels may go."""
        if self._until is not None and created_ns > self._until:
            return False
        if any(filters.has_labels([item], labels) for item in self._without):
            return False
        return filters.has_labels(self._with, labels)


async def _containers(engine: Engine, chosen: Chosen) -> list[str]:
    removed: list[str] = []
    for container in engine.table:
        labels = container.settings.labels
        if _idle(container) and chosen(container.created_ns, labels):
            try:
                await engine.containers.remove(container, force=False)
            except (errors.EngineError, OSError) as error:
                # it was started meanwhile, or is in the way of itself: the others go on
                _log.warning("prune leaves container %s: %s", container.name, error)
                continue
            removed.append(container.id)
    return removed


def _idle(container: Container) -> bool:
    return not (container.running or container.restarting or container.lock.locked())


async def _images(engine: Engine, *, everything: bool, chosen: Chosen) -> list[dict[str, str]]:
    """Removes images without a name, or all that are unused: what went, as Docker tells it."""
    removed: list[dict[str, str]] = []
    for image in engine.images.store:
        if image.pinned or (image.names and not everything):
            continue
        if not chosen(image.created_ns, image.run_config.get("Labels") or {}):
            continue
        names = [*image.names, *image.digests]
        if await _discarded(engine, image):
            removed += [{"untagged": name} for name in names]
            removed.append({"deleted": f"sha256:{image.id}"})
    return removed


async def _discarded(engine: Engine, image: Image) -> bool:
    try:
        return await engine.images.discard(image)
    except OSError as error:
        _log.warning("prune leaves image %s: %s", image.id, error)
        return False


async def _remove_strays(engine: Engine) -> tuple[int, int]:
    """Removes unfinished downloads and leftovers that nobody works on: how many of each."""
    tmpdir = engine.images.tmpdir
    downloads = len(await asyncio.to_thread(partial.partials, tmpdir))
    await asyncio.to_thread(partial.remove_partials, tmpdir)
    downloads -= len(await asyncio.to_thread(partial.partials, tmpdir))
    if not engine.images.bringing:
        needed = engine.images.needed()
        await engine.images.collect(
            [chain for chain in disk.places(engine).layers if chain not in needed]
        )
    where = disk.places(engine)
    unfinished = [] if where.busy else where.unfinished
    strays = idle_strays(engine, where)
    await remove_paths([*unfinished, *strays])
    damaged = await _remove_damaged(engine, where)
    with contextlib.suppress(OSError):
        os.rmdir(f"{engine.config.graph}/quarantine")
    return downloads + len(unfinished), len(strays) + damaged


async def _remove_damaged(engine: Engine, where: disk.Places) -> int:
    """Removes containers whose record is damaged, with all they have, unless they run."""
    count = 0
    for container_id, paths in where.damaged.items():
        if await asyncio.to_thread(leftovers.living, container_id):
            _log.warning("prune leaves container %s: its record is damaged, it runs", container_id)
            continue
        for path in paths:
            with contextlib.suppress(OSError):
                syscalls.umount(f"{path}/mounts/shm", syscalls.MNT_DETACH)
        # the record goes first: the start after a crash removes the rest
        await remove_paths([path for path in paths if "/rw/" not in path])
        try:
            await asyncio.to_thread(engine.layers.driver.remove, container_id)
        except OSError as error:
            _log.error("cannot remove what container %s has written: %s", container_id, error)
        count += len(paths)
    return count


def idle_strays(engine: Engine, where: disk.Places) -> list[str]:
    """Those strays that can go: no worker may be about to make something of them."""
    home = engine.layers.driver.home
    quiet = not (where.busy or engine.images.changing)

    def idle(path: str) -> bool:
        folder, _, name = path.rpartition("/")
        if name.startswith(atomic.TEMP_PREFIX):
            # a record that is being written
            return quiet and _old(path)
        if folder == f"{home}/rw" and leftovers.living(name.removeprefix("dead-")):
            return False
        # nobody knows what a newer engine has there
        if path.startswith(f"{home}/") and engine.images.newer:
            return False
        return not (os.path.ismount(f"{path}/merged") or (where.busy and folder == home))

    return [path for path in where.strays if idle(path)]


def _old(path: str) -> bool:
    try:
        return os.lstat(path).st_mtime < time.time() - _TEMPORARY_S
    except OSError:
        return False


async def remove_paths(paths: Sequence[str]) -> None:
    """Removes files and trees, each under another name from now on; what cannot go is logged.

    The name of a tree may be a layer's as soon as a worker runs.
    """
    for path in [_set_aside(path) for path in paths]:
        try:
            await asyncio.to_thread(_remove, path)
        except OSError as error:
            _log.error("cannot remove %s: %s", path, error)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        remove_tree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _set_aside(path: str) -> str:
    dead = f"{os.path.dirname(path)}/dead-{secrets.token_hex(8)}"
    try:
        os.rename(path, dead)
    except OSError:
        return path
    return dead
