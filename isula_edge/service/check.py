"""``system check``: whether everything that is stored is whole, and its repair.

A layer is compared with its diff_id: its original tar is made again of its tree.  What is
bad is fetched again by its digest; nothing that a running container uses is touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.service import disk, prune
from isula_edge.service.worker import ignored
from isula_edge.snapshot.base import remove_tree
from isula_edge.store.records import (
    SUFFIX,
    quarantine,
    quarantined_names,
    read_record,
    write_record,
)
from isula_edge.sys import atomic
from isula_edge.types import ChainId

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from isula_edge.image.store import Image
    from isula_edge.service.engine import Engine

    Progress = Callable[[dict[str, Any]], Awaitable[None]]

__all__ = ["Checkup", "Marker", "check_after_crash"]

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Problem:
    """What is wrong with one object; ``names`` say whose it is."""

    kind: str
    ref: str
    names: list[str]
    problem: str
    repaired: str = ""

    def to_wire(self) -> dict[str, Any]:
        """As the client gets it."""
        return {
            "kind": self.kind,
            "ref": self.ref,
            "names": self.names,
            "problem": self.problem,
            "repaired": self.repaired,
        }


class Checkup:
    """One check of everything; ``fetch`` lets a repair pull bad layers again."""

    def __init__(self, engine: Engine, *, quick: bool, repair: bool, fetch: bool = True) -> None:
        self._engine = engine
        self._quick = quick
        self._repair = repair
        self._fetch = fetch
        self.problems: list[Problem] = []
        self.unverified: list[str] = []

    async def run(self, progress: Progress) -> dict[str, Any]:
        """The result of the method ``system.check``."""
        engine = self._engine
        chains = sorted(engine.store_chains())
        await self._records()
        await self._layers(chains, progress)
        await self._strays()
        return {
            "problems": [problem.to_wire() for problem in self.problems],
            "unverified": self.unverified,
            "quarantined": quarantined_names(f"{engine.config.graph}/quarantine"),
            "images": len(engine.images.store),
            "layers": len(chains),
            "containers": len(engine.table),
        }

    def _found(self, kind: str, ref: str, names: Sequence[str], text: str) -> Problem:
        problem = Problem(kind, ref, list(names), text)
        self.problems.append(problem)
        return problem

    # records

    async def _records(self) -> None:
        """Every record can be read; a repair writes what is in memory again."""
        engine = self._engine
        path = f"{engine.config.graph}/engine{SUFFIX}"
        driver = {"driver": engine.layers.driver.name}
        await self._record("engine", "", [], path, lambda: write_record(path, "engine", driver))
        store = engine.images.store
        for image in store:
            async with engine.images.settled():
                if store.find(image.id) is image:
                    write = partial(store.write, image)
                    path = store.records.path(image.id)
                    await self._record("image", image.id, image.names, path, write)
        for container in engine.table:
            async with container.lock:
                if not container.removing:
                    write = partial(engine.table.save, container)
                    path = f"{engine.table.dir(container)}/container{SUFFIX}"
                    await self._record("container", container.id, [container.name], path, write)
            if container.image_id and store.find(container.image_id) is None:
                text = f"its image {container.image} ({container.image_id[:12]}) is not there"
                self._found("container", container.id, [container.name], text)

    async def _record(
        self, kind: str, ref: str, names: Sequence[str], path: str, write: Callable[[], None]
    ) -> None:
        try:
            await asyncio.to_thread(read_record, path, kind)
            return
        except FileNotFoundError:
            problem = self._found(kind, ref, names, f"its record {path} is missing")
        except (errors.DamagedRecord, OSError) as error:
            problem = self._found(kind, ref, names, str(error))
        if self._repair:
            try:
                await asyncio.to_thread(write)
                problem.repaired = "written again"
            except (errors.EngineError, OSError) as error:
                problem.problem += f"; it cannot be written again: {error}"

    # layers

    async def _layers(self, chains: list[str], progress: Progress) -> None:
        engine = self._engine

        async def handle(event: dict[str, Any]) -> None:
            if "v" in event:
                await progress(event["v"])

        # nothing of it is removed while it is read
        before = engine.images.needed()
        engine.images.lease(chains)
        try:
            request = {"op": "check", "layers": chains, "quick": self._quick}
            result = await engine.images.ask(request, handle)
        finally:
            engine.images.release(chains)
            collected = [chain for chain in chains if chain in before]
            await asyncio.shield(engine.images.collect(collected))
        bad = {str(chain): str(text) for chain, text in result["bad"].items()}
        self.unverified = [str(chain) for chain in result["unverified"]]
        needed = engine.images.needed()

        def report(kind: str, texts: dict[str, str]) -> list[Problem]:
            return [
                self._found(kind, str(chain), self._users(chain), str(text))
                for chain, text in texts.items()
                if chain in needed
            ]

        found = report("layer", self._with_children(bad))
        report("layer", {chain: f"not checked: {why}" for chain, why in result["unread"].items()})
        recipes = report("recipe", result["recipes"])
        if self._fetch:
            found += recipes
        if found and self._repair:
            await self._replace(found)

    def _with_children(self, bad: dict[str, str]) -> dict[str, str]:
        """Where trees are merged, those on a bad one have its files."""
        if self._engine.layers.driver.style != "merge":
            return bad
        found = dict(bad)
        for image in self._engine.images.store:
            below = ""
            for chain in image.chain_ids:
                if below and chain not in found:
                    found[chain] = f"it was made on layer {below}, which is bad"
                if chain in found:
                    below = below or chain
        return found

    def _users(self, chain: str) -> list[str]:
        return [_name(image) for image in self._images_of(chain)]

    def _images_of(self, chain: str) -> list[Image]:
        return [image for image in self._engine.images.store if chain in image.chain_ids]

    def _running_on(self, chain: str) -> str:
        for container in self._engine.table:
            if container.running and chain in container.layers:
                return container.name
        return ""

    async def _replace(self, found: list[Problem]) -> None:
        """Puts bad layers aside and fetches the images that have them again."""
        aside: list[Problem] = []
        moved: dict[str, list[tuple[str, str]]] = {}
        async with self._engine.images.settled():
            for problem in found:
                holder = self._running_on(problem.ref)
                if holder:
                    problem.problem += f"; container {holder} runs on it: stop it, then repair"
                elif self._engine.images.leased(problem.ref):
                    problem.problem += "; it is in use now: try again"
                else:
                    chain = ChainId(problem.ref)
                    moved[chain] = await asyncio.to_thread(self._put_aside, chain)
                    if self._engine.layers.has(chain):
                        problem.problem += "; it cannot be put aside, see the log of isulad"
                    else:
                        aside.append(problem)
        if not self._fetch:
            return
        failures: dict[str, str] = {}
        for image in {
            image.id: image for it in aside for image in self._images_of(it.ref)
        }.values():
            failures[image.id] = await self._pull(image)
        for problem in aside:
            if self._engine.layers.has(ChainId(problem.ref)):
                problem.repaired = "fetched again"
                continue
            reasons = [failures.get(image.id, "") for image in self._images_of(problem.ref)]
            why = next(filter(None, reasons), "no image has it")
            if problem.kind == "recipe" and await self._put_back(problem.ref, moved[problem.ref]):
                problem.problem += f"; not fetched again: {why}"
            else:
                problem.problem += f"; put aside, and not fetched again: {why}"

    def _put_aside(self, chain: ChainId) -> list[tuple[str, str]]:
        """Moves all there is of a layer to quarantine: from where to where."""
        layers = self._engine.layers
        folder, key = layers.records.quarantine_dir, chain.partition(":")[2]
        moved = []
        record = layers.records.path(key)
        if os.path.exists(record):
            moved.append((record, layers.records.put_aside(key, "its layer is bad")))
        if not os.path.exists(record):
            for path in (layers.tree(chain), layers.recipe(chain)):
                if os.path.lexists(path):
                    moved.append((path, quarantine(path, folder)))
        return moved

    async def _put_back(self, chain: str, moved: list[tuple[str, str]]) -> bool:
        """Undoes :meth:`_put_aside`, the record last; whether the layer is there again."""
        async with self._engine.images.settled():
            if not self._engine.layers.has(ChainId(chain)):
                try:
                    await asyncio.to_thread(_move_back, moved)
                except OSError as error:
                    _log.error("layer %s stays in quarantine: %s", chain, error)
            return self._engine.layers.has(ChainId(chain))

    async def _pull(self, image: Image) -> str:
        """Fetches an image by its digest: why that failed, or ''."""
        platform = "/".join(filter(None, (*image.platform, str(image.document.get("variant", "")))))

        why = "it has no digest of a registry"
        for ref in image.digests:
            try:
                result = await self._engine.images.pull(ref, platform, ignored)
            except (errors.EngineError, OSError) as error:
                why = str(error)
                continue
            if result["id"] == image.id:
                return ""
            why = f"{ref} is another image now"
        return why

    # what belongs to nothing

    async def _strays(self) -> None:
        engine = self._engine
        where = disk.places(engine)
        aside = f"{engine.config.graph}/quarantine/"
        paths = [
            path
            for path in (*prune.idle_strays(engine, where), *where.abandoned())
            if not path.startswith(aside)
        ]
        if not self._fetch:
            # a crash may be why nobody knows whose it is
            writable = f"{engine.layers.driver.home}/rw/"
            paths = [path for path in paths if not path.startswith(writable)]
        found = [self._found("stray", path, [], "it belongs to nothing") for path in paths]
        if self._repair:
            await prune.remove_paths(paths)
            for problem in found:
                if not os.path.lexists(problem.ref):
                    problem.repaired = "removed"


def _move_back(moved: list[tuple[str, str]]) -> None:
    for path, aside in reversed(moved):
        if path != aside:
            remove_tree(path)
            os.rename(aside, path)
            atomic.fsync_dir(os.path.dirname(path))


def _name(image: Image) -> str:
    return image.names[0] if image.names else image.id[:12]


class Marker:
    """``<graph>/NEED_CHECK``: there while the engine runs, and after it ended uncleanly."""

    def __init__(self, graph: str) -> None:
        self._path = f"{graph}/NEED_CHECK"
        self._wanted = False

    def begin(self) -> bool:
        """Sets it; whether it was there, and stays until :meth:`checked`."""
        if os.path.exists(self._path):
            self._wanted = True
            return True
        with contextlib.suppress(errors.NoSpace):
            atomic.write(self._path, b"")
        return False

    def checked(self) -> None:
        """Everything was checked."""
        self._wanted = False

    def end(self) -> None:
        """Takes it away, unless a check was wanted and did not end; not there is fine."""
        if self._wanted:
            return
        with contextlib.suppress(OSError):
            os.unlink(self._path)
            atomic.fsync_dir(os.path.dirname(self._path))


async def check_after_crash(engine: Engine) -> None:
    """Checks everything, puts bad layers aside and warns of them (``image-layer-check``)."""
    _log.info("the engine ended uncleanly: layers are checked")
    checkup = Checkup(engine, quick=False, repair=True, fetch=False)
    await checkup.run(ignored)
    for problem in checkup.problems:
        if not problem.repaired:
            names = f" of {', '.join(problem.names)}" if problem.names else ""
            engine.warn(f"{problem.kind} {problem.ref}{names}: {problem.problem}")
    engine.marker.checked()
    _log.info("layers are checked")
