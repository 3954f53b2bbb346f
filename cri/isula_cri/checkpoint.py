"""CheckpointContainer: a running container's processes and files as one archive.

The archive is a tar that checkpointctl and the restores of other engines read::

    config.dump        name, image, runtime and times
    spec.dump          the runtime-spec document
    status             times, pid and exit code
    network.status     what the pod's network has given
    checkpoint/        criu's images
    dump.log           what criu said
    rootfs-diff.tar    files that the container has made or changed
    deleted.files      files of the image that it has deleted

It holds the memory of the processes, with every secret in it: only root may read it.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import shutil
import tarfile
import tempfile
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.container.record import Status
from isula_edge.runtime.oci_cli import OciCli
from isula_edge.service import cri_images
from isula_edge.service.worker import ignored
from isula_edge.snapshot.base import remove_tree
from isula_edge.sys import atomic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from isula_edge.container.record import Container
    from isula_edge.runtime.base import Bundle
    from isula_edge.service.engine import Engine

__all__ = ["checkpoint", "refuse_pods"]

_DEFAULT_S = 300.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CHECK_S = 30.0
_LOG = "runtime.log"


async def checkpoint(
    engine: Engine,
    container: Container,
    location: str,
    timeout_s: float = 0,
    network: Mapping[str, Any] | None = None,
) -> None:
    """Writes the archive ``location`` of a running container, which is paused meanwhile.

    0 is the time-out of :data:`_DEFAULT_S`.  On an error there is no archive.  Raises
    Unimplemented where the runtime or criu cannot do it, FailedPrecondition when the
    container does not run, AlreadyExists, DeadlineExceeded.
    """
    _check_request(location, timeout_s)
    runtime = engine.life.runtime(container.runtime)
    if not isinstance(runtime, OciCli):
        raise errors.Unimplemented(
            f"runtime {runtime.name} makes no checkpoints",
            kind="runtime",
            ref=runtime.name,
            hint="a pod with a runtime handler of runc, and criu, can have them",
        )
    await _check_criu(engine)
    limit_s = timeout_s or _DEFAULT_S
    async with container.lock:
        if container.state.status not in (Status.RUNNING, Status.PAUSED):
            raise errors.FailedPrecondition(
                f"container {container.name} does not run", kind="container", ref=container.id
            )
        folder = tempfile.mkdtemp(prefix="checkpoint-", dir=engine.images.tmpdir)
        try:
            async with asyncio.timeout(limit_s):
                async with _paused(engine, container):
                    await _collect(engine, container, runtime, folder, limit_s)
                _describe(engine, container, folder, network or {})
                await _pack(folder, location)
        except TimeoutError as error:
            raise errors.DeadlineExceeded(
                f"the checkpoint did not end within {limit_s:g} s",
                kind="container",
                ref=container.id,
            ) from error
        finally:
            await asyncio.to_thread(remove_tree, folder)
    attributes = {"image": container.image, "name": container.name}
    engine.events.container("checkpoint", container.id, attributes)


def refuse_pods(call: str) -> errors.Unimplemented:
    """The error of ``CheckpointPod`` and ``RestorePod``."""
    return errors.Unimplemented(
        f"{call} is not served: criu freezes one container at a time, and the namespaces of a "
        "pod would have to be restored before its containers",
        kind="call",
        ref=call,
        hint="CheckpointContainer takes each container by itself",
    )


def _check_request(location: str, timeout_s: float) -> None:
    if not location.startswith("/"):
        raise errors.InvalidArgument(
            f"the location {location!r} of a checkpoint is not absolute", kind="file", ref=location
        )
    if timeout_s < 0:
        raise errors.InvalidArgument(f"the timeout {timeout_s:g} is negative", kind="param")
    if not os.path.isdir(os.path.dirname(location)):
        raise errors.NotFound(
            f"there is no directory for {location}", kind="file", ref=os.path.dirname(location)
        )
    if os.path.lexists(location):
        raise errors.AlreadyExists(f"{location} is there already", kind="file", ref=location)


async def _check_criu(engine: Engine) -> None:
    """Raises Unimplemented, with criu's own words, where it is missing or of no use."""
    program = shutil.which("criu", path=_PATH)
    hint = "install criu 3.11 or newer, one that knows this kernel"
    if program is None:
        raise errors.Unimplemented("criu is not installed", kind="program", ref="criu", hint=hint)
    try:
        code, _, err = await engine.reaper.run([program, "check"], timeout_s=_CHECK_S, group=True)
    except (OSError, TimeoutError) as error:
        raise errors.Unimplemented(
            f"criu cannot be run: {error}", kind="program", ref=program, hint=hint
        ) from error
    if code:
        lines = err.decode(errors="replace").strip().splitlines() or [f"exit status {code}"]
        raise errors.Unimplemented(
            f"criu does not work on this machine: {lines[0]}",
            kind="program",
            ref=program,
            hint=hint,
        )


