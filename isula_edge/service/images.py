"""Images: pull, load, import, list, tag, remove."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.image import reference
from isula_edge.service import filters
from isula_edge.service.worker import run_worker
from isula_edge.sys import atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from isula_edge.container.table import Table
    from isula_edge.image.store import Image, ImageStore
    from isula_edge.service.config import EngineConfig
    from isula_edge.service.events import Events
    from isula_edge.snapshot.layers import LayerStore
    from isula_edge.sys.process import Reaper

__all__ = ["Images"]

_log = logging.getLogger(__name__)


class _Pull:
    """A pull in progress and who listens to it."""

    task: asyncio.Task[dict[str, Any]]

    def __init__(self) -> None:
        self.listeners: list[asyncio.Queue[dict[str, Any]]] = []
        self.last: dict[str, dict[str, Any]] = {}


class Images:
    """Everything a user can do with images."""

    def __init__(
        self,
        config: EngineConfig,
        store: ImageStore,
        layers: LayerStore,
        table: Table,
        reaper: Reaper,
        events: Events,
    ) -> None:
        self._config = config
        self.store = store
        self._layers = layers
        self._table = table
        self._reaper = reaper
        self._events = events
        self._leases: Counter[str] = Counter()
        self._layer_lock = asyncio.Lock()
        self._pulls: dict[tuple[str, str], _Pull] = {}
        self.tmpdir = config.tmpdir or f"{config.graph}/tmp"
        atomic.make_dir(self.tmpdir)

    def reconfigure(self, config: EngineConfig) -> None:
        """Takes over mirrors and insecure registries (SIGHUP)."""
        self._config = config

    # bringing images

    async def pull(self, ref: str, platform: str, progress: Any) -> dict[str, Any]:
        """Pulls an image: ``{"ref": stored name, "id": id}``.

        Two pulls of the same image are one; it is cancelled when nobody waits any more.
        """
        name = reference.parse(ref).familiar
        key = (name, platform)
        shared = self._pulls.get(key)
        if shared is None:
            shared = self._pulls[key] = _Pull()
            shared.task = asyncio.create_task(self._pull(key, ref, platform, shared))
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for item in shared.last.values():
            queue.put_nowait(item)
        shared.listeners.append(queue)
        task = shared.task
        try:
            while not task.done() or not queue.empty():
                getter = asyncio.ensure_future(queue.get())
                try:
                    waiting: set[asyncio.Future[Any]] = {getter, task}
                    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                    if getter.done():
                        await progress(getter.result())
                finally:
                    getter.cancel()
            return await task
        finally:
            shared.listeners.remove(queue)
            if not shared.listeners and not task.done():
                self._pulls.pop(key, None)
                task.cancel()
                await asyncio.wait({task})

    async def _pull(
        self, key: tuple[str, str], ref: str, platform: str, shared: _Pull
    ) -> dict[str, Any]:
        config = self._config

        async def progress(item: dict[str, Any]) -> None:
            shared.last[str(item.get("id"))] = item
            for queue in shared.listeners:
                queue.put_nowait(item)

        request = {
            "op": "pull",
            "ref": ref,
            "platform": platform,
            "mirrors": list(config.registry_mirrors),
            "insecure": list(config.insecure_registries),
            "insecure_skip_verify": config.insecure_skip_verify,
            "certs_dir": config.certs_dir,
            "max_concurrent": config.max_concurrent_downloads,
        }
        try:
            result = await self._bring(request, progress)
            self._events.image("pull", key[0])
            return result
        finally:
            if self._pulls.get(key) is shared:
                del self._pulls[key]

    async def load(
        self, path: str, tag: str, kind: str, progress: Any, data: int = -1
    ) -> dict[str, Any]:
        """Loads a docker archive or OCI layout: ``{"images": [names]}``."""
        if kind not in ("", "docker", "oci"):
            raise errors.InvalidArgument(
                f"Invalid image type: {kind}", kind="flag", ref="type", hint="docker is the default"
            )
        request = {"op": "load", "tag": tag}
        if data < 0:
            request["path"] = _readable(path)
        result = await self._bring(request, progress, data)
        for name in result["images"]:
            self._events.image("load", name)
        return result

    async def import_(self, path: str, ref: str, progress: Any, data: int = -1) -> dict[str, Any]:
        """Makes an image of a root file system's tar: ``{"id": id}``."""
        request = {"op": "import", "ref": ref}
        reference.parse_tag(ref)
        if data < 0:
            request["path"] = _readable(path)
        result = await self._bring(request, progress, data)
        self._events.image("import", result["ref"])
        return result

    async def _bring(
        self, request: dict[str, Any], progress: Any, data: int = -1
    ) -> dict[str, Any]:
        leased: list[str] = []

        async def handle(event: dict[str, Any]) -> dict[str, Any] | None:
            if "v" in event:
                await progress(event["v"])
            elif "need" in event:
                chains = [str(chain) for chain in event["need"]]
                async with self._layer_lock:
                    leased.extend(chains)
                    self.lease(chains)
                    return {"have": [chain for chain in chains if self._layers.has(chain)]}  # type: ignore[arg-type]
            elif "layer" in event:
                leased.append(str(event["layer"]))
                self.lease([str(event["layer"])])
            elif "image" in event:
                await asyncio.to_thread(self.store.put, event["image"])
            return None

        whole = {
            **request,
            "graph": self._config.graph,
            "driver": self._layers.driver.name,
            "tmpdir": self.tmpdir,
        }
        try:
            return await run_worker(self._reaper, whole, handle, data)
        finally:
            self.release(leased)
            await asyncio.shield(self.collect(leased))

    # layers

    def lease(self, chains: Iterable[str]) -> None:
        """Keeps layers from being removed until :meth:`release`."""
        self._leases.update(chains)

    def release(self, chains: Iterable[str]) -> None:
        """Gives leases back."""
        self._leases.subtract(chains)
        self._leases += Counter()

    async def collect(self, chains: Sequence[str]) -> None:
        """Removes those of ``chains`` (bottom first) that nothing needs any more."""
        async with self._layer_lock:
            needed = self.store.chains() | self._table.chains() | set(self._leases)
            for chain in dict.fromkeys(reversed(chains)):
                if chain not in needed:
                    try:
                        await asyncio.to_thread(self._layers.remove, chain)  # type: ignore[arg-type]
                    except OSError as error:
                        _log.error("cannot remove layer %s: %s", chain, error)

    # names and removal

    def tag(self, source: str, target: str) -> None:
        """Gives an image another name."""
        name = reference.parse_tag(target).familiar
        self.store.tag(source, name)
        self._events.image("tag", name)

    async def remove(self, ref: str, *, force: bool) -> dict[str, Any]:
        """Removes a name, or the image when it is the last one or ``ref`` is an id.

        Refuses before it changes anything when a container uses the image; ``force`` does
        not change that.
        """
        del force
        image = self.store.get(ref)
        name = next((item for item in image.names if item == _familiar(ref)), "")
        if name and len(image.names) > 1:
            await asyncio.to_thread(self.store.untag, image, name)
            self._events.image("remove", name)
            return {"removed": ref, "deleted": False}
        digest = next((item for item in image.digests if item in (ref, _familiar(ref))), "")
        if digest and any("@" not in item for item in image.names):
            await asyncio.to_thread(self.store.undigest, image, digest)
            self._events.image("remove", digest)
            return {"removed": ref, "deleted": False}
        users = self._table.uses().get(image.id, [])
        if users or self._busy(image):
            holder = users[0].id if users else "a container that is being created"
            raise errors.FailedPrecondition(
                f"Image used by {holder}",
                kind="image",
                ref=ref,
                hint="remove its containers first (isula ps -a)",
            )
        await asyncio.to_thread(self.store.remove, image)
        self._events.image("remove", name or image.id)
        await self.collect(image.chain_ids)
        return {"removed": ref, "deleted": True}

    def _busy(self, image: Image) -> bool:
        return bool(image.chain_ids) and self._leases[image.chain_ids[-1]] > 0

    # listing

    def list(self, wanted: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
        """Images, newest first; see ``image.list`` of the wire."""
        chosen = filters.images(list(self.store), wanted, self.store)
        chosen.sort(key=lambda image: (image.created_ns, image.id), reverse=True)
        return [
            {
                "id": image.id,
                "names": [_split(name) for name in image.names],
                "digests": image.digests,
                "created_ns": image.created_ns,
                "size": image.size,
            }
            for image in chosen
        ]


def _familiar(ref: str) -> str:
    try:
        return reference.parse(ref).familiar
    except errors.InvalidArgument:
        return ref


def _split(name: str) -> list[str]:
    repository, _, tag = name.rpartition(":")
    if "@" in name or "/" in tag or not repository:
        return [name.partition("@")[0], "<none>"]
    return [repository, tag]


def _readable(path: str) -> str:
    if not path.startswith("/"):
        raise errors.InvalidArgument(
            f"{path} is no absolute path", kind="file", ref=path, hint="give an absolute path"
        )
    try:
        found = os.stat(path)
    except OSError as error:
        raise errors.NotFound(f"{path}: {error.strerror}", kind="file", ref=path) from error
    if os.path.isdir(path) or (found.st_size == 0 and os.path.isfile(path)):
        word = "is a directory" if os.path.isdir(path) else "is empty"
        raise errors.InvalidArgument(f"{path} {word}", kind="file", ref=path)
    return path
