"""Python library of the engine: everything ``isula`` can do, from a program.

::

    from isula_edge.client import Client

    with Client() as client:
        client.pull("docker.io/library/busybox:latest")
        web = client.create("busybox", ["sleep", "60"], name="web", options={"memory": "64m"})
        client.start(web["id"])
        code, out, err = client.exec("web", ["cat", "/etc/hosts"]).communicate()
        client.remove("web", force=True)

Every call blocks until the daemon has answered and raises a class of
:mod:`isula_edge.errors` when it refuses.  A daemon that cannot be reached raises
:class:`~isula_edge.errors.Unavailable` (or ``PermissionDenied``) with ``kind="daemon"``.

A :class:`Client` is one connection and runs one request at a time; it is not for use
by several threads at once: give each its own.  Closing it, or leaving the ``with``
block, in the middle of a request cancels that request.  Values are those of the wire
(:mod:`isula_edge.wire`): times are nanoseconds since 1970 UTC, 0 meaning never.

``isula`` is a user of this module, and its start-up time counts: nothing but
``_socket`` and the wire format is imported before it is needed.
"""

from __future__ import annotations

__all__ = ["DEFAULT_HOST", "Client", "Stream"]

import _socket

from isula_edge import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Any, NoReturn

    from isula_edge.errors import EngineError

DEFAULT_HOST = "unix:///var/run/isulad.sock"
"""Where the daemon listens unless ``ISULAD_HOST`` says otherwise."""

_READ_SIZE = 1 << 16
_ENDS = ("r", "x")


class Stream:
    """A request in progress: iterate over what the daemon sends, then read ``result``.

    Iterating gives ``(kind, value)`` pairs: ``("v", item)`` for progress, events and
    the like, ``("o", bytes)`` and ``("E", bytes)`` for standard output and error.
    The iteration ends with the request; it raises the error the daemon ended it with.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self.result: dict[str, Any] | None = None

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Frames until the request ends; raises the daemon's error."""
        while self.result is None:
            frame = self.take()
            if frame is not None:
                yield frame
            elif self.result is None:
                self._client.receive()

    def __enter__(self) -> Stream:
        """The stream itself; leaving the block before the end cancels the request."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.result is None:
            self._client.close()

    def fileno(self) -> int:
        """The socket's file descriptor, for a poll of the caller's own."""
        return self._client.fileno()

    def take(self) -> tuple[str, Any] | None:
        """The next frame that has already arrived, or None; sets ``result`` at the end."""
        frame = self._client.take()
        if frame is None:
            return None
        kind, value = frame
        if kind not in _ENDS:
            return kind, value
        self._client.busy = False
        if kind == "x":
            self.result = {}
            from isula_edge.errors import from_wire

            raise from_wire(value)
        self.result = value
        return None

    def receive(self) -> None:
        """Read more from the daemon, for :meth:`take`; waits when nothing is there."""
        self._client.receive()

    def send_some(self, data: bytes | bytearray) -> int:
        """Send as much of packed frames as is possible without waiting: bytes sent."""
        return self._client.send_some(data)

    def wait(self) -> dict[str, Any]:
        """The result; what arrives before it is dropped."""
        for _ in self:
            pass
        return self.result or {}

    def send_input(self, data: bytes) -> None:
        """Give ``data`` to the standard input of the process."""
        self._client.send({"i": data})

    def end_input(self) -> None:
        """Say that standard input has ended."""
        self._client.send({"e": True})

    def resize(self, rows: int, columns: int) -> None:
        """Tell the process's terminal its size."""
        self._client.send({"w": [rows, columns]})

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        self._client.send({"s": number})

    def communicate(self, data: bytes = b"") -> tuple[int, bytes, bytes]:
        """Feed ``data`` and read to the end: exit code, standard output, standard error.

        Reads while it writes, so neither side waits for the other.  The stream must
        have been opened with ``stdin=True`` for ``data`` to be read by the process.
        """
        import select

        frames = [wire.pack({"i": data[at : at + 32768]}) for at in range(0, len(data), 32768)]
        pending = memoryview(b"".join([*frames, wire.pack({"e": True})]))
        output = {"o": bytearray(), "E": bytearray()}
        poller = select.poll()
        while self.result is None:
            frame = self.take()
            if frame is not None:
                if frame[0] in output:
                    output[frame[0]] += frame[1]
                continue
            if self.result is not None:
                break
            poller.register(self, select.POLLIN | (select.POLLOUT if pending else 0))
            events = poller.poll()[0][1]
            if events & ~select.POLLOUT:
                self._client.receive()
            elif pending:
                pending = pending[self._client.send_some(pending) :]
        return int(self.result.get("exit_code", 0)), bytes(output["o"]), bytes(output["E"])


