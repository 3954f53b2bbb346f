"""Containers: create, start, stop, exec, logs, list and the rest of their verbs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.container import logs as container_logs
from isula_edge.container.record import Container
from isula_edge.container.streams import relay_exec
from isula_edge.container.update import take_limits, take_limits_inside
from isula_edge.image import reference
from isula_edge.image.run_config import check_run_config
from isula_edge.oci import options as oci_options
from isula_edge.oci.resources import changed
from isula_edge.oci.spec import process_args
from isula_edge.profile import seccomp
from isula_edge.runtime.base import ExecSpec
from isula_edge.service import asked, filters, limits, machine
from isula_edge.service.platforms import wanted
from isula_edge.service.worker import ignored
from isula_edge.snapshot.base import remove_tree
from isula_edge.sys import atomic, process
from isula_edge.sys.tasks import to_its_end
from isula_edge.types import ChainId, ContainerId, ImageId

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from isula_edge.container.streams import Attachment, Session
    from isula_edge.image.store import Image
    from isula_edge.oci.options import Settings
    from isula_edge.oci.resources import ResourceChange
    from isula_edge.runtime.base import ExecProcess
    from isula_edge.service.engine import Engine

__all__ = ["Containers"]

_POD_ANNOTATIONS = ("io.kubernetes.cri.", "io.kubernetes.cri-o.", "io.kubernetes.docker.")
"""A shim takes a container with these for one of somebody else's pod."""
_NO_IMAGE = "none"


