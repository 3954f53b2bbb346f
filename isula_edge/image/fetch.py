"""Several layers on their way at once: a few download, one unpacks, in order.

A download may run at most ``max_concurrent`` layers ahead of the unpacking; that also
bounds the temporary files: with what is compressed never larger than what is unpacked, all
of them and the layers so far take no more than the unpacked image and its largest blob.

Other workers may want the same blobs.  Each blob is locked (:mod:`isula_edge.image.partial`)
from before its download until its layer is committed; whoever waited finds the layer then.
No two workers wait for each other: a worker locks its blobs strictly in the order in which
it unpacks them.  So while it waits for one, all that it holds belongs to lower layers, which
it can download, unpack, commit and give back without that one.  Slots come after locks, and
who has a slot waits for nothing but the network and the clock.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.image import partial
from isula_edge.image.blob import Limits, download
from isula_edge.image.commit import Committer
from isula_edge.image.digest import chain_ids
from isula_edge.image.layers import Applied, Unpacked, unpack_layer
from isula_edge.image.pace import SMALL_BYTES, Pace
from isula_edge.image.slots import FOLDER, Slots
from isula_edge.image.spool import Restarted, Spool
from isula_edge.image.throttle import Throttle
from isula_edge.types import Digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isula_edge.image.digest import Hasher
    from isula_edge.image.job import Job, LayerProgress
    from isula_edge.image.manifest import Descriptor
    from isula_edge.image.registry import Registry
    from isula_edge.snapshot.layers import LayerStore
    from isula_edge.types import ChainId

__all__ = ["fetch_layers"]

_JOIN_S = 5.0
_WORTH_READING_BYTES = 64 << 20
_AGAIN_S = 0.2


class _Stage:
    """One layer."""

    def __init__(
        self,
        layer: Descriptor,
        chain_id: ChainId | None,
        progress: LayerProgress,
        same_below: int,
    ) -> None:
        self.layer = layer
        self.chain_id = chain_id
        self.progress = progress
        self.same_below = same_below
        """Number of the nearest layer below with the same blob, or -1."""
        self.again = False
        """Whether a layer above has the same blob."""
        self.spool: Spool | None = None
        """Where its blob goes; None for a layer that is there, once that is decided."""
        self.read_out = False
        """Whether nothing is left but to commit it."""
        self.wrong = False
        """Whether its blob is not what it should be: nobody shall go on from it."""


class _Paced:
    """A spool whose transfer is measured."""

    def __init__(self, spool: Spool, fetch: _Fetch) -> None:
        self._spool = spool
        self._fetch = fetch
        self._last = fetch.now()

    def recover(self, size: int, hasher: Hasher, /) -> int:
        have = self._spool.recover(size, hasher)
        self._fetch.have(have)
        self._last = self._fetch.now()
        return have

    def write(self, data: bytes, /) -> None:
        # the time that the disk takes is not the link's
        self._fetch.passed(len(data), self._fetch.now() - self._last)
        self._spool.write(data)
        self._last = self._fetch.now()

    def restart(self) -> None:
        self._spool.restart()


class _Fetch:
    def __init__(
        self,
        registry: Registry,
        store: LayerStore,
        stages: Sequence[_Stage],
        job: Job,
        tmpdir: str,
        max_concurrent: int,
        limits: Limits,
    ) -> None:
        self._registry = registry
        self._store = store
        self._stages = stages
        self._job = job
        self._tmpdir = tmpdir
        self._ahead = max(1, max_concurrent)
        self._limits = limits
        self._changed = threading.Condition()
        self._pace = Pace(sum(stage.layer.size for stage in stages))
        self.now = job.now
        self._started = 0
        self._locked = 0
        self._applied = 0
        self.current = 0
        """The layer that is being unpacked; those below may not be committed yet."""
        self.committer = Committer(store, self.fail, lambda: self._pace.slow)
        self._stopped = False
        self.failure: errors.EngineError | None = None
        count = min(self._ahead, len(stages))
        self._threads = [
            threading.Thread(target=self._download_all, name=f"download-{i}", daemon=True)
            for i in range(count)
        ]

    def start(self) -> None:
        for stage in self._stages:
            stage.progress.status("Waiting")
        for thread in self._threads:
            thread.start()

    def decided(self, number: int) -> _Stage:
        """The next stage, once its blob is locked or its layer there; raises what has failed."""
        with self._changed:
            self.current = number
            self._changed.notify_all()
            held_below = self._stages[number].same_below >= self._applied
        if held_below:
            self.committer.hurry()
        with self._changed:
            while self._locked <= number:
                if self.failure is not None:
                    raise self.failure
                self._changed.wait()
        return self._stages[number]

    def applied(self) -> None:
        """One more layer is in the store: another download may start."""
        spool = self._stages[self._applied].spool
        if spool is not None:
            spool.close(keep=True, used=True)
        with self._changed:
            self._applied += 1
            self._changed.notify_all()

    def fail(self, error: errors.EngineError) -> None:
        """Ends every download and the reader with ``error``; only the first one counts."""
        with self._changed:
            if self.failure is None:
                self.failure = error
            self._changed.notify_all()
        for spool in self._spools():
            spool.fail(self.failure)

    def _spools(self) -> list[Spool]:
        return [stage.spool for stage in self._stages if stage.spool is not None]

    def stop(self, error: BaseException | None) -> None:
        """Ends what is going on.  What was brought is kept unless it is of no use."""
        # first the writers are told: what a connection gives after its end is no data
        self.fail(errors.Aborted("the download has ended"))
        self._job.cancel()
        self.committer.close()
        for thread in self._threads:
            # one that waits for a connection gives its file back when it is through
            thread.join(_JOIN_S)
        self._stopped = True
        space = isinstance(error, errors.NoSpace)
        for stage in self._stages:
            if stage.spool is not None:
                stage.spool.close(keep=not (space or stage.wrong))

    def _next(self) -> int | None:
        with self._changed:
            while self.failure is None:
                if self._started >= len(self._stages):
                    return None
                if self._started < self.current + self._ahead:
                    self._started += 1
                    return self._started - 1
                self._changed.wait()
            return None

    def _download_all(self) -> None:
        while (number := self._next()) is not None:
            complete = False
            try:
                self._lock(number)
                self._download(self._stages[number])
                complete = True
            except errors.EngineError as error:
                self.fail(error)
            except OSError as error:
                self.fail(errors.Internal(f"cannot keep a layer: {error}", kind="layer"))
            finally:
                if not complete:
                    self.fail(errors.Internal("a download ended unexpectedly", kind="layer"))

    def _lock(self, number: int) -> None:
        """Waits until it is the stage's turn, and then for its blob."""
        stage = self._stages[number]
        with self._changed:
            while self.failure is None and not (
                self._locked == number
                and self._applied > stage.same_below
                and self._worth_it(number)
            ):
                self._changed.wait()
            if self.failure is not None:
                raise self.failure
        if not self._there(stage):
            spool = self._spool(stage)
            # whoever was waited for has committed the layer before giving the blob back
            if self._there(stage):
                spool.left()
                spool.close(keep=True, used=True)
            else:
                stage.spool = spool
        with self._changed:
            self._locked += 1
            self._changed.notify_all()
        if self.failure is not None and stage.spool is not None:
            stage.spool.fail(self.failure)

    def _worth_it(self, number: int) -> bool:
        """Whether it is time for the download, by what is known of the link."""
        ahead = number - self.current
        if ahead <= 0 or self._pace.slow or self._stages[number].layer.size <= SMALL_BYTES:
            return True
        return ahead == 1 and self._stages[self.current].read_out

    def have(self, count: int) -> None:
        """``count`` bytes need not be transferred."""
        self._pace.have(count)

    def passed(self, count: int, seconds: float) -> None:
        """``count`` bytes took a transfer so long."""
        if self._pace.passed(count, seconds):
            with self._changed:
                self._changed.notify_all()

    def _read_out(self, stage: _Stage) -> None:
        with self._changed:
            stage.read_out = True
            self._changed.notify_all()

    def _spool(self, stage: _Stage) -> Spool:
        with contextlib.closing(partial.Candidate(self._tmpdir, stage.layer.digest)) as candidate:
            while (found := candidate.lock()) is None:
                # whoever has it may wait for one that is held here
                self.committer.hurry()
                self._job.sleep(_AGAIN_S)
        return Spool(
            found, self._job.now, again=stage.again, read_out=lambda: self._read_out(stage)
        )

    def _there(self, stage: _Stage) -> bool:
        return stage.chain_id is not None and self._store.has(stage.chain_id)

    def _download(self, stage: _Stage) -> None:
        spool = stage.spool
        if spool is None:
            return
        useless = False
        try:
            sink = _Paced(spool, self)
            download(self._registry, stage.layer, sink, self._job, self._limits, stage.progress)
            stage.progress.status("Extracting")
            spool.finish()
        except errors.DataLoss:
            useless = True
            raise
        finally:
            spool.left(useless=useless)
            if self._stopped:
                # nobody else is left to do it, should it have been locked that late
                spool.close(keep=True)