@contextlib.asynccontextmanager
async def _paused(engine: Engine, container: Container) -> AsyncIterator[None]:
    """While inside, no process of the container runs: its files stay as its memory has them.

    Where the kernel cannot do that, files may be newer.  One that was paused stays so.
    """
    ours = container.state.status is Status.RUNNING
    try:
        if ours:
            with contextlib.suppress(errors.Unimplemented):
                await engine.life.pause(container, True)
        yield
    finally:
        # it may have been killed meanwhile
        if ours and container.state.status is Status.PAUSED:
            with contextlib.suppress(errors.FailedPrecondition):
                await engine.life.pause(container, False)


async def _collect(
    engine: Engine, container: Container, runtime: OciCli, folder: str, timeout_s: float
) -> None:
    """criu's images and the files."""
    bundle = engine.bundles.load(container)
    os.mkdir(f"{folder}/checkpoint", 0o700)
    try:
        await runtime.checkpoint(bundle, folder, timeout_s)
    except errors.Internal as error:
        raise _explained(error, f"{folder}/dump.log") from error
    if not container.settings.external_rootfs:
        await _diff(engine, container, bundle, folder)


def _explained(error: errors.Internal, log: str) -> errors.Internal:
    """``error`` with what criu says of it."""
    lines = []
    with contextlib.suppress(OSError), open(log, encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file.read(8 << 20).splitlines() if "Error" in line]
    return errors.Internal(
        error.message, kind=error.kind, ref=error.ref, hint="; ".join(lines[:3])
    )


async def _diff(engine: Engine, container: Container, bundle: Bundle, folder: str) -> None:
    data = engine.life.rootfs_data(container)
    upper = data.get("UpperDir", "")
    lowers = [path for path in data.get("LowerDir", "").split(":") if path]
    if not upper:
        home = engine.layers.driver.home
        lowers = [f"{home}/{name}" for name in engine.layers.dirs(container.chain_ids)[:1]]
    request = {
        "op": "diff",
        "root": upper or data["MergedDir"],
        "whole": not upper,
        "lowers": lowers,
        "excluded": [mount["destination"] for mount in bundle.spec.get("mounts") or ()],
    }
    fd = os.open(f"{folder}/rootfs-diff.tar", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        result = await engine.images.ask(request, ignored, fd)
    finally:
        os.close(fd)
    if result["deleted"]:
        _write(f"{folder}/deleted.files", result["deleted"])


def _describe(
    engine: Engine, container: Container, folder: str, network: Mapping[str, Any]
) -> None:
    image = engine.images.store.find(container.image_id) if container.image_id else None
    state = container.state
    with open(f"{engine.table.dir(container)}/config.json", encoding="utf-8") as file:
        spec = json.load(file)
    config = {
        "id": container.id,
        "name": container.name,
        "rootfsImage": container.image,
        "rootfsImageRef": cri_images.image_ref(image) if image else "",
        "rootfsImageName": next(iter(cri_images.repo_tags(image)), "") if image else "",
        "runtime": container.runtime,
        "createdTime": _moment(container.created_ns),
        "checkpointedTime": datetime.datetime.now(datetime.UTC).isoformat(),
        "restoredTime": _moment(0),
        "restored": False,
    }
    status = {
        "CreatedAt": container.created_ns,
        "StartedAt": state.started_ns,
        "FinishedAt": 0,
        "ExitCode": 0,
        "Pid": state.pid,
        "Reason": "",
        "Message": "",
    }
    for name, table in (
        ("config.dump", config),
        ("spec.dump", spec),
        ("status", status),
        ("network.status", network),
    ):
        _write(f"{folder}/{name}", table)


def _moment(time_ns: int) -> str:
    """RFC 3339 in UTC; Go's zero time of 0."""
    if not time_ns:
        return "0001-01-01T00:00:00Z"
    return datetime.datetime.fromtimestamp(time_ns / 10**9, datetime.UTC).isoformat()


def _write(path: str, table: Any) -> None:
    atomic.write(path, json.dumps(table, indent=2).encode(), mode=0o600, durable=False)


async def _pack(folder: str, location: str) -> None:
    """The archive, whole or not at all."""
    partial = f"{location}.partial"
    packing = asyncio.ensure_future(asyncio.to_thread(_archive, folder, partial))
    try:
        await asyncio.shield(packing)
        os.rename(partial, location)
    except BaseException:
        # a thread cannot be cancelled, and what it writes must not stay
        await asyncio.wait({packing})
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise


def _archive(folder: str, path: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with (
        atomic.space_errors(path),
        os.fdopen(os.open(path, flags, 0o600), "wb") as file,
        tarfile.open(fileobj=file, mode="w") as archive,
    ):
        for name in sorted(os.listdir(folder)):
            if name != _LOG:
                archive.add(f"{folder}/{name}", name)
        archive.close()
        file.flush()
        os.fsync(file.fileno())
