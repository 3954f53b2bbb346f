"""The driver of containerd's shims (runtime version 2): kata, runc's, and any other.

The shim is the parent of the container, which may be in a virtual machine: everything goes
through calls to the shim, nothing through pids, /proc and cgroups of the host.  conmon has
the streams and the log, as with other runtimes; what it supervises is a relay that copies
from the shim's FIFOs and ends with them (`shim_streams`).  The exit code is the shim's.

In the run directory, beside what conmon has there, are ``shim.json`` (where the server
serves, and who it is), ``relay`` (who copies), ``rootfs``, ``log`` (what the shim writes),
``io/`` and one ``exec-ID/`` for each exec.

The containers of a pod share a server.  So it is killed only when it hangs, known by its own
pid, and the program's ``delete`` is called only when nobody serves the address any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import logging
import os
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.cgroup.stats import Details, GroupStats
from isula_edge.runtime import shim_messages, shim_process, shim_streams
from isula_edge.runtime.base import ExecProcess, ExecSpec, Guest, Started, process_document
from isula_edge.runtime.program import program_error
from isula_edge.runtime.shim_events import Event, Events
from isula_edge.runtime.shim_exec import PREFIX, Exec, drop_output
from isula_edge.runtime.shim_task import CREATE_S, Gone, Task
from isula_edge.sys import atomic, process, syscalls, trees
from isula_edge.sys.boot import boot_id

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from isula_edge.runtime.base import Bundle
    from isula_edge.runtime.shim_messages import Address, AnyValue
    from isula_edge.runtime.supervisor import Supervisor
    from isula_edge.sys.inotify import Watcher
    from isula_edge.sys.process import Identity, Reaper

__all__ = ["POD_ANNOTATION", "ShimRuntime"]

_log = logging.getLogger(__name__)
POD_ANNOTATION = "io.kubernetes.cri.sandbox-id"
"""Names the container whose server, and with kata whose virtual machine, is shared."""
_SUN_PATH = 108
_DRAIN_S = 5.0
_STATE_S = 5.0
_SIGNAL_S = 10.0
_SETTLE_S = 2.0
_KILLED_S = 30.0
_BACK_OFF_S = 0.05
_LONGEST_S = 2.0
_REFUSALS = 20
_EVENT_S = 3.0
_KILLED = 128 + signal.SIGKILL
_ALIVE = (shim_messages.RUNNING, shim_messages.PAUSED, shim_messages.PAUSING)
_VM_NAMESPACES = {"network": "--net", "pid": "--pid", "ipc": "--ipc", "uts": "--uts"}


class ShimRuntime:
    """Runs bundles with one shim program.  It is its own :class:`Guest`.

    ``options`` are containerd's for the runtime (``ConfigPath``, ``BinaryName`` …); with ``vm``
    the container is in a virtual machine.  ``timeout_s`` is for Create, 0 being the default.
    """

    runs_hooks = True

    def __init__(
        self,
        name: str,
        program: str,
        supervisor: Supervisor,
        reaper: Reaper,
        watcher: Watcher,
        state: str,
        *,
        options: Mapping[str, Any] | None = None,
        vm: bool = False,
        timeout_s: float = 0.0,
        systemd_cgroup: bool = False,
    ) -> None:
        self.name = name
        self.program = program
        self.vm = vm
        self.guest: Guest | None = self
        self._supervisor, self._reaper, self._watcher = supervisor, reaper, watcher
        self._state = f"{state}/{name}"
        self._given = dict(options or {})
        self._systemd_cgroup = systemd_cgroup
        self._create_s = timeout_s or CREATE_S
        self._tasks: dict[str, Task] = {}
        self._codes: dict[str, int] = {}
        self._killed: set[str] = set()
        self._exits: dict[str, asyncio.Event] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._events: Events | None = None

    # life

    async def create(self, bundle: Bundle) -> None:
        """Starts the relay under conmon, the shim's server, and has it make the container."""
        self._check_namespaces(bundle)
        found = shim_process.find_shim(self.program)
        run = bundle.run_dir
        fifos = shim_streams.make(
            shim_streams.folder(bundle), stdin=bundle.stdin_open, terminal=bundle.terminal
        )
        os.mkfifo(f"{shim_streams.folder(bundle)}/{shim_streams.GATE}", 0o600)
        atomic.write(f"{run}/launch", shim_streams.launcher(bundle), durable=False)
        relayed = replace(bundle, terminal=False)
        # by the shell, since /run may be mounted noexec
        relay = await self._supervisor.launch(relayed, "/bin/sh", (f"{run}/launch",))
        process.note(
            f"{run}/relay", process.identify(relay), self._supervisor.identity(bundle)
        )
        task = await self._serve(bundle, found)
        try:
            await task.create(
                bundle.id,
                run,
                terminal=bundle.terminal,
                stdin=fifos.stdin,
                stdout=fifos.stdout,
                stderr=fifos.stderr,
                options=self._options(found),
                timeout_s=self._create_s,
            )
        except errors.EngineError as error:
            raise self._explained(bundle, error) from error
        await self._note_server(bundle, task)

    async def start(self, bundle: Bundle) -> Started:
        """Runs the process; its pid is the shim's idea of it."""
        task = await self._task(bundle)
        self._exits[bundle.id] = asyncio.Event()
        try:
            pid = await task.start(bundle.id)
        except errors.EngineError as error:
            raise self._explained(bundle, error) from error
        init = process.identify(pid) or process.Identity(pid, 0, boot_id())
        return Started(init, self._supervisor.identity(bundle))

    async def exit_code(self, bundle: Bundle) -> int | None:
        """What the shim saw; of a shim that has died what its clean-up says."""
        code = self._codes.get(bundle.id)
        if code is None and self._address(bundle) is not None:
            try:
                task = await self._task(bundle)
                code = (await task.wait(bundle.id, timeout_s=_DRAIN_S)).exit_status
            except Gone:
                code = await self._clear_dead(bundle)
            except errors.EngineError as error:
                _log.warning("container %s: no exit code: %s", bundle.name, error)
        await self._drained(bundle)
        return code

    async def delete(self, bundle: Bundle) -> None:
        """Ends what is left of it, the server if it was the last, and the relay."""
        address = self._address(bundle)
        if address is not None:
            try:
                await self._delete(bundle)
            except errors.EngineError as error:
                _log.warning("container %s: %s", bundle.name, error)
                if isinstance(error, errors.DeadlineExceeded):
                    await self._end_server(bundle)
                await self._clear_dead(bundle)
        task = self._tasks.pop(bundle.id, None)
        if task is not None:
            await task.close()
        await self._drained(bundle)
        for found in process.noted(f"{bundle.run_dir}/relay"):
            future = process.gone(found)
            # conmon writes its exit file
            await asyncio.wait({future}, timeout=_SETTLE_S)
            future.cancel()
            if found.alive():
                await trees.end_tree(found)
        self._codes.pop(bundle.id, None)
        self._exits.pop(bundle.id, None)
        self._killed.discard(bundle.id)

    async def _delete(self, bundle: Bundle) -> None:
        task = await self._task(bundle)
        with contextlib.suppress(errors.NotFound):
            if bundle.id not in self._codes:
                await self._end_task(task, bundle)
            await task.delete(bundle.id)
        await task.shutdown(bundle.id)
        self._forget(bundle)

    @staticmethod
    async def _end_task(task: Task, bundle: Bundle) -> None:
        """Kills what may run: kata would drop it at Delete, runc refuses that."""
        state = await task.state(bundle.id, timeout_s=_SIGNAL_S)
        if state.status in _ALIVE:
            await task.kill(bundle.id, signal.SIGKILL, all=True)
            if state.status != shim_messages.RUNNING:
                await task.resume(bundle.id)
            await task.wait(bundle.id, timeout_s=_KILLED_S)

    async def _clear_dead(self, bundle: Bundle) -> int | None:
        """Has the shim's program remove what its dead server left; the exit code, or None.

        A server that serves others goes on: its socket is left alone.
        """
        address = self._address(bundle)
        try:
            shim = self._shim(shim_process.find_shim(self.program))
            if address is not None and await _serves(address):
                address = None
            answer = await shim_process.delete(
                self._reaper, shim, bundle.id, bundle.run_dir, address=address
            )
        except errors.EngineError as error:
            _log.warning("container %s: %s", bundle.name, error)
            return None
        self._forget(bundle)
        self._codes[bundle.id] = answer.exit_status
        return answer.exit_status

    async def _end_server(self, bundle: Bundle) -> None:
        """Kills a server that hangs, whatever else it serves."""
        for found in process.noted(f"{bundle.run_dir}/server"):
            process.signal_process(found, signal.SIGKILL)
            return
        # it was never asked who it is: then it is this container's alone, or its first
        shim = self._shim(self.program)
        await asyncio.to_thread(shim_process.end_server, shim, bundle.id)

    # exec

    async def exec(self, bundle: Bundle, init: Identity, spec: ExecSpec) -> ExecProcess:
        """Adds a process by the shim; its streams are FIFOs."""
        del init
        task = await self._task(bundle)
        run = Exec(task, bundle, spec.terminal, self._spawn)
        try:
            return await run.run(spec, process_document(bundle, spec))
        except errors.EngineError as error:
            raise self._explained(bundle, error, spec.argv[0]) from error

    # what only the shim can do

    async def create_sandbox(self, bundle: Bundle) -> None:
        """Starts a server and has it make and run the sandbox."""
        found = shim_process.find_shim(self.program)
        task = await self._serve(bundle, found)
        try:
            await task.create(
                bundle.id, bundle.run_dir, options=self._options(found), timeout_s=self._create_s
            )
            await self._note_server(bundle, task)
            await task.start(bundle.id)
        except errors.EngineError as error:
            raise self._explained(bundle, error) from error

    def gone(self, bundle: Bundle) -> asyncio.Future[None]:
        """Ends with the container, whether or not its output has ended before."""
        return asyncio.create_task(self._over(bundle))

    async def _over(self, bundle: Bundle) -> None:
        event = self._exits.setdefault(bundle.id, asyncio.Event())
        if not os.path.isdir(shim_streams.folder(bundle)):
            # a sandbox has no streams
            await self._waited(bundle)
            return
        watch = self._watcher.add(
            shim_streams.folder(bundle), syscalls.IN_CREATE, lambda name: self._closed(bundle, name)
        )
        try:
            if os.path.exists(f"{shim_streams.folder(bundle)}/{shim_streams.CLOSED}"):
                self._closed(bundle, shim_streams.CLOSED)
            code = await self._waited(bundle)
            if code is not None:
                self._codes[bundle.id] = code
            if code == _KILLED and bundle.id not in self._killed and self._events is not None:
                # events come in their order: what tells of the OOM killer is before the exit
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(event.wait(), _EVENT_S)
        finally:
            self._watcher.remove(watch)

    async def _waited(self, bundle: Bundle) -> int | None:
        """The exit code; None when the shim has died or knows no such container.

        Whatever else goes wrong is tried again: a shim that is slow is not dead.
        """
        for refusals in itertools.count():
            try:
                task = await self._task(bundle)
            except Gone:
                return None
            except errors.EngineError as error:
                _log.warning("container %s: %s", bundle.name, error)
            else:
                try:
                    return (await task.wait(bundle.id)).exit_status
                except errors.NotFound:
                    return None
                except errors.EngineError as error:
                    # the next connection tells whether it was the shim or just this one
                    _log.info("container %s: %s", bundle.name, error)
                    if self._tasks.get(bundle.id) is task:
                        del self._tasks[bundle.id]
                    await task.close()
                    if isinstance(error, Gone) and refusals >= _REFUSALS:
                        return None
            await asyncio.sleep(min(_BACK_OFF_S * 2**min(refusals, 8), _LONGEST_S))
        return None

    async def _drained(self, bundle: Bundle) -> None:
        """Waits until the relay has copied everything; what holds a FIFO for ever is cut."""
        relay = next(iter(process.noted(f"{bundle.run_dir}/relay")), None)
        if relay is None or not relay.alive():
            return
        # a relay that has just begun may not be at its gate yet
        released = shim_streams.release(bundle)
        future = process.gone(relay)
        try:
            await asyncio.wait({future}, timeout=_DRAIN_S if released else _BACK_OFF_S)
            if not released and shim_streams.release(bundle):
                await asyncio.wait({future}, timeout=_DRAIN_S)
        finally:
            future.cancel()
        if relay.alive():
            await trees.end_tree(relay)

    def _closed(self, bundle: Bundle, name: str) -> None:
        if name in ("", shim_streams.CLOSED):
            self._spawn(self._try(bundle, "close_io"))

    async def alive(self, bundle: Bundle) -> bool:
        """Whether the shim says that it runs; execs of an earlier engine are looked after.

        One that does not answer may be slow: then True, and :meth:`gone` tells more.
        """
        if self._address(bundle) is None:
            return False
        try:
            task = await self._task(bundle)
            state = await task.state(bundle.id, timeout_s=_STATE_S)
        except (Gone, errors.NotFound):
            return False
        except errors.EngineError as error:
            _log.warning("container %s: %s", bundle.name, error)
            return True
        if state.status not in _ALIVE:
            return False
        for name in os.listdir(bundle.run_dir):
            if name.startswith(PREFIX) and os.path.isdir(f"{bundle.run_dir}/{name}"):
                self._spawn(drop_output(task, bundle, name))
        return True

    async def kill(self, bundle: Bundle, number: int) -> bool:
        """Sends init a signal, SIGKILL every process."""
        if number == signal.SIGKILL:
            self._killed.add(bundle.id)
        try:
            task = await self._task(bundle)
            await task.kill(
                bundle.id, number, all=number == signal.SIGKILL, timeout_s=_SIGNAL_S
            )
        except (errors.NotFound, Gone):
            return False
        except errors.DeadlineExceeded as error:
            _log.warning("container %s: %s", bundle.name, error)
            if number == signal.SIGKILL:
                # without its server the container ends, or is ended by the clean-up
                await self._end_server(bundle)
        return True

    async def freeze(self, bundle: Bundle, frozen: bool) -> None:
        """Pause or Resume."""
        task = await self._task(bundle)
        await (task.pause(bundle.id) if frozen else task.resume(bundle.id))

    async def update(self, bundle: Bundle, resources: Mapping[str, Any]) -> None:
        """Other limits, in place."""
        await (await self._task(bundle)).update(bundle.id, resources)

    async def stats(self, bundle: Bundle) -> GroupStats | None:
        """What the shim counts."""
        try:
            found = await (await self._task(bundle)).stats(bundle.id)
        except (errors.NotFound, Gone):
            return None
        return _group_stats(found)

    async def pids(self, bundle: Bundle) -> list[int]:
        """What the shim says; of a virtual machine those are its own processes."""
        return sorted(set(await (await self._task(bundle)).pids(bundle.id)))

    def resize(self, bundle: Bundle, rows: int, columns: int) -> None:
        """ResizePty, without waiting."""
        self._spawn(self._try(bundle, "resize", width=columns, height=rows))

    # the server

    async def _serve(self, bundle: Bundle, program: str) -> Task:
        """Starts the server, or finds that of the pod: a connection to it."""
        run = bundle.run_dir
        # kata takes the root from there, whatever the document says
        os.symlink(bundle.spec["root"]["path"], f"{run}/rootfs")
        await self._listen()
        address = await shim_process.start(self._reaper, self._shim(program), bundle.id, run)
        atomic.write(f"{run}/shim.json", json.dumps(address._asdict()).encode(), durable=False)
        try:
            return await self._task(bundle)
        except errors.EngineError:
            # nobody can ever end it otherwise
            await self._end_server(bundle)
            raise

    def _shim(self, program: str) -> shim_process.Shim:
        return shim_process.Shim(
            program,
            events=self._events.path if self._events else "",
            config=str(self._given.get("ConfigPath") or ""),
        )

    def _options(self, program: str) -> AnyValue | None:
        """What Create gets: runc's state is ours, so that engines do not share it."""
        if "-runc-" not in os.path.basename(program):
            return None
        given = self._given
        return shim_messages.RuncOptions(
            no_pivot_root=bool(given.get("NoPivotRoot")),
            no_new_keyring=bool(given.get("NoNewKeyring")),
            shim_cgroup=str(given.get("ShimCgroup") or ""),
            io_uid=int(given.get("IoUid") or 0),
            io_gid=int(given.get("IoGid") or 0),
            binary_name=str(given.get("BinaryName") or ""),
            root=str(given.get("Root") or f"{self._state}/.root"),
            criu_path=str(given.get("CriuPath") or ""),
            systemd_cgroup=bool(given.get("SystemdCgroup", self._systemd_cgroup)),
        ).pack()

    async def _task(self, bundle: Bundle) -> Task:
        """The connection for this container; Gone when its server does not serve."""
        held = self._tasks.get(bundle.id)
        if held is not None and not held.closed.done():
            return held
        address = self._address(bundle)
        if address is None:
            raise Gone(f"container {bundle.name} has no shim", kind="container", ref=bundle.id)
        await self._listen()
        task = await Task.connect(address, shim=f"runtime {self.name}")
        other = self._tasks.get(bundle.id)
        if other is not None and other is not held and not other.closed.done():
            await task.close()
            return other
        self._tasks[bundle.id] = task
        return task

    async def _note_server(self, bundle: Bundle, task: Task) -> None:
        with contextlib.suppress(errors.EngineError):
            pid = (await task.connect_info(bundle.id, timeout_s=_STATE_S)).shim_pid
            process.note(f"{bundle.run_dir}/server", process.identify(pid) if pid > 1 else None)

    @staticmethod
    def _address(bundle: Bundle) -> Address | None:
        """Where the server of ``bundle`` serves; None without one.

        What the shim itself writes down is for an engine that was killed before it could.
        """
        try:
            with open(f"{bundle.run_dir}/shim.json", encoding="utf-8") as file:
                found = json.load(file)
            return shim_messages.Address(int(found["version"]), str(found["address"]))
        except (OSError, ValueError, KeyError, TypeError):
            pass
        try:
            with open(f"{bundle.run_dir}/address", "rb") as file:
                return shim_process.parse_answer(file.read(4096))
        except (OSError, ValueError):
            return None

    @staticmethod
    def _forget(bundle: Bundle) -> None:
        """The server of ``bundle`` is somebody else's now, or nobody's."""
        for name in ("shim.json", "address", "server"):
            with contextlib.suppress(OSError):
                os.unlink(f"{bundle.run_dir}/{name}")

    # events

    async def _listen(self) -> None:
        """Serves the socket of events; shims find it again after a restart of the engine."""
        if self._events is not None:
            return
        os.makedirs(self._state, 0o711, exist_ok=True)
        path = f"{self._state}/events.sock"
        if len(os.fsencode(path)) >= _SUN_PATH:
            path = f"/run/isula-{hashlib.sha256(os.fsencode(self._state)).hexdigest()[:16]}.sock"
        events = Events(path, self._event)
        try:
            self._events = events
            await events.start()
        except errors.EngineError as error:
            self._events = None
            _log.warning("runtime %s: who runs out of memory is not told: %s", self.name, error)

    def _event(self, event: Event) -> None:
        run = f"{self._state}/{event.container_id}"
        if len(event.container_id) != 64 or not event.container_id.isalnum():
            return
        if event.topic == "/tasks/oom":
            with contextlib.suppress(OSError):
                atomic.write(f"{run}/oom", b"oom_kill 1\n", durable=False)
        elif (
            isinstance(event.body, shim_messages.TaskExit)
            and event.body.id == event.container_id
            and event.container_id in self._exits
        ):
            self._exits[event.container_id].set()

    # small things

    def _check_namespaces(self, bundle: Bundle) -> None:
        """Refuses what a virtual machine cannot share with the host or with others."""
        if not self.vm or POD_ANNOTATION in (bundle.spec.get("annotations") or {}):
            return
        listed = (bundle.spec.get("linux") or {}).get("namespaces") or ()
        found = {item["type"]: item.get("path", "") for item in listed}
        for kind, flag in _VM_NAMESPACES.items():
            if kind not in found or (found[kind] and kind != "network"):
                raise errors.InvalidArgument(
                    f"runtime {self.name} runs containers in a virtual machine: the {kind} "
                    "namespace of the host or of another container cannot be theirs",
                    kind="namespace",
                    ref=kind,
                    hint=f"leave out {flag}",
                )

    def _explained(
        self, bundle: Bundle, error: errors.EngineError, program: str = ""
    ) -> errors.EngineError:
        """The error class for what the runtime behind the shim said."""
        if not isinstance(error, errors.Internal) and type(error) is not errors.EngineError:
            return error
        argv = bundle.spec.get("process", {}).get("args") or [""]
        return program_error(error.message, program or argv[0]) or errors.Internal(
            f"runtime {self.name}: {error.message}", kind="container", ref=bundle.id
        )

    async def _try(self, bundle: Bundle, method: str, **arguments: Any) -> None:
        with contextlib.suppress(errors.EngineError):
            task = await self._task(bundle)
            await getattr(task, method)(bundle.id, **arguments)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("runtime %s: background work failed", self.name, exc_info=task.exception())