def fetch_layers(
    registry: Registry,
    store: LayerStore,
    job: Job,
    layers: Sequence[Descriptor],
    diff_ids: Sequence[Digest | None],
    parent: ChainId | None,
    *,
    tmpdir: str,
    max_concurrent: int,
    max_rate: int = 0,
    rate_file: str = "",
) -> list[Applied]:
    """Downloads, verifies, unpacks and commits ``layers`` (bottom-up) on ``parent``.

    A layer that another worker has committed meanwhile is taken as it is, so the chain ids
    must be leased.  ``diff_ids`` None are those of layers that are taken as they come.
    ``max_concurrent`` and ``max_rate`` (bytes a second; 0: any) bound the downloads of all
    workers that give the same ``tmpdir`` and ``rate_file``.  When a layer fails, those below
    it stay committed, and blobs that are there in part are kept.  ``job`` ends with this call.
    """
    partial.remove_old(tmpdir, [layer.digest for layer in layers])
    throttle = Throttle(rate_file or f"{tmpdir}/{FOLDER}/rate", max_rate, job)
    limits = Limits(Slots(tmpdir, max_concurrent), throttle)
    stages = _stages(job, layers, diff_ids, parent)
    fetch = _Fetch(registry, store, stages, job, tmpdir, max_concurrent, limits)
    done: list[Applied] = []
    failed: BaseException | None = None
    try:
        fetch.start()
        with job.closing(lambda: fetch.fail(errors.Aborted("the request was cancelled"))):
            for number, diff_id in enumerate(diff_ids):
                done.append(_bring(store, job, fetch, number, diff_id, parent))
                parent = done[-1].chain_id
            fetch.committer.wait()
    except BaseException as error:
        failed, first = error, fetch.failure
        if isinstance(error, errors.EngineError) and first is not None and first is not error:
            failed = first
            raise first from error
        raise
    finally:
        fetch.stop(failed)
        throttle.close()
    return done


