"""The process that does image work for the daemon, so that the daemon never meets the input.

Standard input: frames of :mod:`isula_edge.wire`.  The first is the request, a map with
``op`` (``pull``, ``search``, ``load``, ``import``, ``login``), ``graph``, ``driver``,
``tmpdir`` and

- pull: ``ref``; optional ``platform``, ``mirrors``, ``host_mirrors`` {host: [mirror]},
  ``insecure``, ``insecure_skip_verify``, ``certs_dir``,
  ``auths`` {host: {username, password, registry_token, identity_token}}, ``max_concurrent``,
  ``max_rate`` (bytes a second), ``rate_file`` (of all workers, see isula_edge.image.throttle),
  ``all_tags``, ``unreachable`` [host], ``clock_timeout`` (seconds)
- search: ``term``; optional ``limit``, ``filters`` {key: [value]}, and of pull: ``mirrors``,
  ``insecure``, ``insecure_skip_verify``, ``certs_dir``, ``auths``, ``unreachable``,
  ``clock_timeout``
- load: ``path`` or ``fd``; optional ``tag``, ``platform``
- import: ``path`` or ``fd``, ``ref``
- save: ``fd`` to write to, ``images`` [{config, chain_ids, names}], ``excluded`` [chain id],
  ``kind``
- export: ``fd`` to write to, and ``path``, or ``container``, ``lowers`` and ``fstype``
- diff: ``fd`` to write to, ``root``, ``lowers`` [path], ``excluded`` [path], ``whole``: see
  :func:`isula_edge.image.diff.diff`
- usage: ``roots`` [{top, parts: [path]}]
- check: ``layers`` [chain id], ``quick``
- login: ``server``, ``auth`` {username, password}; optional ``mirrors``, ``insecure``,
  ``insecure_skip_verify``, ``certs_dir``

Standard output: frames, in this order:

- ``{"v": {id, status, current, total}}``  progress of a layer, at any time
- ``{"need": [chain ids]}``  answered on standard input by ``{"have": [chain ids]}``: those
  that are in the store and stay there until the worker ends; asked once for every image
- ``{"layer": chain id}``  after each commit
- ``{"image": {…}}``  see :func:`isula_edge.image.layers.image_event`, once for every image
- ``{"unreachable": host}``, ``{"reachable": host}``  what became of a mirror, at any time
- ``{"r": result}`` or ``{"x": error}``  the last frame

The end of standard input, SIGTERM and SIGINT cancel the request: unfinished layers are
removed, committed ones are left to the daemon.  Diagnostics go to standard error.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from isula_edge import errors, wire
from isula_edge.image.job import Job
from isula_edge.sys import atomic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isula_edge.snapshot.layers import LayerStore
    from isula_edge.types import ChainId

__all__ = ["main", "run"]

_log = logging.getLogger(__name__)
_CANCELLED = "the request was cancelled"
_GRACE_S = 2.0
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


class _Channel:
    """Frames to and from the daemon."""

    def __init__(self, source: int, sink: int) -> None:
        self._source = source
        self._sink = sink
        self._sending = threading.Lock()
        self._answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def read(self) -> dict[str, Any] | None:
        """The next frame, None at the end."""
        head = self._exactly(4)
        if head is None:
            return None
        length = int.from_bytes(head, "big")
        if length > wire.MAX_REQUEST:
            raise wire.WireError(f"frame of {length} bytes")
        data = self._exactly(length)
        frame = wire.decode(data) if data is not None else None
        if frame is not None and not isinstance(frame, dict):
            raise wire.WireError("frame is no map")
        return frame

    def _exactly(self, size: int) -> bytes | None:
        data = b""
        while len(data) < size:
            part = os.read(self._source, size - len(data))
            if not part:
                return None
            data += part
        return data

    def send(self, event: dict[str, Any]) -> None:
        """Writes one frame, whole, whatever the thread; Aborted when the daemon is gone."""
        view = memoryview(wire.pack(event))
        try:
            with self._sending:
                while view:
                    view = view[os.write(self._sink, view) :]
        except BrokenPipeError as error:
            raise errors.Aborted("the daemon is gone") from error

    def ask(self, chain_ids: Sequence[ChainId]) -> set[str]:
        """Sends ``need`` and waits for ``have``."""
        self.send({"need": list(chain_ids)})
        answer = self._answers.get()
        if answer is None:
            raise errors.Aborted(_CANCELLED)
        have = answer.get("have")
        return {str(item) for item in have} if isinstance(have, list) else set()

    def listen(self, job: Job) -> None:
        """Passes answers on until standard input ends, which cancels ``job``."""
        try:
            while (frame := self.read()) is not None:
                self._answers.put(frame)
        except (wire.WireError, OSError) as error:
            _log.warning("standard input: %s", error)
        self.wake(job)

    def wake(self, job: Job) -> None:
        """Cancels ``job``, also where it waits for an answer.

        What cannot be woken, the making of a connection, ends with the process.
        """
        job.cancel()
        self._answers.put(None)
        while True:
            time.sleep(_GRACE_S)
            if job.may_end:
                # the daemon may be gone
                with contextlib.suppress(errors.EngineError, OSError):
                    self.send({"x": errors.to_wire(errors.Aborted(_CANCELLED))})
                os._exit(0)


def run(request: dict[str, Any], job: Job) -> dict[str, Any]:
    """Does what ``request`` says and returns the result; raises EngineError."""
    if request.get("op") == "login":
        from isula_edge.image.login import login

        return login(request, job)
    if request.get("op") == "search":
        from isula_edge.image.search import search

        return search(request, job)
    from isula_edge import snapshot

    store = snapshot.LayerStore(str(request["graph"]), str(request["driver"]))
    operation = request.get("op")
    if operation == "pull":
        return _pull(request, store, job)
    if operation in ("usage", "check"):
        from isula_edge.image import upkeep

        if operation == "usage":
            return upkeep.measure(request, job)
        return upkeep.check_layers(store, job, request["layers"], quick=bool(request["quick"]))
    if operation in ("save", "export", "diff"):
        return _write(request, store, job)
    if operation not in ("load", "import"):
        raise errors.InvalidArgument(f"unknown operation {operation!r}")
    from isula_edge.image.source import open_source

    with open_source(str(request.get("path") or ""), int(request.get("fd", -1))) as source:
        if operation == "import":
            from isula_edge.image.import_ import import_image

            return import_image(source, str(request["ref"]), store, job)
        from isula_edge.image.load import load

        return load(
            source,
            store,
            job,
            tmpdir=str(request["tmpdir"]),
            tag=str(request.get("tag") or ""),
            platform=str(request.get("platform") or ""),
        )


def _write(request: dict[str, Any], store: LayerStore, job: Job) -> dict[str, Any]:
    """Save, export and diff: what writes an archive."""
    sink = int(request["fd"])
    if request["op"] == "save":
        from isula_edge.image.save import Saved, save

        images = [
            Saved(image["config"], image["chain_ids"], image["names"])
            for image in request["images"]
        ]
        return save(sink, images, request["excluded"], str(request["kind"]), store, job)
    if request["op"] == "diff":
        from isula_edge.image.diff import diff

        lowers, excluded = map(str, request["lowers"]), map(str, request["excluded"])
        root, whole = str(request["root"]), bool(request["whole"])
        return diff(sink, root, list(lowers), list(excluded), job, whole=whole)
    from isula_edge import snapshot
    from isula_edge.image import export

    path = str(request.get("path") or "")
    if not path:
        kind = snapshot.driver_class(str(request["driver"]))
        driver = kind(store.driver.home, str(request["fstype"]))
        path = export.mounted(driver, str(request["container"]), request["lowers"])
    return export.export(sink, path, job)


def _pull(request: dict[str, Any], store: LayerStore, job: Job) -> dict[str, Any]:
    from isula_edge.image.credentials import Credentials
    from isula_edge.image.pull import MAX_CONCURRENT, PullRequest, pull
    from isula_edge.image.transport import CERTS_DIR, Settings

    auths = request.get("auths") or {}
    settings = Settings(
        insecure=tuple(request.get("insecure") or ()),
        skip_verify=bool(request.get("insecure_skip_verify")),
        certs_dir=str(request.get("certs_dir") or CERTS_DIR),
    )
    wanted = PullRequest(
        ref=str(request["ref"]),
        tmpdir=str(request["tmpdir"]),
        platform=str(request.get("platform") or ""),
        mirrors=tuple(request.get("mirrors") or ()),
        host_mirrors=request.get("host_mirrors") or {},
        settings=settings,
        auths={str(host): Credentials.of(auth) for host, auth in auths.items()},
        max_concurrent=int(request.get("max_concurrent") or MAX_CONCURRENT),
        max_rate=int(request.get("max_rate") or 0),
        rate_file=str(request.get("rate_file") or ""),
        all_tags=bool(request.get("all_tags")),
        unreachable=tuple(request.get("unreachable") or ()),
        clock_timeout_s=float(request.get("clock_timeout") or 0),
    )
    return pull(wanted, store, job)


def _answer(request: dict[str, Any], job: Job) -> dict[str, Any]:
    """The last frame: result or error, whatever happens."""
    try:
        with atomic.space_errors(str(request.get("graph", ""))):
            return {"r": run(request, job)}
    except errors.EngineError as error:
        found = errors.Aborted(_CANCELLED) if job.cancelled else error
        return {"x": errors.to_wire(found)}
    except Exception as error:  # noqa: BLE001 - outer loop: the daemon must get an answer
        _log.exception("unexpected failure")
        if job.cancelled:
            return {"x": errors.to_wire(errors.Aborted(_CANCELLED))}
        text = str(error) or type(error).__name__
        return {"x": errors.to_wire(errors.Internal(f"image worker failed: {text[:300]}"))}


def main() -> None:
    """Serves the one request on standard input."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    # nothing that prints may come between two frames
    sink = os.dup(1)
    os.dup2(2, 1)
    os.umask(0o022)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    channel = _Channel(0, sink)
    try:
        request = channel.read()
    except wire.WireError as error:
        _log.error("request: %s", error)
        request = None
    if request is None:
        sys.exit(1)
    job = Job(channel.send, channel.ask)

    def wait_for_signal() -> None:
        signal.sigwait(_SIGNALS)
        channel.wake(job)

    threading.Thread(target=wait_for_signal, name="signals", daemon=True).start()
    threading.Thread(target=channel.listen, args=(job,), name="stdin", daemon=True).start()
    last = _answer(request, job)
    try:
        channel.send(last)
    except errors.Aborted:
        sys.exit(1)


if __name__ == "__main__":
    main()
