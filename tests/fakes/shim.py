"""A shim of containerd's runtime v2 that is ours to break.

It serves the Task service over real processes: the ``args`` of config.json are run on the
host, so exit codes, signals and streams are real.  There is no isolation.  What it does
otherwise than the shim of runc is said by :class:`Quirks`, in the program that
:func:`install` writes; a file ``quirks`` (JSON) in a bundle changes them for that container.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, fields, replace
from dataclasses import field as made
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.runtime import shim_messages as messages
from isula_edge.runtime.protobuf import field, number
from isula_edge.runtime.shim_events import SERVICE as EVENTS_SERVICE
from isula_edge.runtime.ttrpc import Client, Server
from tests.fakes.shim_child import Process

if TYPE_CHECKING:
    from isula_edge.runtime.protobuf import Message

__all__ = ["KATA", "NAME", "Quirks", "install"]

NAME = "containerd-shim-fake-v2"
_VARIABLE = "FAKE_SHIM_QUIRKS"
_SANDBOX = "io.kubernetes.cri.sandbox-id"


@dataclass(frozen=True)
class Quirks:
    """How this shim differs from runc's.

    ``answer``: what ``start`` prints: plain, json, json3, protobuf, protobuf3; or wrongly
    version9, grpc, garbage, empty, nobody (an address where nobody listens), fail, hang.
    ``socket``: path, abstract, or abstract-nul (a NUL at the end of the name).
    ``late``: FIFOs are opened at Start, not at Create.  ``delete_running``: Delete drops a
    container that runs.  ``own_pid``: every pid is the shim's.  ``silent_kill``: Kill after
    the end is no error.  ``shutdown_closes``: Shutdown has no answer.
    ``dies_at``, ``hangs_at``, ``garbage_at``: the method at which it ends, never answers, or
    answers what is no message; ``refuses``: that fails with a message, as an error of runc's.
    ``cleanup``: what the command ``delete`` does: works, fail, hang, garbage.
    ``oom``: a process that is killed by SIGKILL is told as OOM too.
    """

    answer: str = "plain"
    socket: str = "path"
    late: bool = False
    delete_running: bool = False
    own_pid: bool = False
    silent_kill: bool = False
    shutdown_closes: bool = False
    dies_at: str = ""
    hangs_at: str = ""
    garbage_at: str = ""
    refuses: str = ""
    cleanup: str = "works"
    oom: bool = False


KATA = Quirks(
    socket="abstract-nul",
    late=True,
    delete_running=True,
    own_pid=True,
    silent_kill=True,
    shutdown_closes=True,
)
"""As kata 1.x behaves."""


def install(folder: Path, quirks: Quirks = KATA) -> Path:
    """Writes the program into ``folder``: its path."""
    path = folder / NAME
    top = str(Path(__file__).parents[2])
    text = (
        f"#!{sys.executable}\n"
        "import os, sys\n"
        f"sys.path.insert(0, {top!r})\n"
        f"os.environ.setdefault({_VARIABLE!r}, {json.dumps(asdict(quirks))!r})\n"
        "from tests.fakes.shim import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    path.write_text(text)
    path.chmod(0o755)
    return path


def _quirks(bundle: Path) -> Quirks:
    changes = json.loads(os.environ.get(_VARIABLE, "{}"))
    with contextlib.suppress(FileNotFoundError):
        changes |= json.loads((bundle / "quirks").read_text())
    known = {part.name for part in fields(Quirks)}
    assert set(changes) <= known, f"quirks that do not exist: {set(changes) - known}"
    return replace(Quirks(), **changes)


# --- the command line


@dataclass
class Flags:
    namespace: str = ""
    address: str = ""
    publish_binary: str = ""
    id: str = ""
    bundle: str = ""
    debug: bool = False
    words: list[str] = made(default_factory=list)


def _parse(argv: list[str]) -> Flags:
    """The flags as Go's flag package takes them."""
    flags, rest = Flags(), list(argv)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            flags.words = [word, *rest]
            break
        name = word.lstrip("-").replace("-", "_")
        if name == "debug":
            flags.debug = True
        elif hasattr(flags, name) and rest:
            setattr(flags, name, rest.pop(0))
        else:
            sys.exit(f"flag provided but not defined: {word}")
    return flags