def _bring(
    store: LayerStore,
    job: Job,
    fetch: _Fetch,
    number: int,
    diff_id: Digest | None,
    parent: ChainId | None,
) -> Applied:
    """Unpacks the next layer and hands it on to be committed."""
    stage = fetch.decided(number)
    layer: Unpacked | None = None
    if stage.spool is None:
        applied, word = _existing(store, stage.chain_id), "Exists"
    else:
        try:
            layer = _unpack(store, job, stage.spool, stage.layer, diff_id, parent)
        except (errors.DataLoss, errors.InvalidArgument) as error:
            stage.wrong = error is not fetch.failure
            raise
        applied, word = layer.applied, "Done"

    def committed() -> None:
        stage.progress.done(word)
        fetch.applied()

    fetch.committer.add(layer, committed)
    if store.driver.style == "merge":
        # the next layer is unpacked into what this one has become
        fetch.committer.wait()
    return applied


def _stages(
    job: Job,
    layers: Sequence[Descriptor],
    diff_ids: Sequence[Digest | None],
    parent: ChainId | None,
) -> list[_Stage]:
    below: list[Digest] = [] if parent is None else [Digest(parent)]
    known: list[Digest] = []
    for diff_id in diff_ids:
        if diff_id is None:
            break
        known.append(diff_id)
    chain = chain_ids([*below, *known])[len(below) :]
    last: dict[str, int] = {}
    stages: list[_Stage] = []
    for number, (layer, _) in enumerate(zip(layers, diff_ids, strict=True)):
        progress = job.layer(layer.digest, layer.size)
        chain_id = chain[number] if number < len(chain) else None
        stage = _Stage(layer, chain_id, progress, last.get(layer.digest, -1))
        if stage.same_below >= 0:
            stages[stage.same_below].again = True
        last[layer.digest] = number
        stages.append(stage)
    return stages


def _existing(store: LayerStore, chain_id: ChainId | None) -> Applied:
    """What another worker has committed."""
    record = store.get(chain_id) if chain_id is not None else None
    if chain_id is None or record is None:
        raise errors.DataLoss(
            f"layer {chain_id} was removed while it was needed", kind="layer", ref=chain_id or ""
        )
    return Applied(chain_id, Digest(record["diff_id"]), int(record["size"]))


def _unpack(
    store: LayerStore,
    job: Job,
    spool: Spool,
    layer: Descriptor,
    diff_id: Digest | None,
    parent: ChainId | None,
) -> Unpacked:
    while True:
        spool.rewind()
        try:
            return unpack_layer(
                store,
                job,
                spool,
                parent=parent,
                diff_id=diff_id,
                digest=layer.digest,
                compressed_size=layer.size,
            )
        except Restarted:
            continue
        except (errors.DataLoss, errors.InvalidArgument):
            # a wrong blob rarely unpacks: say that it is wrong, not what is odd in it
            with contextlib.suppress(Restarted):
                spool.verdict(layer.size, _WORTH_READING_BYTES)
                raise