async def _serves(address: Address) -> bool:
    """Whether somebody takes connections there."""
    try:
        await (await Task.connect(address, timeout_s=_STATE_S)).close()
    except Gone:
        return False
    except errors.EngineError:
        return True
    return True


def _group_stats(found: shim_messages.Metrics) -> GroupStats:
    return GroupStats(
        taken_ns=time.time_ns(),
        cpu_ns=found.cpu_ns,
        memory_usage=found.memory_usage,
        memory_working_set=max(found.memory_usage - found.inactive_file, 0),
        memory_limit=found.memory_limit,
        memory_rss=found.memory_rss,
        memory_cache=found.memory_cache,
        memory_mapped_file=found.memory_mapped_file,
        page_faults=found.page_faults,
        major_page_faults=found.major_page_faults,
        swap_usage=found.swap_usage,
        swap_limit=found.swap_limit,
        pids=found.pids,
        details=Details(
            cpu_user_ns=found.cpu_user_ns,
            cpu_system_ns=found.cpu_kernel_ns,
            periods=found.periods,
            throttled_periods=found.throttled_periods,
            throttled_ns=found.throttled_ns,
            memory_max_usage=found.memory_max_usage,
            memory_failures=found.memory_failures,
            memory_kernel=found.memory_kernel,
            oom_kills=found.oom_kills,
            pids_max=found.pids_limit,
        ),
    )