def main(argv: list[str]) -> int:
    flags, bundle = _parse(argv), Path.cwd()
    if not flags.namespace or bundle.name != flags.id:
        return _fail("needs a namespace, and its bundle's name is the id")
    quirks = _quirks(bundle)
    if flags.words == ["start"]:
        return _start(flags, bundle, quirks)
    if flags.words == ["delete"]:
        return _delete(bundle, quirks)
    return _fail(f"knows no {flags.words}")


def _fail(words: str) -> int:
    sys.stderr.write(f"io.containerd.fake.v2: {words}\n")
    return 1


def _address(flags: Flags, sandbox: str, quirks: Quirks) -> str:
    key = f"{flags.address}/{flags.namespace}/{sandbox}"
    if quirks.socket != "path":
        # sun_path holds 108 bytes
        return f"/containerd-shim/{flags.namespace}/{sandbox[:40]}/{_digest(key)[:16]}/shim.sock"
    folder = Path(tempfile.gettempdir()) / f"fake-shim-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return f"unix://{folder}/{_digest(key)}"


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def _start(flags: Flags, bundle: Path, quirks: Quirks) -> int:
    if quirks.answer == "fail":
        return _fail("the hypervisor is not there")
    spec = json.loads((bundle / "config.json").read_text())
    sandbox = (spec.get("annotations") or {}).get(_SANDBOX, flags.id)
    address = _address(flags, sandbox, quirks)
    if sandbox == flags.id:
        listener = _listen(address, quirks)
        if listener is None:
            return _fail(f"listen {address}: address already in use")
        if os.fork() == 0:
            _become_server(listener, bundle, quirks)
        listener.close()
    (bundle / "address").write_text(address)
    if quirks.answer == "hang":
        time.sleep(3600)
    sys.stdout.buffer.write(_answer(address, quirks.answer))
    return 0


def _answer(address: str, kind: str) -> bytes:
    described = {"version": 2, "address": address, "protocol": "ttrpc"}
    if kind == "json":
        return json.dumps(described).encode() + b"\n"
    if kind == "json3":
        return json.dumps(described | {"version": 3}).encode()
    if kind == "version9":
        return json.dumps(described | {"version": 9}).encode()
    if kind == "grpc":
        return json.dumps(described | {"version": 3, "protocol": "grpc"}).encode()
    if kind in ("protobuf", "protobuf3"):
        version = 3 if kind == "protobuf3" else 2
        return messages.BootstrapResult(version, address, "ttrpc").encode()
    wrong = {"garbage": b"\xff\xfe what is this\x00", "empty": b"", "nobody": b"unix:///nobody"}
    return wrong.get(kind, address.encode())


def _listen(address: str, quirks: Quirks) -> socket.socket | None:
    end = b"\0" if quirks.socket == "abstract-nul" else b""
    name: str | bytes = b"\0" + address.encode() + end
    if quirks.socket == "path":
        name = address.removeprefix("unix://")
    if isinstance(name, str) and os.path.exists(name) and not _answers(name):
        os.unlink(name)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(name)
    except OSError:
        listener.close()
        return None
    listener.listen(64)
    return listener


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        return True


def _delete(bundle: Path, quirks: Quirks) -> int:
    """What is left of a server that has died, by the pids that it wrote down."""
    if quirks.cleanup == "hang":
        time.sleep(3600)
    if quirks.cleanup == "garbage":
        sys.stdout.buffer.write(b"\x0a\xff")
        return 0
    try:
        pids = [int(line) for line in (bundle / "pids").read_text().split()]
    except FileNotFoundError:
        pids = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    (bundle / "pids").unlink(missing_ok=True)
    if quirks.cleanup == "fail":
        # the machine of a test is not a virtual one: nothing may stay
        return _fail("the hypervisor does not answer")
    if not pids:
        return _fail("there is nothing to delete")
    gone = messages.DeleteResponse(pids[0], 137, time.time_ns())
    sys.stdout.buffer.write(gone.encode())
    return 0