class Containers:
    """Everything a user can do with containers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._table = engine.table
        self._life = engine.life

    # creation

    async def create(self, params: Mapping[str, Any]) -> Container:
        """Makes a container; ``params`` are those of ``container.create`` of the wire.

        Nothing is left behind when it fails.
        """
        return await self.create_from(
            self._settings(params),
            image=str(params.get("image") or ""),
            args=[str(word) for word in params.get("command") or ()],
            name=str(params.get("name") or ""),
            runtime=str(params.get("runtime") or ""),
        )

    async def create_from(
        self,
        settings: Settings,
        *,
        image: str,
        command: Sequence[str] = (),
        args: Sequence[str] = (),
        name: str = "",
        runtime: str = "",
        pod: str = "",
        cri: Mapping[str, Any] | None = None,
        container_id: str = "",
    ) -> Container:
        """Makes a container of ``settings``, which it keeps; nothing is left when it fails.

        ``command`` replaces entry point and command of the image, ``args`` its command alone;
        '' is the default runtime, and a name that is the id.  ``pod`` and ``cri`` go into the
        record.
        """
        engine = self._engine
        self._add_hooks(settings)
        _check_files(settings)
        engine.host_limits.check(settings)
        runtime = self._able(runtime, settings, pod)
        found = self._image(image, settings)
        config = found.run_config if found is not None else {}
        check_run_config(config, image)
        if command:
            argv = [*command, *args]
        else:
            argv = process_args(config, settings.entrypoint, list(args))
        oci_options.check_words("the command", argv)
        own_id = ContainerId(container_id or secrets.token_hex(32))
        container = Container(
            own_id,
            (name or own_id).lstrip("/"),
            time.time_ns(),
            image if found is None else _shown(image, found),
            ImageId(found.id if found is not None else ""),
            config,
            [ChainId(chain) for chain in found.chain_ids] if found is not None else [],
            runtime,
            argv,
            settings,
            pod=pod,
            cri=dict(cri or {}),
        )
        if not container.args:
            raise errors.InvalidArgument("No command specified", kind="container")
        with engine.images.holding(found):
            self._table.reserve(container.name, own_id)
            try:
                await self._make(container)
            except BaseException:
                self._table.release(container.name)
                raise
        engine.events.container(
            "create", container.id, {"image": container.image, "name": container.name}
        )
        return container

    def _able(self, runtime: str, settings: Settings, pod: str) -> str:
        """The name of the runtime, which can do on this kernel what ``settings`` want."""
        engine = self._engine
        name = machine.able(engine.features, engine.runtime_name(runtime))
        guest = engine.life.runtime(name).guest
        if guest is not None and not pod:
            for key in settings.annotations:
                if key.startswith(_POD_ANNOTATIONS):
                    raise errors.InvalidArgument(
                        f"annotation {key} is for containers of pods", kind="annotation", ref=key
                    )
        if engine.life.machine(name) is None:
            asked.check_settings(engine.features, settings)
        return name

    def _settings(self, params: Mapping[str, Any]) -> Settings:
        given = params.get("options") or {}
        if not isinstance(given, dict):
            raise errors.InvalidArgument("options must be a map")
        settings = oci_options.parse(
            given, cpus=os.cpu_count() or 1, **self._engine.host_limits.cpusets()
        )
        settings.platform = str(params.get("platform") or settings.platform)
        logged = [str(item) for item in given.get("log_opt") or ()]
        most = self._engine.config.log_max_size
        if most and not any(item.startswith("max-size=") for item in logged):
            settings.log_max_size = most
        return settings

    def _add_hooks(self, settings: Settings) -> None:
        """Those that the administrator wants for every container."""
        listed = self._engine.config.hook_spec
        if listed:
            hooks = oci_options.read_hooks(listed)
            for kind, own in settings.hooks.items():
                hooks[kind] = [*hooks.get(kind, ()), *own]
            settings.hooks = hooks

    def _image(self, ref: str, settings: Settings) -> Image | None:
        if ref in (_NO_IMAGE, "") and settings.external_rootfs:
            return None
        if not ref:
            raise errors.InvalidArgument("an image is needed", kind="image")
        want = wanted(settings.platform)
        store = self._engine.images.store
        if not store.candidates(ref):
            name = reference.parse(ref).familiar
            raise errors.NotFound(f"No such image:{name}", kind="image", ref=ref)
        found = store.get(ref, want)
        foreign = "" if want else self._engine.platforms.foreign(found)
        if foreign:
            settings.warnings.append(foreign)
        return found

    async def _make(self, container: Container) -> None:
        folder = self._table.dir(container)
        undo: list[Any] = []
        try:
            await to_its_end(asyncio.to_thread(atomic.make_dir, os.path.dirname(folder), 0o711))
            with atomic.space_errors(folder):
                os.mkdir(folder, 0o700)
            undo.append(lambda: remove_tree(folder))
            if not container.settings.external_rootfs:
                undo.append(lambda: self._engine.layers.driver.remove(container.id))
            with atomic.space_errors(folder):
                await to_its_end(self._life.create_rootfs(container))
                await to_its_end(asyncio.to_thread(self._table.save, container))
        except BaseException:
            for step in reversed(undo):
                with contextlib.suppress(OSError):
                    await asyncio.to_thread(step)
            raise
        self._table.add(container)

    # life

    def get(self, ref: str) -> Container:
        """By id, name or prefix; NotFound."""
        return self._table.get(ref)

    async def start(
        self, container: Container, *, attach: bool = False, size: tuple[int, int] | None = None
    ) -> Attachment | None:
        """Starts it; with ``attach`` the connection to its streams."""
        attachment = await self._life.start(container, attach=attach)
        if attachment is not None and size is not None and container.settings.tty:
            attachment.resize(*size)
        return attachment

    async def interrupt(self, container: Container) -> None:
        """Ends a start that hangs."""
        await self._life.interrupt(container)

    async def relay(
        self, container: Container, attachment: Attachment, session: Session, stdin: bool
    ) -> int:
        """Copies streams until the container ends; its exit code."""

        def deliver(number: int) -> None:
            self._engine.background(self._signal(container, number))

        ended = container.ended
        await attachment.relay(session, stdin and container.settings.interactive, deliver)
        await ended.wait()
        return container.state.exit_code

    async def _signal(self, container: Container, number: int) -> None:
        with contextlib.suppress(errors.EngineError, OSError):
            await self._life.signal(container, number)

    def attach(self, container: Container) -> Attachment:
        """A connection to the streams of a running container."""
        return self._life.attach(container)

    async def stop(self, container: Container, timeout_s: float | None, *, force: bool) -> None:
        """Stops it; not running is fine."""
        await self._life.stop(container, timeout_s, force=force)

    async def kill(self, container: Container, signal: str) -> None:
        """Sends a signal."""
        await self._life.kill(container, signal)

    async def restart(self, container: Container, timeout_s: float | None) -> None:
        """Stop, then start."""
        container.restarting = True
        try:
            await self._life.stop(container, timeout_s, force=False)
            container.state.restart_count = 0
            await self._life.start(container)
        finally:
            container.restarting = False
        self._engine.events.container(
            "restart", container.id, {"image": container.image, "name": container.name}
        )

    async def remove(self, container: Container, *, force: bool) -> None:
        """Removes it, and layers that only it needed."""
        await self._life.remove(container, force=force)
        for image in container.images:
            self._engine.images.gc.used(image)
        await self._engine.images.collect(container.layers)

    async def pause(self, container: Container, frozen: bool) -> None:
        """Freezes or thaws it."""
        async with container.lock:
            await self._life.pause(container, frozen)

    async def update(self, container: Container, change: ResourceChange) -> None:
        """Changes limits: all that ``change`` says or, with an error, nothing.

        They count at once for a running container, and for every start from now on.
        """
        engine = self._engine
        async with container.lock:
            if container.removing:
                raise errors.NotFound(f"No such container:{container.name}", kind="container")
            sets = engine.host_limits.cpusets()
            settings = changed(
                container.settings, change, cpuset=sets["cpuset"], mems=sets["mems"]
            )
            engine.host_limits.check(settings)
            await self._take_limits(container, settings)
        engine.events.container(
            "update", container.id, {"image": container.image, "name": container.name}
        )

    async def _take_limits(self, container: Container, settings: Settings) -> None:
        engine = self._engine
        guest = engine.life.machine(container.runtime)
        if guest is None or not container.running:
            await asyncio.to_thread(
                take_limits, container, settings, self._table, engine.bundles, engine.cgroups
            )
            return
        await take_limits_inside(container, settings, self._table, engine.bundles, guest)

    async def rename(self, container: Container, name: str) -> None:
        """Gives it another name."""
        async with container.lock:
            if container.removing:
                raise errors.NotFound(f"No such container:{container.name}", kind="container")
            old = container.name
            if name.lstrip("/") == old:
                raise errors.FailedPrecondition(
                    "Renaming a container with the same name as its current name",
                    kind="container",
                    ref=old,
                )
            await asyncio.to_thread(self._table.rename, container, name)
        self._engine.events.container(
            "rename", container.id, {"image": container.image, "name": name, "oldName": old}
        )

    async def wait(self, container: Container) -> int:
        """Its exit code, once it has ended."""
        while container.running:
            await container.ended.wait()
        return container.state.exit_code

    async def export(self, container: Container, data: int) -> dict[str, Any]:
        """Writes a tar of its root file system to the descriptor ``data``: ``{"size": bytes}``.

        It may run, start and stop meanwhile; Aborted when it was removed.
        """
        engine = self._engine
        driver = engine.layers.driver
        request: dict[str, Any] = {
            "op": "export",
            "path": container.settings.external_rootfs,
            "container": container.id,
            "lowers": engine.layers.dirs(container.chain_ids),
            "fstype": getattr(driver, "fstype", ""),
        }

        engine.images.lease(container.chain_ids)
        try:
            result = await engine.images.ask(request, ignored, data)
        finally:
            engine.images.release(container.chain_ids)
            await asyncio.shield(engine.images.collect(container.chain_ids))
        if container.removing:
            raise errors.Aborted(
                f"container {container.name} was removed while it was exported",
                kind="container",
                ref=container.id,
            )
        engine.events.container(
            "export", container.id, {"image": container.image, "name": container.name}
        )
        return result

    # exec

    async def exec(self, params: Mapping[str, Any], session: Session) -> dict[str, Any]:
        """Runs a process in a container: ``{"exec_id"}`` when detached, else ``{"exit_code"}``."""
        container = self.get(str(params.get("ref") or ""))
        exec_id, running, exited = await self.begin_exec(container, params)
        if params.get("detach"):
            self._engine.background(relay_exec(_Nobody(), running, exited, None))
            return {"exec_id": exec_id}
        identity = process.identify(running.pid)
        return {"exit_code": await relay_exec(session, running, exited, identity)}

    async def begin_exec(
        self, container: Container, params: Mapping[str, Any]
    ) -> tuple[str, ExecProcess, asyncio.Future[int]]:
        """Starts a process in a container: its id, its streams, and a future of its exit code."""
        argv = [str(word) for word in params.get("argv") or ()]
        if not argv:
            raise errors.InvalidArgument("exec needs a command", kind="command")
        self._life.refuse_exec(container)
        asked.check_exec(self._engine.features, container.runtime)
        spec = self._exec_spec(container, argv, params)
        exec_id = secrets.token_hex(32)
        attributes = {"image": container.image, "name": container.name, "execID": exec_id}
        events = self._engine.events
        events.container("exec_create", container.id, {**attributes, "command": " ".join(argv)})
        running, exited = await self._life.exec(container, spec)
        events.container("exec_start", container.id, {**attributes, "command": " ".join(argv)})

        def ended(future: asyncio.Future[int]) -> None:
            if not future.cancelled():
                code = {**attributes, "exitCode": str(future.result())}
                events.container("exec_die", container.id, code)

        exited.add_done_callback(ended)
        return exec_id, running, exited

    def _exec_spec(
        self, container: Container, argv: list[str], params: Mapping[str, Any]
    ) -> ExecSpec:
        described = self._engine.bundles.load(container).spec["process"]
        tty = bool(params.get("tty"))
        env = dict(pair.partition("=")[::2] for pair in described.get("env") or ())
        user = described.get("user") or {}
        uid, gid = int(user.get("uid", 0)), int(user.get("gid", 0))
        groups = tuple(user.get("additionalGids") or ())
        if params.get("user"):
            root = self._root(container)
            found = self._engine.bundles.user(container, root, str(params["user"]))
            uid, gid, groups = found.uid, found.gid, found.groups
            own = [*(container.image_config.get("Env") or ()), *container.settings.env]
            if not any(item.startswith("HOME=") for item in own):
                env["HOME"] = found.home
        if tty:
            env.setdefault("TERM", "xterm")
        for item in params.get("env") or ():
            key, equals, value = str(item).partition("=")
            if not key:
                raise errors.InvalidArgument(
                    f"Invalid environment '{item}'", kind="flag", ref="env"
                )
            if equals:
                env[key] = value
        workdir = str(params.get("workdir") or "")
        if workdir and not workdir.startswith("/"):
            raise errors.InvalidArgument(
                f"The working directory '{workdir}' is invalid. It needs to be an absolute path.",
                kind="flag",
                ref="workdir",
            )
        return ExecSpec(
            argv,
            [f"{key}={value}" for key, value in env.items()],
            workdir or described.get("cwd") or "/",
            uid,
            gid,
            groups,
            tty,
            bool(params.get("stdin")),
            size_of(params),
        )

    def _root(self, container: Container) -> str:
        """A running container's root: as its processes see it, where those are the host's."""
        if self._life.machine(container.runtime) is None:
            return f"/proc/{container.state.pid}/root"
        return str(self._engine.bundles.load(container).spec["root"]["path"])

    # logs and processes

    async def logs(self, params: Mapping[str, Any], session: Session) -> dict[str, Any]:
        """Sends logged output to ``session``."""
        container = self.get(str(params.get("ref") or ""))
        since, until = params.get("since_ns"), params.get("until_ns")
        stamps = bool(params.get("timestamps"))
        path = self._engine.bundles.log_path(container)
        start_of_line = {True: True, False: True}

        async def show(line: container_logs.LogLine) -> bool:
            if since is not None or until is not None:
                at = container_logs.stamp_ns(line.stamp)
                if since is not None and at < since:
                    return True
                if until is not None and at > until:
                    return False
            data = line.data
            if stamps and start_of_line[line.error]:
                data = container_logs.utc(line.stamp).encode() + b" " + data
            start_of_line[line.error] = line.data.endswith(b"\n")
            await (session.err(data) if line.error else session.out(data))
            return True

        follow = bool(params.get("follow")) and container.running
        ended = container.ended
        tail = -1 if params.get("tail") is None else int(params["tail"])
        lines, offset = await asyncio.to_thread(container_logs.read_tail, path, tail)
        for line in lines:
            if not await show(line):
                return {}
        if follow:
            async for line in container_logs.follow(path, offset, self._engine.watcher, ended):
                if not await show(line):
                    return {}
        return {}

    async def top(self, container: Container, args: Sequence[str]) -> str:
        """What the host's ``ps`` says of the container's processes."""
        if not container.running:
            raise errors.FailedPrecondition(
                f"Container {container.name} is not running", kind="container", ref=container.id
            )
        return await limits.process_table(
            self._engine.reaper, await self._life.pids(container), list(args) or ["-ef"]
        )

    # listing

    def list(self, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Containers in the order ``isula ps`` shows them."""
        wanted = params.get("filters") or {}
        last = 1 if params.get("latest") else int(params.get("last") or 0)
        found = filters.containers(list(self._table), wanted)
        if last:
            found.sort(key=lambda item: item.created_ns, reverse=True)
            found = found[:last]
        else:
            if not params.get("all") and "status" not in wanted:
                found = [item for item in found if item.running]
            found.sort(
                key=lambda item: (item.state.started_ns or item.created_ns, item.created_ns),
                reverse=True,
            )
        return [_row(container) for container in found]


