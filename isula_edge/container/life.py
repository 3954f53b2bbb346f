"""The life of a container: start, exit, stop, kill, exec, removal, adoption after a crash.

Nothing polls: the supervisor's exit file wakes the engine by inotify, and a pidfd of init
does where the supervisor was killed too.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import time
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.container import leftovers, logs, programs, staging
from isula_edge.container.record import Container, Status
from isula_edge.container.starting import PATIENCE_S, Starts
from isula_edge.container.streams import Attachment
from isula_edge.oci import values
from isula_edge.oci.options import check_words
from isula_edge.runtime.hooks import run_hooks
from isula_edge.runtime.supervisor import ended as supervisor_ended
from isula_edge.snapshot.base import remove_tree
from isula_edge.sys import process, syscalls
from isula_edge.sys.boot import boot_id

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from isula_edge.cgroup import Host
    from isula_edge.container.bundle import Bundles
    from isula_edge.container.table import Table
    from isula_edge.runtime.base import Bundle, ExecProcess, ExecSpec, Guest, Runtime
    from isula_edge.snapshot.base import Driver
    from isula_edge.snapshot.layers import LayerStore
    from isula_edge.sys.inotify import Watcher
    from isula_edge.sys.process import Reaper

__all__ = ["Life"]

_log = logging.getLogger(__name__)
_EXIT_UNKNOWN = 255
_EXIT_KILLED = 128 + signal.SIGKILL
_ENDING = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_EXIT_FILE_WAIT_S = 5.0
_DEFAULT_STOP_S = 10.0


class Life:
    """Everything that changes a container's state."""

    def __init__(
        self,
        table: Table,
        bundles: Bundles,
        runtimes: Mapping[str, Runtime],
        layers: LayerStore,
        reaper: Reaper,
        watcher: Watcher,
        cgroups: Host,
        state: str,
        check_program: Callable[[str], None],
        emit: Callable[[str, str, dict[str, str]], None],
    ) -> None:
        self._table = table
        self._bundles = bundles
        self._runtimes = runtimes
        self._layers = layers
        self._driver: Driver = layers.driver
        self._reaper = reaper
        self._watcher = watcher
        self._cgroups = cgroups
        self._state = state
        self._check_program = check_program
        self._emit = emit
        self._waiters: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._starts = Starts()
        self._hooks: dict[tuple[str, str], asyncio.Task[Any]] = {}
        os.makedirs(f"{state}/exits", 0o700, exist_ok=True)
        watcher.add(
            f"{state}/exits", syscalls.IN_MOVED_TO | syscalls.IN_CREATE, self._exit_file_seen
        )

    # creation and removal

    async def create_rootfs(self, container: Container) -> None:
        """Makes the writable layer."""
        if not container.settings.external_rootfs:
            lowers = self._layers.dirs(container.chain_ids)
            size = container.settings.storage_size
            await asyncio.to_thread(self._driver.create, container.id, lowers, size=size)

    def rootfs_data(self, container: Container) -> dict[str, str]:
        """What ``inspect`` shows as GraphDriver.Data."""
        if container.settings.external_rootfs:
            return {}
        return self._driver.rootfs(container.id, self._layers.dirs(container.chain_ids)).data

    async def remove(self, container: Container, *, force: bool) -> None:
        """Removes a container; a running one only with ``force``.

        The record goes first: a crash afterwards leaves data without a record, which the
        next start removes.
        """
        while True:
            if container.running:
                if not force:
                    raise errors.FailedPrecondition(
                        f"You cannot remove a running container {container.id}. Stop the "
                        "container before attempting removal or use -f",
                        kind="container",
                        ref=container.id,
                    )
                await self._kill_hard(container)
            async with container.lock:
                # somebody may have started it before the lock was ours
                if not container.running:
                    await self._remove(container)
                    return

    async def _remove(self, container: Container) -> None:
        if container.removing:
            return
        container.removing = True
        folder = self._table.dir(container)
        with contextlib.suppress(FileNotFoundError):
            await asyncio.to_thread(os.unlink, f"{folder}/container.cbor")
        self._table.forget(container)
        await asyncio.to_thread(self._remove_data, container, folder)
        self._emit("remove", container.id, self._attributes(container))

    def _remove_data(self, container: Container, folder: str) -> None:
        self._bundles.unmount_shm(container)
        if not container.settings.external_rootfs:
            self._driver.remove(container.id)
        remove_tree(folder)

    # start

    async def start(self, container: Container, *, attach: bool = False) -> Attachment | None:
        """Starts a container; running already is fine (without attach).

        With ``attach`` the connection to its streams exists before its first instruction.
        Raises CommandNotFound, CommandNotExecutable, or what the runtime said.
        """
        async with container.lock:
            if container.removing:
                raise errors.NotFound(f"No such container:{container.name}", kind="container")
            if container.state.status is Status.PAUSED:
                raise errors.FailedPrecondition(
                    f"cannot start a paused container {container.name}, try unpause instead",
                    kind="container",
                    ref=container.id,
                )
            if container.running:
                if attach:
                    return self._attachment(container, self._bundles.load(container))
                return None
            return await self._starts.run(container, self._start(container, attach))

    async def _start(self, container: Container, attach: bool) -> Attachment | None:
        runtime = self.runtime(container.runtime)
        container.state.status = Status.STARTING
        container.ended = asyncio.Event()
        container.stop_deadline = asyncio.Event()
        bundle: Bundle | None = None
        attachment = None
        try:
            bundle = await asyncio.to_thread(self._prepare, container)
            await runtime.create(bundle)
            if attach:
                attachment = self._attachment(container, bundle)
            started = await runtime.start(bundle)
            await asyncio.to_thread(staging.unstage, bundle.run_dir)
            state = container.state
            state.pid, state.start_ticks = started.init.pid, started.init.start_ticks
            state.boot = started.init.boot
            state.status, state.error, state.exit_code = Status.RUNNING, "", 0
            state.started_ns, state.finished_ns = time.time_ns(), 0
            state.oom_killed = state.manually_stopped = False
            await asyncio.to_thread(self._table.save, container)
        except BaseException as error:
            if attachment is not None:
                attachment.close()
            await self._undo_start(container, runtime, bundle, error)
            raise
        self._emit("start", container.id, self._attributes(container, pid=str(state.pid)))
        self._spawn(self._watch(container, bundle))
        await self._run_hooks(container, bundle, "poststart", "running", state.pid)
        return attachment

    async def _run_hooks(
        self, container: Container, bundle: Bundle, kind: str, status: str, pid: int
    ) -> None:
        if self.runtime(container.runtime).runs_hooks:
            return
        key = container.id, kind
        hooks = asyncio.create_task(run_hooks(bundle, kind, status, pid, self._reaper))
        self._hooks[key] = hooks
        try:
            for problem in await hooks:
                _log.warning("container %s: %s", container.name, problem)
        except asyncio.CancelledError:
            if key in self._hooks:
                raise
            _log.warning("container %s: its %s hooks were ended", container.name, kind)
        finally:
            self._hooks.pop(key, None)

    async def _delete(self, container: Container, runtime: Runtime, bundle: Bundle) -> None:
        """Has the runtime forget a container, with the hooks that it may run for that."""
        key = container.id, "poststop"
        work = asyncio.create_task(runtime.delete(bundle))
        if runtime.runs_hooks:
            self._hooks[key] = work
        try:
            await work
        except (errors.EngineError, OSError) as error:
            _log.warning("container %s: %s", container.name, error)
        finally:
            self._hooks.pop(key, None)

    async def _end_hooks(self, container: Container, kind: str, patience_s: float) -> None:
        """Ends the hooks ``kind`` that still run, for one who wants the container to end."""
        hooks = self._hooks.get((container.id, kind))
        if hooks is not None:
            await asyncio.wait({hooks}, timeout=patience_s)
            if self._hooks.pop((container.id, kind), None) is not None:
                hooks.cancel()

    def _prepare(self, container: Container) -> Bundle:
        settings = container.settings
        run_dir = self._bundles.run_dir(container)
        staging.clear(run_dir)
        os.makedirs(run_dir, 0o711)
        if container.pod:
            staging.check_shared(settings)
        with staging.users(settings) as ids:
            if settings.external_rootfs:
                rootfs = settings.external_rootfs
            else:
                lowers = self._layers.dirs(container.chain_ids)
                # a container of --rm does not outlive a crash of the machine: no need to sync
                rootfs = self._driver.mount(
                    container.id, lowers, volatile=settings.rm, ids=ids
                ).path
            if ids is not None and container.runtime == "lxc":
                staging.check_search(rootfs, ids)
                staging.check_search(run_dir, ids)
            self._bundles.mount_shm(container)
            mounts = staging.stage(settings, run_dir, self._layers, ids)
            bundle = self._bundles.prepare(container, rootfs, mounts, ids)
        described = bundle.spec["process"]
        if not described["args"]:
            raise errors.InvalidArgument("No command specified", kind="container", ref=container.id)
        programs.check(rootfs, bundle.spec, self._check_program)
        os.symlink(f"{bundle.dir}/config.json", f"{bundle.run_dir}/config.json")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self._state}/exits/{container.id}")
        return bundle

    async def _undo_start(
        self,
        container: Container,
        runtime: Runtime,
        bundle: Bundle | None,
        error: BaseException,
    ) -> None:
        state = container.state
        if bundle is not None:
            with contextlib.suppress(errors.EngineError, OSError):
                await runtime.delete(bundle)
        with contextlib.suppress(OSError):
            os.unlink(f"{self._state}/exits/{container.id}")
        with contextlib.suppress(OSError):
            await asyncio.to_thread(staging.clear, self._bundles.run_dir(container))
        await asyncio.to_thread(self._unmount, container)
        state.status = Status.EXITED
        state.pid = 0
        state.error = str(error)
        state.exit_code = getattr(error, "exit_status", errors.EXIT_ENGINE)
        if isinstance(error, asyncio.CancelledError):
            state.error, state.exit_code = "ended while it was being started", _EXIT_KILLED
        elif state.exit_code not in (errors.EXIT_NOT_EXECUTABLE, errors.EXIT_NOT_FOUND):
            state.exit_code = errors.EXIT_ENGINE
        state.finished_ns = time.time_ns()
        container.ended.set()
        with contextlib.suppress(errors.EngineError, OSError):
            await asyncio.to_thread(self._table.save, container)

    def _unmount(self, container: Container) -> None:
        if not container.settings.external_rootfs:
            self._driver.unmount(container.id)
        self._bundles.unmount_shm(container)

    # exit

    def _exit_file_seen(self, name: str) -> None:
        names = [name] if name else list(self._waiters)
        for item in names:
            event = self._waiters.get(item)
            if event is not None:
                event.set()

    async def _watch(self, container: Container, bundle: Bundle) -> None:
        """Waits for the end of a running container, then cleans up behind it."""
        guest = self._guest(container)
        if guest is not None:
            # what its supervisor supervises is a copy of the streams at most
            await guest.gone(bundle)
            await self._ended(container, bundle)
            return
        event = self._waiters.setdefault(container.id, asyncio.Event())
        path = f"{self._state}/exits/{container.id}"
        # the supervisor tells of the end; where it was killed too, somebody has to look
        orphaned = functools.partial(supervisor_ended, bundle)
        gone = process.gone(container.state.init(), orphaned)
        try:
            while not os.path.exists(path):
                event.clear()
                waiter = asyncio.ensure_future(event.wait())
                waiting: set[asyncio.Future[Any]] = {waiter, gone}
                try:
                    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                    # an overflow of events wakes everybody: only the file says that it ended
                    if waiter.done() or os.path.exists(path):
                        continue
                    # init has ended; its supervisor tells why, unless that was killed too
                    await asyncio.wait({waiter}, timeout=_EXIT_FILE_WAIT_S)
                    if not waiter.done():
                        break
                finally:
                    waiter.cancel()
        finally:
            gone.cancel()
            self._waiters.pop(container.id, None)
        await self._ended(container, bundle)

    async def _ended(self, container: Container, bundle: Bundle) -> None:
        runtime = self.runtime(container.runtime)
        code = None
        with contextlib.suppress(errors.EngineError, OSError):
            code = await runtime.exit_code(bundle)
        if container.settings.log_path:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(logs.terminate, bundle.log_path)
        state = container.state
        state.oom_killed = self._oom(container, bundle)
        await self._delete(container, runtime, bundle)
        await self._run_hooks(container, bundle, "poststop", "stopped", 0)
        await asyncio.to_thread(self._unmount, container)
        state.status = Status.EXITED
        state.exit_code = _EXIT_UNKNOWN if code is None else code
        state.pid = 0
        state.finished_ns = time.time_ns()
        with contextlib.suppress(OSError):
            staging.clear(bundle.run_dir)
        with contextlib.suppress(OSError):
            os.unlink(f"{self._state}/exits/{container.id}")
        try:
            await asyncio.to_thread(self._table.save, container, urgent=True)
        except (errors.EngineError, OSError) as error:
            _log.error("cannot record the end of container %s: %s", container.name, error)
        self._emit("die", container.id, self._attributes(container, exitCode=str(state.exit_code)))
        container.ended.set()
        if container.settings.rm and not container.restarting:
            with contextlib.suppress(errors.EngineError):
                await self.remove(container, force=False)

    def _oom(self, container: Container, bundle: Bundle) -> bool:
        """Whether the OOM killer was there: by the cgroup, or the copy that a runtime left."""
        for path in (
            *self._cgroups.oom_files(self._bundles.cgroup(container)),
            bundle.run_dir + "/oom",
        ):
            with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
                counts = [line for line in file if line.startswith("oom_kill ")]
                if any(line.strip() != "oom_kill 0" for line in counts):
                    return True
        return False

    # stop and kill

    async def kill(self, container: Container, text: str) -> None:
        """Sends a signal; FailedPrecondition when it does not run."""
        number = values.parse_signal(text)
        if await self._starts.settle(container, PATIENCE_S if number in _ENDING else None):
            return
        if not container.running:
            raise errors.FailedPrecondition(
                f"Cannot kill container: Container {container.id} is not running",
                kind="container",
                ref=container.id,
            )
        container.state.manually_stopped = True
        living = await self.signal(container, number)
        self._emit("kill", container.id, self._attributes(container, signal=str(number)))
        if number == signal.SIGKILL:
            await self._killed(container, living)

    async def stop(self, container: Container, timeout_s: float | None, *, force: bool) -> None:
        """Stop signal, then SIGKILL after the time-out (-1: never); not running is fine.

        A second stop with a shorter time-out shortens the first one's (case A28).
        """
        seconds = timeout_s
        if seconds is None:
            seconds = float(container.settings.stop_timeout or _DEFAULT_STOP_S)
        patience = None if seconds < 0 else max(seconds, PATIENCE_S)
        if await self._starts.settle(container, PATIENCE_S if force else patience):
            return
        if not container.running:
            return
        container.state.manually_stopped = True
        if force or seconds == 0:
            await self._kill_hard(container)
        else:
            await self.signal(container, _stop_signal(container))
            await self._thaw(container)
            try:
                await asyncio.wait_for(container.ended.wait(), None if seconds < 0 else seconds)
            except TimeoutError:
                await self._kill_hard(container)
        self._emit("stop", container.id, self._attributes(container))

    async def interrupt(self, container: Container) -> None:
        """Ends a start that hangs; one that is about to succeed does."""
        if not await self._starts.settle(container, PATIENCE_S):
            await self._end_hooks(container, "poststart", PATIENCE_S)

    async def _kill_hard(self, container: Container) -> None:
        if await self._starts.settle(container, PATIENCE_S):
            return
        if container.running:
            living = await self.signal(container, signal.SIGKILL)
            await self._killed(container, living)

    async def _killed(self, container: Container, living: bool) -> None:
        """Waits for the end of a container that was sent SIGKILL.

        One that was dead before (``living`` is False) may have hooks that hang.
        """
        if not living:
            await self._end_hooks(container, "poststop", 0)
        await self._thaw(container)
        await container.ended.wait()
        await self._end_hooks(container, "poststart", PATIENCE_S)

    async def signal(self, container: Container, number: int) -> bool:
        """Sends init a signal; False when it has ended."""
        guest = self._guest(container)
        if guest is None:
            return process.signal_process(container.state.init(), number)
        return await guest.kill(self._bundles.load(container), number)

    async def _thaw(self, container: Container) -> None:
        """A frozen process does not die on cgroup v1 until it is thawed (case A22)."""
        if container.state.status is Status.PAUSED:
            with contextlib.suppress(OSError, KeyError, errors.EngineError):
                await self._freeze(container, False)

    async def _freeze(self, container: Container, frozen: bool) -> None:
        guest = self._guest(container)
        if guest is None:
            self._cgroups.freeze(self._bundles.cgroup(container), frozen)
        else:
            await guest.freeze(self._bundles.load(container), frozen)

    async def pause(self, container: Container, frozen: bool) -> None:
        """Freezes or thaws all processes."""
        wanted = Status.RUNNING if frozen else Status.PAUSED
        if container.state.status is not wanted:
            if not container.running:
                text = f"Container {container.name} is not running"
            elif frozen:
                text = f"Container {container.name} is already paused"
            else:
                text = f"Container {container.name} is not paused"
            raise errors.FailedPrecondition(text, kind="container", ref=container.id)
        try:
            await self._freeze(container, frozen)
            if container.state.status is not wanted:
                raise errors.FailedPrecondition(
                    f"Container {container.name} has ended", kind="container", ref=container.id
                )
        except KeyError:
            raise errors.Unimplemented(
                "the kernel has no freezer cgroup, containers cannot be paused", kind="feature"
            ) from None
        container.state.status = Status.PAUSED if frozen else Status.RUNNING
        await asyncio.to_thread(self._table.save, container)
        self._emit("pause" if frozen else "unpause", container.id, self._attributes(container))

    # exec and attach

    @staticmethod
    def refuse_exec(container: Container) -> None:
        """Raises FailedPrecondition for a container that does not run or is paused."""
        if container.state.status is not Status.RUNNING:
            word = "paused" if container.state.status is Status.PAUSED else "not running"
            raise errors.FailedPrecondition(
                f"Container {container.name} is {word}", kind="container", ref=container.id
            )

    async def exec(
        self, container: Container, spec: ExecSpec
    ) -> tuple[ExecProcess, asyncio.Future[int]]:
        """Runs a process in a running container: the process and a future of its exit code."""
        self.refuse_exec(container)
        if container.runtime != "lxc":
            # the others are told by JSON
            check_words("the command", (*spec.argv, *spec.env, spec.cwd))
        runtime = self.runtime(container.runtime)
        bundle = self._bundles.load(container)
        began = self._reaper.moment()
        running = await runtime.exec(bundle, container.state.init(), spec)
        if running.control is not None:
            return running, running.control.exited
        return running, self._reaper.watch(running.pid, began)

    def attach(self, container: Container) -> Attachment:
        """A connection to the streams of a running container."""
        if container.state.status is Status.PAUSED:
            text = "You cannot attach to a paused container, unpause it first"
        elif not container.running:
            text = "You cannot attach to a stopped container, start it first"
        else:
            return self._attachment(container, self._bundles.load(container))
        raise errors.FailedPrecondition(text, kind="container", ref=container.id)

    def _attachment(self, container: Container, bundle: Bundle) -> Attachment:
        return Attachment(bundle, self._guest(container))

    async def reopen_log(self, container: Container) -> None:
        """Goes on with a new file where the log was, which was renamed (see logs.reopen).

        Raises FailedPrecondition when it does not run, and makes no file then.
        """
        async with container.lock:
            if not container.running:
                raise errors.FailedPrecondition(
                    f"Container {container.name} is not running", kind="container", ref=container.id
                )
            await logs.reopen(self._bundles.load(container), self._watcher, container.ended)

    async def pids(self, container: Container) -> list[int]:
        """Every process of the container, as the host numbers them."""
        guest = self.machine(container.runtime)
        if guest is not None:
            return await guest.pids(self._bundles.load(container))
        return self._cgroups.pids(self._bundles.cgroup(container))

    # after a restart of the engine

    async def adopt(self) -> None:
        """Takes over running containers and records the end of those that ended meanwhile."""
        await self._end_leftovers()
        for container in self._table:
            if container.state.status in (Status.CREATED, Status.EXITED):
                continue
            bundle = self._bundles.load(container)
            container.ended = asyncio.Event()
            exited = os.path.exists(f"{self._state}/exits/{container.id}")
            exited = exited and self._guest(container) is None
            if not exited and await self._alive(container, bundle):
                staging.unstage(bundle.run_dir)
                self._spawn(self._watch(container, bundle))
                continue
            if container.state.boot == boot_id() and not exited:
                container.state.error = "ended while the engine was down, exit code unknown"
            await self._ended(container, bundle)
        for container in self._table:
            if container.settings.rm and not container.running:
                with contextlib.suppress(errors.EngineError):
                    await self.remove(container, force=False)

    async def _end_leftovers(self) -> None:
        """Ends starts that a crash has interrupted: no record says that they happened."""
        known = {str(container.id): container for container in self._table}
        damaged = self._table.unreadable()
        for runtime, container_id in leftovers.run_dirs(self._state, self._runtimes):
            container = known.get(container_id)
            if container is None:
                if container_id in damaged:
                    continue
                bundle = self._bundles.unknown(container_id, runtime)
            elif container.state.status in (Status.CREATED, Status.EXITED):
                bundle = self._bundles.load(container)
            else:
                continue
            own = self.runtime(runtime).guest is None
            leftovers.end_processes(container_id, bundle.cgroup, self._cgroups, shims=own)
            with contextlib.suppress(errors.EngineError, OSError):
                await self.runtime(runtime).delete(bundle)
            with contextlib.suppress(OSError):
                if container is None:
                    self._driver.unmount(container_id)
                else:
                    self._unmount(container)
            with contextlib.suppress(OSError):
                staging.clear(bundle.run_dir)
            with contextlib.suppress(OSError):
                os.unlink(f"{self._state}/exits/{container_id}")

    async def _alive(self, container: Container, bundle: Bundle) -> bool:
        guest = self._guest(container)
        if guest is None:
            return container.state.init().alive()
        try:
            return container.state.boot == boot_id() and await guest.alive(bundle)
        except (errors.EngineError, OSError) as error:
            _log.warning("container %s cannot be taken over: %s", container.name, error)
            return False

    def machine(self, runtime: str) -> Guest | None:
        """The guest of a runtime whose containers are in virtual machines; None for others."""
        guest = self.runtime(runtime).guest
        return guest if guest is not None and guest.vm else None

    def _guest(self, container: Container) -> Guest | None:
        return self.runtime(container.runtime).guest

    def runtime(self, name: str) -> Runtime:
        """The driver called ``name``."""
        found = self._runtimes.get(name)
        if found is None:
            known = ", ".join(sorted(self._runtimes))
            raise errors.InvalidArgument(
                f"runtime {name} is not supported",
                kind="runtime",
                ref=name,
                hint=f"one of {known}, or add it to runtimes in daemon.json",
            )
        return found

    @staticmethod
    def _attributes(container: Container, **extra: str) -> dict[str, str]:
        return {"image": container.image, "name": container.name, **extra}

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("background work failed", exc_info=task.exception())


def _stop_signal(container: Container) -> int:
    """The signal that asks a container to end; what an image says may be none."""
    if container.settings.stop_signal:
        return values.parse_signal(container.settings.stop_signal)
    word = container.image_config.get("StopSignal") or "TERM"
    try:
        return values.parse_signal(word)
    except errors.InvalidArgument:
        _log.warning("the stop signal of image %s is none: %r", container.image, word)
        return signal.SIGTERM