# --- the server


def _become_server(listener: socket.socket, bundle: Path, quirks: Quirks) -> None:
    """The rest of the life of the process that ``start`` leaves."""
    code = 1
    try:
        os.setsid()
        null = os.open("/dev/null", os.O_RDWR)
        log = os.open(bundle / "log", os.O_WRONLY | os.O_APPEND)
        for number, fd in enumerate((null, null, log)):
            os.dup2(fd, number)
        os.chdir("/")
        asyncio.run(_Service(quirks).serve(listener))
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


@dataclass
class Container:
    bundle: Path
    processes: dict[str, Process]
    quirks: Quirks

    def note(self) -> None:
        """Writes down what ``delete`` has to kill."""
        lines = "".join(f"{one.pid}\n" for one in self.processes.values())
        (self.bundle / "pids").write_text(lines)


class _Service:
    """The Task service."""

    def __init__(self, quirks: Quirks) -> None:
        self.quirks = quirks
        self.containers: dict[str, Container] = {}
        self._over = asyncio.Event()
        self._events: Client | None = None
        self._telling = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, listener: socket.socket) -> None:
        self._path = listener.getsockname()
        listener.setblocking(False)
        self._server = await asyncio.start_unix_server(self._connected, sock=listener)
        await self._over.wait()
        await asyncio.sleep(0.05)  # the answer to Shutdown goes out
        self._remove_socket()

    def _remove_socket(self) -> None:
        if self.quirks.socket == "path":
            os.unlink(self._path)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        services = {f"containerd.task.v{number}.Task": self._answer for number in (2, 3)}
        if self.quirks.answer in ("json3", "protobuf3"):
            del services["containerd.task.v2.Task"]
        with contextlib.suppress(asyncio.CancelledError):
            await Server(reader, writer, services).serve()

    async def _answer(self, method: str, payload: bytes) -> bytes:
        handler = getattr(self, f"_do_{method.lower()}", None)
        if handler is None:
            raise errors.Unimplemented(f"method {method} not implemented")
        kind = _REQUESTS.get(method, messages.Target)
        try:
            request = kind.decode(payload)
        except ValueError as error:
            raise errors.InvalidArgument(f"unmarshal: {error}") from error
        await self._misbehave(method, request)
        answer: Message | None = await handler(request)
        if self._of(request).garbage_at == method:
            return b"\x0a\xff\x01"
        return answer.encode() if answer is not None else b""

    def _of(self, request: Any) -> Quirks:
        """The quirks of the container that a request is for."""
        found = self.containers.get(request.id)
        if found is not None:
            return found.quirks
        bundle = getattr(request, "bundle", "")
        return _quirks(Path(bundle)) if bundle else self.quirks

    async def _misbehave(self, method: str, request: Any) -> None:
        quirks = self._of(request)
        if quirks.dies_at == method:
            os._exit(7)
        if quirks.hangs_at == method:
            await asyncio.Event().wait()
        if quirks.refuses == method:
            raise errors.Internal(f"OCI runtime {method.lower()} failed: it does not want to")

    def _find(self, request: Any) -> tuple[Container, Process]:
        container = self.containers.get(request.id)
        exec_id = getattr(request, "exec_id", "")
        if container is None or exec_id not in container.processes:
            raise errors.NotFound(f"process {request.id} {exec_id}: not found")
        return container, container.processes[exec_id]

    def _pid(self, process: Process) -> int:
        return os.getpid() if self.quirks.own_pid else process.pid

    async def _do_create(self, request: messages.CreateRequest) -> Message:
        if request.id in self.containers:
            raise errors.AlreadyExists(f"container {request.id} exists")
        bundle = Path(request.bundle)
        quirks = _quirks(bundle)
        spec = json.loads((bundle / "config.json").read_text())
        container = Container(bundle, {}, quirks)
        target = messages.Target(request.id)

        def ended(process: Process) -> None:
            self._ended(target, container, process)

        process = Process(spec["process"], request, bundle, ended)
        if not quirks.late:
            self._open(process)
        container.processes[""] = process
        self.containers[request.id] = container
        self.containers[request.id].note()
        self._tell("/tasks/create", "TaskCreate", messages.TaskProcess(request.id))
        return messages.PidResponse(self._pid(process))

    def _open(self, process: Process) -> None:
        try:
            process.open_streams()
        except (OSError, errors.EngineError) as error:
            process.forget()
            raise errors.Internal(str(error)) from error

    async def _do_start(self, request: messages.Target) -> Message:
        container, process = self._find(request)
        if process.status != messages.CREATED:
            raise errors.FailedPrecondition("it has been started")
        if container.quirks.late:
            self._open(process)
        process.run()
        self._tell("/tasks/start", "TaskStart", messages.TaskProcess(request.id))
        return messages.PidResponse(self._pid(process))

    def _ended(self, request: messages.Target, container: Container, process: Process) -> None:
        code = process.exit.exit_status
        if container.quirks.oom and code == 137:
            self._tell("/tasks/oom", "TaskOOM", messages.TaskOOM(request.id))
        if not request.exec_id:
            # the end of the first process is the end of all of them
            for one in container.processes.values():
                with contextlib.suppress(ProcessLookupError):
                    one.signal(signal.SIGKILL, group=True)
        told = messages.TaskExit(
            request.id, request.exec_id or request.id, self._pid(process), code,
            process.exit.exited_ns,
        )  # fmt: skip
        self._tell("/tasks/exit", "TaskExit", told)

    async def _do_exec(self, request: messages.ExecRequest) -> None:
        container, first = self._find(messages.Target(request.id))
        if first.status not in (messages.RUNNING, messages.PAUSED):
            raise errors.FailedPrecondition("cannot exec in a stopped container")
        if request.exec_id in container.processes:
            raise errors.AlreadyExists(f"exec {request.exec_id} exists")
        described = json.loads((request.spec or messages.AnyValue()).value)
        target = messages.Target(request.id, request.exec_id)

        def ended(process: Process) -> None:
            self._ended(target, container, process)

        process = Process(described, request, container.bundle, ended)
        if not container.quirks.late:
            self._open(process)
        container.processes[request.exec_id] = process
        container.note()

    async def _do_state(self, request: messages.Target) -> Message:
        container, process = self._find(request)
        return messages.StateResponse(
            request.id, str(container.bundle), self._pid(process), process.status,
            *process.paths, process.terminal, process.exit.exit_status,
            process.exit.exited_ns, request.exec_id,
        )  # fmt: skip

    async def _do_wait(self, request: messages.Target) -> Message:
        _, process = self._find(request)
        await process.ended.wait()
        return process.exit

    async def _do_kill(self, request: messages.KillRequest) -> None:
        container, process = self._find(request)
        if process.status == messages.STOPPED:
            if container.quirks.silent_kill:
                return
            raise errors.NotFound("process already finished: not found")
        targets = list(container.processes.values()) if request.all else [process]
        for target in targets:
            if target.status != messages.STOPPED:
                with contextlib.suppress(ProcessLookupError):
                    target.signal(request.signal, group=request.all)

    async def _do_delete(self, request: messages.Target) -> Message:
        container, process = self._find(request)
        if process.status in (messages.RUNNING, messages.PAUSED):
            if not container.quirks.delete_running:
                raise errors.Internal("cannot delete a running process")
            process.signal(signal.SIGKILL, group=True)
        for thread in process.copies:
            if process.status == messages.STOPPED:
                await asyncio.to_thread(thread.join, 5)
        process.forget()
        if request.exec_id:
            del container.processes[request.exec_id]
            container.note()
        else:
            del self.containers[request.id]
            (container.bundle / "pids").unlink()
        told = messages.TaskProcess(request.id)
        self._tell("/tasks/delete", "TaskDelete", told)
        return messages.DeleteResponse(
            self._pid(process), process.exit.exit_status, process.exit.exited_ns
        )

    async def _do_pids(self, request: messages.Target) -> Message:
        container, _ = self._find(request)
        running = [one for one in container.processes.values() if not one.ended.is_set()]
        infos = tuple(messages.ProcessInfo(self._pid(one)) for one in running)
        return messages.PidsResponse(infos[:1] if container.quirks.own_pid else infos)

    async def _do_pause(self, request: messages.Target) -> None:
        self._freeze(request, signal.SIGSTOP, messages.PAUSED)

    async def _do_resume(self, request: messages.Target) -> None:
        self._freeze(request, signal.SIGCONT, messages.RUNNING)

    def _freeze(self, request: messages.Target, number: int, status: int) -> None:
        container, first = self._find(request)
        if first.status not in (messages.RUNNING, messages.PAUSED):
            raise errors.Internal("the container is not running")
        for process in container.processes.values():
            if process.status in (messages.RUNNING, messages.PAUSED):
                process.signal(number, group=True)
                process.status = status

    async def _do_resizepty(self, request: messages.ResizeRequest) -> None:
        _, process = self._find(request)
        if process.master < 0:
            raise errors.Internal("it has no terminal")
        process.resize(request.width, request.height)

    async def _do_closeio(self, request: messages.CloseIORequest) -> None:
        _, process = self._find(request)
        if request.stdin:
            process.close_stdin()

    async def _do_update(self, request: messages.UpdateRequest) -> None:
        """What the container shall have is written into its bundle, for tests to read."""
        container, _ = self._find(request)
        resources = request.resources or messages.AnyValue()
        if not resources.type_url.endswith("/LinuxResources"):
            raise errors.InvalidArgument(f"{resources.type_url} are no resources")
        (container.bundle / "resources.json").write_bytes(resources.value)

    async def _do_stats(self, request: messages.Target) -> Message:
        """What /proc says of the first process, as a machine with cgroup v2 would tell it."""
        container, process = self._find(request)
        memory = cpu = 0
        with contextlib.suppress(OSError, ValueError):
            pages = Path(f"/proc/{process.pid}/statm").read_text().split()[1]
            memory = int(pages) * os.sysconf("SC_PAGE_SIZE")
            words = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            ticks = int(words[11]) + int(words[12])
            cpu = ticks * 1_000_000 // os.sysconf("SC_CLK_TCK")
        count = sum(not one.ended.is_set() for one in container.processes.values())
        value = field(1, number(1, count)) + field(2, number(1, cpu)) + field(4, number(32, memory))
        found = messages.AnyValue("io.containerd.cgroups.v2.Metrics", value)
        return messages.StatsResponse(found)

    async def _do_connect(self, request: messages.Target) -> Message:
        found = self.containers.get(request.id)
        task = self._pid(found.processes[""]) if found else 0
        return messages.ConnectResponse(os.getpid(), task, "fake")

    async def _do_shutdown(self, request: messages.ShutdownRequest) -> None:
        if self.containers:
            return
        if self.quirks.shutdown_closes:
            self._remove_socket()
            os._exit(0)
        self._over.set()

    def _tell(self, topic: str, kind: str, event: Message) -> None:
        """Sends an event to TTRPC_ADDRESS, in the order of these calls."""
        where = os.environ.get("TTRPC_ADDRESS")
        if where:
            body = messages.AnyValue(f"containerd.events.{kind}", event.encode())
            envelope = messages.Envelope(time.time_ns(), "fake", topic, body)
            task = asyncio.create_task(self._forward(where, envelope))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(self, where: str, envelope: messages.Envelope) -> None:
        async with self._telling:
            try:
                if self._events is None:
                    self._events = Client(*await asyncio.open_unix_connection(where))
                data = messages.ForwardRequest(envelope).encode()
                await self._events.call(EVENTS_SERVICE, "Forward", data, timeout_s=5)
            except (OSError, errors.EngineError) as error:
                self._events = None
                sys.stderr.write(f"event {envelope.topic} is lost: {error}\n")


_REQUESTS: dict[str, Any] = {
    "Create": messages.CreateRequest,
    "Kill": messages.KillRequest,
    "Exec": messages.ExecRequest,
    "ResizePty": messages.ResizeRequest,
    "CloseIO": messages.CloseIORequest,
    "Update": messages.UpdateRequest,
    "Shutdown": messages.ShutdownRequest,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
