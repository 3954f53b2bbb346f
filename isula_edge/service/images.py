"""Images: pull, load, import, list, tag, remove."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
from collections import Counter
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.image import reference
from isula_edge.profile.platform import host_platform, runs_on
from isula_edge.service import filters
from isula_edge.service.credentials import Logins, explained
from isula_edge.service.gc import Collector
from isula_edge.service.platforms import wanted
from isula_edge.service.registries import Registries
from isula_edge.service.worker import ignored, run_worker
from isula_edge.sys import atomic
from isula_edge.sys.tasks import to_its_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence

    from isula_edge.container.table import Table
    from isula_edge.image.store import Image, ImageStore
    from isula_edge.service.config import EngineConfig
    from isula_edge.service.events import Events
    from isula_edge.snapshot.layers import LayerStore
    from isula_edge.sys.process import Reaper
    from isula_edge.types import Platform

__all__ = ["Images"]

_log = logging.getLogger(__name__)


class _Pull:
    """A pull in progress and who listens to it."""

    task: asyncio.Task[dict[str, Any]]

    def __init__(self) -> None:
        self.listeners: list[asyncio.Queue[dict[str, Any]]] = []
        self.last: dict[str, dict[str, Any]] = {}


class Images:
    """Everything a user can do with images.

    Two locks keep it consistent.  ``_changes`` is held by whoever changes a record, so that
    no change is lost; ``_layer_lock`` by whoever looks which layers there are and relies on
    it, or removes some.  Who needs both takes them in this order.
    """

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
        self._holders: Counter[str] = Counter()
        self._changes = asyncio.Lock()
        self._layer_lock = asyncio.Lock()
        self._workers = 0
        self.gc = Collector(self, config)
        self.registries = Registries(config)
        self.logins = Logins(config, reaper, events)
        self._pulls: dict[tuple[str, ...], _Pull] = {}
        self.tmpdir = config.tmpdir or f"{config.graph}/tmp"
        atomic.make_dir(self.tmpdir)
        if config.tmpdir:
            _require_private(self.tmpdir)

    def reconfigure(self, config: EngineConfig) -> None:
        """Takes over mirrors, insecure registries and watermarks (SIGHUP)."""
        self._config = config
        self.gc.reconfigure(config)
        self.registries.reconfigure(config)
        self.logins.reconfigure(config)

    # bringing images

    async def pull(
        self,
        ref: str,
        platform: str,
        progress: Any,
        auth: Mapping[str, str] | None = None,
        *,
        all_tags: bool = False,
    ) -> dict[str, Any]:
        """Pulls an image: ``{"ref": stored name, "id": id}``; with ``all_tags`` all of a name's,
        see ``image.pull`` of the wire.

        Two pulls of the same image with the same credentials are one; it is cancelled when
        nobody waits any more.  ``auth`` is as for :meth:`Logins.for_pull`.
        """
        auth = auth or {}
        name = reference.parse(ref).familiar
        every = "all tags" if all_tags else ""
        key = (name, platform, every, *(f"{part}={auth[part]}" for part in sorted(auth)))
        shared = self._pulls.get(key)
        if shared is None:
            shared = self._pulls[key] = _Pull()
            shared.task = asyncio.create_task(self._pull(key, ref, platform, auth, shared))
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
        self,
        key: tuple[str, ...],
        ref: str,
        platform: str,
        auth: Mapping[str, str],
        shared: _Pull,
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
            "all_tags": bool(key[2]),
            **self.registries.settings(),
            "max_concurrent": config.max_concurrent_downloads,
            "max_rate": config.max_download_rate,
            "rate_file": f"{config.state}/download-rate",
        }
        trouble = ""
        try:
            request["auths"], trouble = await self.logins.for_pull(request, auth)
            result = await self._bring(request, progress)
            for image in result.get("images") or [result]:
                self._events.image("pull", image["ref"])
            return result
        except errors.PermissionDenied as error:
            if not trouble:
                raise
            raise explained(error, trouble) from error
        finally:
            if self._pulls.get(key) is shared:
                del self._pulls[key]

    async def search(
        self, term: str, limit: int, wanted: Mapping[str, Sequence[str]]
    ) -> dict[str, Any]:
        """Repositories that a registry finds; see ``image.search`` of the wire."""
        host, _ = reference.split_term(term)
        settings = self.registries.settings()
        name = {**settings, "ref": f"{host}/search" if host else "search", "host_mirrors": {}}
        auths, _ = await self.logins.for_pull(name, {})
        request = {"op": "search", "term": term, "limit": limit, "filters": dict(wanted)}

        async def handle(event: dict[str, Any]) -> None:
            self.registries.learn(event)

        return await self.ask({**request, **settings, "auths": auths}, handle)

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

    async def save(
        self,
        refs: Sequence[str],
        exclude: Sequence[str],
        kind: str,
        data: int,
        platform: str = "",
    ) -> dict[str, Any]:
        """Writes an archive of images to the descriptor ``data``: ``{"size": bytes}``.

        An image that ``refs`` call by a name keeps that name.  Layers that the images
        ``exclude`` have are left out.  Of a name's images it is the one for ``platform``, ''
        for this machine's.
        """
        want = wanted(platform)
        if kind not in ("", "docker", "oci"):
            raise errors.InvalidArgument(
                f"Invalid image type: {kind}", kind="flag", ref="format", hint="docker or oci"
            )
        if not refs:
            raise errors.InvalidArgument("no image to save is named", kind="image")
        found: dict[str, tuple[Image, list[str]]] = {}
        for ref in refs:
            image = self.store.get(ref, want)
            name = _familiar(ref)
            names = found.setdefault(image.id, (image, []))[1]
            # a name with a digest is none that an archive can give
            if name in image.names and name not in names and "@" not in name:
                names.append(name)
        excluded = {chain for ref in exclude for chain in self.store.get(ref).chain_ids}
        request = {
            "op": "save",
            "images": [
                {"config": image.config, "chain_ids": image.chain_ids, "names": names}
                for image, names in found.values()
            ],
            "excluded": sorted(excluded),
            "kind": kind,
        }

        with contextlib.ExitStack() as stack:
            for image, _ in found.values():
                stack.enter_context(self.holding(image))
            result = await self.ask(request, ignored, data)
        for image, names in found.values():
            self._events.image("save", names[0] if names else image.id)
        return result

    async def _bring(
        self, request: dict[str, Any], progress: Any, data: int = -1
    ) -> dict[str, Any]:
        """What a worker brings; on a full disk unused images may go, and it is tried again."""
        try:
            result = await self._attempt(request, progress, data)
        except errors.NoSpace as error:
            if not _same_file_system(error.ref, self._config.graph):
                raise
            if not await self.gc.run(pressing=True) or data >= 0:
                raise
            result = await self._attempt(request, progress, data)
        await self.gc.run()
        return result

    async def _attempt(self, request: dict[str, Any], progress: Any, data: int) -> dict[str, Any]:
        leased: list[str] = []
        want = None
        if request["op"] == "pull":
            want = wanted(request.get("platform", "")) or host_platform()

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
                await to_its_end(self._put(event["image"], want))
            else:
                self.registries.learn(event)
            return None

        self._workers += 1
        try:
            return await self.ask(request, handle, data)
        finally:
            self._workers -= 1
            self.release(leased)
            await asyncio.shield(self.collect(leased))

    async def ask(self, request: dict[str, Any], handle: Any, data: int = -1) -> dict[str, Any]:
        """The result of a worker for ``request``, which needs no more than its own keys."""
        whole = {
            **request,
            "graph": self._config.graph,
            "driver": self._layers.driver.name,
            "tmpdir": self.tmpdir,
        }
        return await run_worker(self._reaper, whole, handle, data)

    async def _put(self, event: dict[str, Any], want: Platform | None) -> None:
        """Stores an image, pulled for ``want``; no layer of it can go meanwhile, nor afterwards."""
        async with self._changes, self._layer_lock:
            for chain in event["chain_ids"]:
                # an import's layer has no lease before it is there, and may have been
                # another's that was removed since
                if not self._layers.has(chain):
                    raise errors.Aborted(
                        f"layer {chain} was removed while the image was made",
                        kind="layer",
                        ref=chain,
                        hint="try again",
                        retryable=True,
                    )
            image = await asyncio.to_thread(self.store.put, event, want)
            self.gc.used(image.id)

    @property
    def changing(self) -> bool:
        """Whether somebody changes a record or a layer now."""
        return self._changes.locked() or self._layer_lock.locked()

    @property
    def bringing(self) -> bool:
        """Whether a worker of a pull, load or import runs now."""
        return self._workers > 0

    # layers

    def lease(self, chains: Iterable[str]) -> None:
        """Keeps layers from being removed until :meth:`release`."""
        self._leases.update(chains)

    def release(self, chains: Iterable[str]) -> None:
        """Gives leases back."""
        self._leases.subtract(chains)
        self._leases += Counter()

    def leased(self, chain: str) -> bool:
        """Whether a worker, or a container that is being made, needs a layer."""
        return self._leases[chain] > 0

    @contextlib.contextmanager
    def holding(self, image: Image | None) -> Iterator[None]:
        """While inside, ``image`` and its layers stay: a container of it is being made, say.

        Raises DataLoss naming the first layer that is missing.
        """
        if image is None:
            yield
            return
        for chain in image.chain_ids:
            if not self._layers.has(chain):  # type: ignore[arg-type]
                raise errors.DataLoss(
                    f"image {_shown(image)} lacks its layer {chain}",
                    kind="image",
                    ref=image.id,
                    hint="isula system check --repair fetches it again",
                )
        self._holders[image.id] += 1
        self.lease(image.chain_ids)
        try:
            yield
        finally:
            self.release(image.chain_ids)
            self._holders -= Counter([image.id])
            self.gc.used(image.id)

    async def collect(self, chains: Sequence[str]) -> None:
        """Removes those of ``chains`` (bottom first) that nothing needs any more."""
        # a removal whose lock is gone would take the tree of whoever brings the layer again
        await to_its_end(self._collect(chains))

    async def _collect(self, chains: Sequence[str]) -> None:
        async with self._layer_lock:
            needed = self.needed()
            for chain in dict.fromkeys(reversed(chains)):
                if chain not in needed and not self._needs_unknown:
                    try:
                        await asyncio.to_thread(self._layers.remove, chain)  # type: ignore[arg-type]
                    except OSError as error:
                        _log.error("cannot remove layer %s: %s", chain, error)
        if self.store.records.reserve is not None:
            await asyncio.to_thread(self.store.records.reserve.refill)

    @property
    def _needs_unknown(self) -> bool:
        """Whether a newer engine has left images or containers: any layer may be theirs."""
        return bool(self.store.records.newer or self._table.newer)

    @property
    def newer(self) -> bool:
        """Whether there are records that only a newer engine can read."""
        return self._needs_unknown or bool(self._layers.records.newer)

    def needed(self) -> set[str]:
        """Chain ids of layers that an image, a container or a worker needs."""
        return self.store.chains() | self.held()

    def held(self) -> set[str]:
        """Chain ids of layers that a container or a worker needs."""
        return self._table.chains() | set(self._leases)

    @contextlib.asynccontextmanager
    async def settled(self) -> AsyncIterator[None]:
        """While inside, no image, layer or name changes."""
        async with self._changes, self._layer_lock:
            yield

    # names and removal

    async def tag(self, source: str, target: str) -> None:
        """Gives an image another name."""
        name = reference.parse_tag(target).familiar
        async with self._changes:
            await asyncio.to_thread(self.store.tag, source, name)
        self._events.image("tag", name)

    async def remove(self, ref: str, *, force: bool, platform: str = "") -> dict[str, Any]:
        """Removes a name, or the image when it is the last one or ``ref`` is an id.

        Of a name that several images have, each for another platform, all of them lose it,
        or only the one for ``platform``.  Refuses before it changes anything when a container
        uses an image that would go.  With ``force`` such an image loses its names, and stays
        as long as a container may need it.
        """
        want = wanted(platform)
        gone: list[str] = []
        deleted: list[Image] = []
        try:
            async with self._changes:
                found = [] if want else self.store.candidates(ref)
                found = found or [self.store.get(ref, want)]
                steps = [(image, self._removal(image, ref, force)) for image in found]
                for image, step in steps:
                    if step == "delete":
                        await self._delete(image)
                        deleted.append(image)
                        name = _familiar(ref)
                        gone.append(name if name in image.names else image.id)
                    else:
                        gone.append(await asyncio.to_thread(self._unname, image, ref, step))
        finally:
            for name in dict.fromkeys(gone):
                self._events.image("remove", name)
            for image in deleted:
                await self.collect(image.chain_ids)
        return {"removed": ref, "deleted": bool(deleted)}

    def _removal(self, image: Image, ref: str, force: bool) -> str:
        """What removing ``ref`` means for an image; raises when a container needs it."""
        if len(image.names) > 1 and _familiar(ref) in image.names:
            return "untag"
        if _digest(image, ref) and any("@" not in item for item in image.names):
            return "undigest"
        if not self.used(image):
            return "delete"
        if not force:
            raise self._in_use(image, ref)
        return "strip"

    def _unname(self, image: Image, ref: str, step: str) -> str:
        """Takes names of an image away: what is gone."""
        name = _familiar(ref)
        if step == "untag":
            self.store.untag(image, name)
            return name
        if step == "undigest":
            self.store.undigest(image, _digest(image, ref))
            return _digest(image, ref) or ref
        gone = name if name in image.names else image.id
        self.store.strip(image)
        return gone

    async def discard(self, image: Image) -> bool:
        """Removes an image with all its names; False when it is in use or gone by now.

        And while its layers would stay, since nobody knows who needs them.
        """
        async with self._changes:
            gone = self.store.find(image.id) is not image
            if gone or self.used(image) or self._needs_unknown:
                return False
            await self._delete(image)
        self._events.image("remove", image.names[0] if image.names else image.id)
        await self.collect(image.chain_ids)
        return True

    async def _delete(self, image: Image) -> None:
        # nobody can begin to use it between the look at its users and the end of its record
        self.store.forget(image)

        async def work() -> None:
            try:
                await asyncio.to_thread(self.store.delete, image)
            except OSError:
                self.store.restore(image)
                raise
            self.gc.forget(image.id)

        await to_its_end(work())

    def used(self, image: Image) -> bool:
        """Whether a container uses ``image``, or a command holds it."""
        return image.id in self._table.uses() or self._holders[image.id] > 0

    def _in_use(self, image: Image, ref: str) -> errors.FailedPrecondition:
        users = self._table.uses().get(image.id, [])
        holder = users[0].id if users else "a command that runs now"
        return errors.FailedPrecondition(
            f"Image used by {holder}",
            kind="image",
            ref=ref,
            hint="remove its containers first (isula ps -a), or only its names with -f",
        )

    # listing

    def list(self, wanted: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
        """Images, newest first; see ``image.list`` of the wire."""
        return [
            {
                "id": image.id,
                "names": [_split(name) for name in image.names],
                "digests": image.digests,
                "created_ns": image.created_ns,
                "size": image.size,
                "platform": str(image.target or ""),
                "native": image.target is None or runs_on(image.target, host_platform()),
            }
            for image in self.chosen(wanted)
        ]

    def chosen(self, wanted: Mapping[str, Sequence[str]]) -> Sequence[Image]:
        """The images that :meth:`list` lists."""
        found = filters.images(list(self.store), wanted, self.store)
        return sorted(found, key=lambda image: (image.created_ns, image.id), reverse=True)


def _digest(image: Image, ref: str) -> str:
    """The name with a digest that ``ref`` is for an image, or ''."""
    return next((item for item in image.digests if item in (ref, _familiar(ref))), "")


def _same_file_system(path: str, graph: str) -> bool:
    """Whether ``path``, or where it would be, is on the file system of ``graph``."""
    if not path.startswith("/"):
        return True
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return os.lstat(path).st_dev == os.stat(graph).st_dev


def _require_private(folder: str) -> None:
    """Raises FailedPrecondition where somebody else may put something in ``folder``."""
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode):
        why = "is no directory"
    elif found.st_uid not in (0, os.geteuid()):
        why = "does not belong to root"
    elif found.st_mode & 0o022:
        why = "can be written by others"
    else:
        return
    raise errors.FailedPrecondition(
        f"the directory for temporary files {folder} {why}",
        kind="file",
        ref=folder,
        hint="remove it, or set ISULAD_TMPDIR to a directory that only root can write",
    )


def _shown(image: Image) -> str:
    return image.names[0] if image.names else image.id[:12]


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