class Client:
    """A connection to ``isulad``, opened by the first request.

    ``host`` is ``unix:///absolute/path`` or ``tcp://host:port``; without it the
    environment variable ``ISULAD_HOST`` and then :data:`DEFAULT_HOST` are used.
    ``timeout_s`` bounds each wait for the daemon; running out of it raises
    :class:`~isula_edge.errors.DeadlineExceeded` and closes the connection.
    A malformed host raises :class:`~isula_edge.errors.InvalidArgument` at once.
    """

    def __init__(self, host: str = "", *, timeout_s: float | None = None) -> None:
        if not host:
            import os

            host = os.environ.get("ISULAD_HOST") or DEFAULT_HOST
        self.host = host
        self.busy = False
        self._timeout_s = timeout_s
        self._socket: _socket.socket | None = None
        self._answered = False
        self._buffer = bytearray()
        self._position = 0
        self._target = _parse_host(host)

    def __enter__(self) -> Client:
        """The client itself; leaving the block closes the connection."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a request in progress is cancelled.  May be called twice."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self.busy = self._answered = False
        self._buffer.clear()
        self._position = 0

    def fileno(self) -> int:
        """File descriptor of the connection, -1 when there is none."""
        return -1 if self._socket is None else self._socket.fileno()

    # -- frames

    def stream(self, method: str, params: Mapping[str, Any] | None = None) -> Stream:
        """Begin a request of any method; the verbs below are easier to use."""
        if self.busy:
            raise RuntimeError("the client's connection has a request in progress")
        frame = wire.pack({"m": method, "p": dict(params or {})})
        if len(frame) - 4 > wire.MAX_REQUEST:
            from isula_edge.errors import InvalidArgument

            raise InvalidArgument(
                f"the request has {len(frame)} bytes, the limit is {wire.MAX_REQUEST}",
                kind="request",
                ref=method,
                hint="give fewer or shorter options (environment files, labels, profiles)",
            )
        try:
            if self._socket is None:
                self._connect()
                frame = wire.PREAMBLE + frame
            self._send_all(frame)
        except OSError as error:
            self._fail(error)
        self.busy = True
        return Stream(self)

    def call(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The result of a request of any method, without what is streamed before it."""
        return self.stream(method, params).wait()

    def send(self, frame: dict[str, Any]) -> None:
        """Send a frame within the request in progress."""
        try:
            self._send_all(wire.pack(frame))
        except OSError as error:
            self._fail(error)

    def send_some(self, data: bytes | bytearray | memoryview) -> int:
        """Send as much of packed ``data`` as is possible without waiting: bytes sent."""
        try:
            return self._open_socket().send(data, _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._fail(error)

    def receive(self) -> None:
        """Wait until more has arrived; raises Unavailable at the end of the connection."""
        try:
            data = self._open_socket().recv(_READ_SIZE)
        except OSError as error:
            self._fail(error)
        if not data:
            self._fail(None)
        self._answered = True
        if self._position:
            del self._buffer[: self._position]
            self._position = 0
        self._buffer += data

    def take(self) -> tuple[str, Any] | None:
        """The next whole frame that has arrived, as ``(kind, value)``, or None."""
        start = self._position + 4
        if len(self._buffer) < start:
            return None
        end = start + int.from_bytes(self._buffer[self._position : start], "big")
        if end - start > wire.MAX_ANSWER:
            self._fail(wire.WireError("a frame is too large"))
        if len(self._buffer) < end:
            return None
        payload = bytes(memoryview(self._buffer)[start:end])
        self._position = end
        try:
            frame = wire.decode(payload)
            ((kind, value),) = frame.items()
            if kind in _ENDS and not isinstance(value, dict):
                raise ValueError(f"{kind} is no map")
        except (ValueError, AttributeError) as error:
            self._fail(error)
        return kind, value

    def _open_socket(self) -> _socket.socket:
        if self._socket is None:
            self._fail(None)
        return self._socket

    def _send_all(self, data: bytes) -> None:
        self._open_socket().sendall(data)

    def _connect(self) -> None:
        path, port = self._target
        if port < 0:
            self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
            self._socket.settimeout(self._timeout_s)
            self._socket.connect(path)
            return
        found = _socket.getaddrinfo(path, port, 0, _socket.SOCK_STREAM)
        for number, (family, kind, protocol, _name, address) in enumerate(found, 1):
            self._socket = _socket.socket(family, kind, protocol)
            self._socket.settimeout(self._timeout_s)
            try:
                self._socket.connect(address)
                return
            except OSError:
                self._socket.close()
                if number == len(found):
                    raise

    def _fail(self, cause: Exception | None) -> NoReturn:
        connected = self.busy or self._answered
        self.close()
        raise _connection_error(self.host, cause, connected) from cause

    # -- the engine

    def version(self) -> dict[str, Any]:
        """``version commit built os arch kernel api oci`` of the daemon."""
        return self.call("version")

    def info(self) -> dict[str, Any]:
        """Numbers of containers and images, drivers, the host, what is degraded."""
        return self.call("info")

    def events(
        self, *, since_ns: int | None = None, until_ns: int | None = None, name: str = ""
    ) -> Iterator[dict[str, Any]]:
        """Events as they happen, from ``since_ns`` on, until ``until_ns`` or for ever."""
        params = _given(since_ns=since_ns, until_ns=until_ns, name=name or None)
        for kind, value in self.stream("events", params):
            if kind == "v":
                yield value

    def inspect(
        self, ref: str, *, kind: str = "any", timeout_s: int = 120, platform: str = ""
    ) -> dict[str, Any]:
        """``{"kind": "container" | "image", "object": …}``; raises NotFound.

        Of several images of a name it is the one for ``platform``, or for the daemon's machine.
        """
        params = {"ref": ref, "kind": kind, "timeout_s": timeout_s}
        return self.call("inspect", {**params, **_given(platform=platform or None)})

    def disk_usage(self) -> dict[str, Any]:
        """Bytes on disk: ``rows`` {type, total, active, size, reclaimable}, and of each object."""
        return self.call("system.df")

    def prune(
        self, *, all: bool = False, filters: Mapping[str, Sequence[str]] | None = None
    ) -> dict[str, Any]:
        """Remove stopped containers, images without a name (``all``: unused ones), leftovers.

        ``{"containers", "images", "downloads", "leftovers", "reclaimed"}``.
        """
        return self.call("system.prune", {"all": all, "filters": dict(filters or {})})

    def check(
        self,
        *,
        repair: bool = False,
        quick: bool = False,
        progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Verify everything that is stored: ``problems`` {kind, ref, names, problem, repaired}."""
        stream = self.stream("system.check", {"repair": repair, "quick": quick})
        return _watch(stream, progress)

    # -- emulators

    def emulators(self) -> list[dict[str, Any]]:
        """A row for each architecture: ``arch name path flags state reason``.

        ``state`` is native, registered, available, unusable or absent.
        """
        return list(self.call("emulator.list")["emulators"])

    def install_emulator(self, arch: str, *, force: bool = False) -> dict[str, Any]:
        """Have the kernel run an architecture's programs: its row, and whether it ``changed``."""
        return self.call("emulator.install", {"arch": arch, "force": force})

    def remove_emulator(self, arch: str) -> dict[str, Any]:
        """Take that back: ``{"arch", "names": [what was registered]}``; raises NotFound."""
        return self.call("emulator.remove", {"arch": arch})

    # -- images

    def pull(
        self,
        ref: str,
        *,
        platform: str = "",
        auth: Mapping[str, str] | None = None,
        all_tags: bool = False,
        progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Fetch an image: ``{"ref": stored name, "id": …}``; ``progress`` sees each item.

        ``all_tags`` fetches all that a name without tag has: ``{"ref": repository,
        "images": [{"ref", "id"}], "skipped": [{"ref", "reason"}]}``.

        ``auth`` are credentials for the registry of the name (or ``server_address``):
        ``username`` and ``password``, ``identity_token`` or ``registry_token``.  Without,
        those of :meth:`login` are used.
        """
        params = _given(ref=ref, platform=platform or None, auth=dict(auth) if auth else None)
        if all_tags:
            params["all_tags"] = True
        return _watch(self.stream("image.pull", params), progress)

    def search(
        self, term: str, *, limit: int = 25, filters: Mapping[str, Sequence[str]] | None = None
    ) -> list[dict[str, Any]]:
        """Repositories that the first mirror, or the host in ``term``, finds, best first.

        Each has ``name``, ``description``, ``stars``, ``official`` and ``automated``.
        """
        params = {"term": term, "limit": limit, "filters": dict(filters or {})}
        return list(self.call("image.search", params)["results"])

    def login(self, server: str, username: str, password: str) -> dict[str, Any]:
        """Have the daemon keep credentials that the registry accepts: ``{"server": name}``."""
        params = {"server": server, "username": username, "password": password}
        return self.call("image.login", params)

    def logout(self, server: str) -> dict[str, Any]:
        """Have the daemon forget a registry's credentials: ``{"server", "removed": bool}``."""
        return self.call("image.logout", {"server": server})

    def load(
        self,
        path: str,
        *,
        tag: str = "",
        progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> list[str]:
        """Load an archive that the daemon reads from the absolute ``path``: the images' names."""
        stream = self.stream("image.load", _given(path=path, tag=tag or None))
        return list(_watch(stream, progress)["images"])

    def import_image(self, path: str, ref: str) -> str:
        """Make an image of a root file system tarball at the absolute ``path``: its id."""
        return str(self.call("image.import", {"path": path, "ref": ref})["id"])

    def save(
        self,
        refs: Sequence[str],
        write: Callable[[bytes], object],
        *,
        exclude: Sequence[str] = (),
        format: str = "docker",
        platform: str = "",
    ) -> int:
        """Give an archive of images to ``write``, piece by piece: its size in bytes.

        Layers of the images ``exclude`` are left out; who loads the archive must have them.
        """
        params = {"refs": list(refs), "exclude": list(exclude), "format": format}
        params |= _given(platform=platform or None)
        return _download(self.stream("image.save", params), write)

    def images(self, filters: Mapping[str, Sequence[str]] | None = None) -> list[dict[str, Any]]:
        """Images, newest first."""
        return list(self.call("image.list", {"filters": dict(filters or {})})["images"])

    def remove_image(
        self, ref: str, *, force: bool = False, platform: str = ""
    ) -> dict[str, Any]:
        """Remove a name, or an image by id: ``{"removed": ref, "deleted": bool}``.

        ``platform`` takes the name from one of its images only.
        """
        params = {"ref": ref, "force": force, **_given(platform=platform or None)}
        return self.call("image.remove", params)

    def tag(self, source: str, target: str) -> None:
        """Give an image another name."""
        self.call("image.tag", {"source": source, "target": target})

    # -- containers

    def containers(
        self,
        *,
        all: bool = False,
        latest: bool = False,
        last: int = 0,
        filters: Mapping[str, Sequence[str]] | None = None,
    ) -> list[dict[str, Any]]:
        """Containers in the order ``isula ps`` shows them; only running ones unless ``all``."""
        params = {"all": all, "latest": latest, "last": last, "filters": dict(filters or {})}
        return list(self.call("container.list", params)["containers"])

    def create(
        self,
        image: str,
        command: Sequence[str] = (),
        *,
        name: str = "",
        runtime: str = "",
        platform: str = "",
        options: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Create a container: ``{"id": …, "warnings": […]}``.

        ``options`` are the flags of ``isula create`` by their long names with ``_``
        for ``-``, each a string or a bool, or a list of strings for one that repeats.
        """
        return self.call(
            "container.create", _creation(image, command, name, runtime, platform, options)
        )

    def start(self, ref: str) -> None:
        """Start a container; one that runs already is left alone."""
        self.call("container.start", {"ref": ref, "attach": False, "stdin": False})

    def start_attached(self, ref: str, *, stdin: bool = False) -> Stream:
        """Start a container and read its output; the result has ``exit_code``."""
        return self.stream("container.start", {"ref": ref, "attach": True, "stdin": stdin})

    def run(
        self,
        image: str,
        command: Sequence[str] = (),
        *,
        name: str = "",
        runtime: str = "",
        platform: str = "",
        options: Mapping[str, Any] | None = None,
        detach: bool = False,
        stdin: bool = False,
    ) -> Stream:
        """Create and start in one request; the first item is ``("v", {"id", "warnings"})``.

        Detached, the result has ``id``; else it comes when the container has ended,
        after its output, and has ``exit_code``.
        """
        params = _creation(image, command, name, runtime, platform, options)
        return self.stream("container.run", {**params, "detach": detach, "stdin": stdin})

    def attach(self, ref: str, *, stdin: bool = False) -> Stream:
        """Join the output of a running container; the result has ``exit_code``."""
        return self.stream("container.attach", {"ref": ref, "stdin": stdin})

    def exec(
        self,
        ref: str,
        argv: Sequence[str],
        *,
        env: Sequence[str] = (),
        user: str = "",
        workdir: str = "",
        tty: bool = False,
        stdin: bool = False,
        detach: bool = False,
    ) -> Stream:
        """Run ``argv`` in a running container; the result has ``exit_code`` (or ``exec_id``)."""
        params = _given(user=user or None, workdir=workdir or None)
        params |= {"ref": ref, "argv": list(argv), "env": list(env)}
        params |= {"tty": tty, "stdin": stdin, "detach": detach}
        return self.stream("container.exec", params)

    def stop(self, ref: str, *, timeout_s: int | None = None, force: bool = False) -> None:
        """Stop signal, wait, SIGKILL; ``timeout_s=-1`` waits for ever, ``force`` not at all."""
        self.call("container.stop", {**_given(timeout_s=timeout_s), "ref": ref, "force": force})

    def kill(self, ref: str, signal: str = "SIGKILL") -> None:
        """Send a signal, by name or number, to the first process."""
        self.call("container.kill", {"ref": ref, "signal": signal})

    def restart(self, ref: str, *, timeout_s: int | None = None) -> None:
        """Stop, then start."""
        self.call("container.restart", {**_given(timeout_s=timeout_s), "ref": ref})

    def remove(self, ref: str, *, force: bool = False, volumes: bool = False) -> str:
        """Remove a container (``force``: kill it first): its id."""
        params = {"ref": ref, "force": force, "volumes": volumes}
        return str(self.call("container.remove", params)["id"])

    def pause(self, ref: str) -> None:
        """Freeze every process of a container."""
        self.call("container.pause", {"ref": ref})

    def unpause(self, ref: str) -> None:
        """Thaw a paused container."""
        self.call("container.unpause", {"ref": ref})

    def rename(self, ref: str, new_name: str) -> None:
        """Give a container another name."""
        self.call("container.rename", {"ref": ref, "new_name": new_name})

    def export(self, ref: str, write: Callable[[bytes], object]) -> int:
        """Give a tar of a container's root file system to ``write``: its size in bytes."""
        return _download(self.stream("container.export", {"ref": ref}), write)

    def wait(self, ref: str) -> int:
        """Exit code of a container, once it has ended."""
        return int(self.call("container.wait", {"ref": ref})["exit_code"])

    def top(self, ref: str, args: Sequence[str] = ()) -> str:
        """What ``ps`` with ``args`` says of a container's processes."""
        return str(self.call("container.top", {"ref": ref, "args": list(args)})["text"])

    def logs(
        self,
        ref: str,
        *,
        follow: bool = False,
        tail: int = -1,
        since_ns: int | None = None,
        until_ns: int | None = None,
        timestamps: bool = False,
    ) -> Stream:
        """Logged output of a container, its last ``tail`` lines or all of it."""
        params = _given(since_ns=since_ns, until_ns=until_ns)
        params |= {"ref": ref, "follow": follow, "tail": tail, "timestamps": timestamps}
        return self.stream("container.logs", params)


def _given(**params: Any) -> dict[str, Any]:
    return {key: value for key, value in params.items() if value is not None}


def _creation(
    image: str,
    command: Sequence[str],
    name: str,
    runtime: str,
    platform: str,
    options: Mapping[str, Any] | None,
) -> dict[str, Any]:
    params = _given(name=name or None, runtime=runtime or None, platform=platform or None)
    return {**params, "image": image, "command": list(command), "options": dict(options or {})}


def _watch(stream: Stream, progress: Callable[[dict[str, Any]], None] | None) -> dict[str, Any]:
    for kind, value in stream:
        if kind == "v" and progress is not None:
            progress(value)
    return stream.result or {}


def _download(stream: Stream, write: Callable[[bytes], object]) -> int:
    with stream:
        for kind, value in stream:
            if kind == "o":
                write(value)
        return int((stream.result or {})["size"])


def _parse_host(host: str) -> tuple[str, int]:
    """``(path, -1)`` for a unix socket, ``(address, port)`` for TCP."""
    if host.startswith("unix:///") and "\0" not in host:
        return host[7:], -1
    if host.startswith("tcp://"):
        address, colon, port = host[6:].rpartition(":")
        if colon and address and port.isascii() and port.isdigit() and int(port) < 65536:
            return address.strip("[]"), int(port)
    from isula_edge.errors import InvalidArgument

    raise InvalidArgument(
        f"Invalid socket name : {host}",
        kind="daemon",
        ref=host,
        hint="use unix:///absolute/path or tcp://host:port",
    )


def _connection_error(host: str, cause: Exception | None, connected: bool) -> EngineError:
    from isula_edge import errors

    cls: type[EngineError] = errors.Unavailable
    hint = ""
    if cause is None:
        text = f"The daemon at {host} closed the connection before it had answered"
    elif isinstance(cause, TimeoutError) and connected:
        cls, text = errors.DeadlineExceeded, f"The daemon at {host} did not answer in time"
    elif not isinstance(cause, OSError):
        text = f"The answer from {host} is not isulad's: {cause}"
        hint = "does another program listen there?"
    elif connected:
        text = f"The connection to the daemon at {host} is lost: {cause.strerror or cause}"
    else:
        reason = cause.strerror or str(cause)
        text = f"Cannot connect to the daemon at {host}: {reason}. Is the daemon running?"
        if isinstance(cause, PermissionError):
            cls = errors.PermissionDenied
            text = f"Cannot connect to the daemon at {host}: {reason}"
            hint = "be root, or a member of the socket's group"
    return cls(text, kind="daemon", ref=host, hint=hint, retryable=cls is errors.Unavailable)