class _Nobody:
    """The session of a detached exec: what it writes is dropped."""

    async def out(self, data: bytes) -> None:
        """Drops it."""

    async def err(self, data: bytes) -> None:
        """Drops it."""

    async def input(self) -> Any:
        """Never anything."""
        await asyncio.Event().wait()
        yield ("eof", None)


def _check_files(settings: Settings) -> None:
    """Refuses a log that cannot be there, and a seccomp profile that says nothing."""
    if settings.log_path:
        container_logs.check_log_path(settings.log_path)
    if settings.seccomp not in ("", "unconfined"):
        seccomp.from_json(settings.seccomp, ())


def size_of(params: Mapping[str, Any]) -> tuple[int, int] | None:
    """(rows, columns) of ``params``, or None; InvalidArgument for anything else."""
    size = params.get("size")
    if size is None:
        return None
    if (
        isinstance(size, (list, tuple))
        and len(size) == 2
        and all(isinstance(item, int) and not isinstance(item, bool) for item in size)
    ):
        return size[0] & 0xFFFF, size[1] & 0xFFFF
    raise errors.InvalidArgument("size must be rows and columns", kind="param", ref="size")


def _shown(ref: str, image: Image) -> str:
    """The image as ``ps`` shows it: the stored name of what the user typed."""
    try:
        name = reference.parse(ref).familiar
    except errors.InvalidArgument:
        return ref
    return name if name in image.names else ref


def _row(container: Container) -> dict[str, Any]:
    state = container.state
    return {
        "id": container.id,
        "name": container.name,
        "image": container.image,
        "command": " ".join(container.args),
        "created_ns": container.created_ns,
        "started_ns": state.started_ns,
        "finished_ns": state.finished_ns,
        "state": str(state.status),
        "health": "",
        "exit_code": state.exit_code,
        "pid": state.pid,
        "restart_count": state.restart_count,
        "ports": "",
        "runtime": container.runtime,
        "labels": container.settings.labels,
    }
