"""Calls to a shim: the Task service of containerd's runtime v2, over one connection.

A connection serves every container of its shim, and many calls at a time: a ``wait`` that
has no answer yet holds up nothing.  When the connection ends without :meth:`Task.shutdown`,
the shim is dead, and what it left is removed by :func:`isula_edge.runtime.shim_process.delete`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import TYPE_CHECKING, Any, TypeVar

from isula_edge import errors
from isula_edge.runtime import shim_messages as messages
from isula_edge.runtime import ttrpc
from isula_edge.runtime.protobuf import Message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from isula_edge.runtime.shim_messages import (
        Address,
        AnyValue,
        ConnectResponse,
        DeleteResponse,
        Metrics,
        Mount,
        StateResponse,
        WaitResponse,
    )

__all__ = ["CONNECT_S", "CREATE_S", "DEFAULT_S", "Gone", "Task"]

CREATE_S = 120.0
"""kata boots a virtual machine in Create."""
DEFAULT_S = 30.0
CONNECT_S = 10.0
_SUN_PATH = 108
_BUSY_S = 0.05
Gone = ttrpc.Broken
"""Nobody serves the address (any more), or the connection ended: the shim is dead."""
_Answer = TypeVar("_Answer", bound=Message)


class Task:
    """A connection to a shim.  ``id`` is a container's; ``exec_id`` of '' its first process.

    Every method raises the error that the shim says (NotFound for a container or exec that
    it does not know, Internal with the runtime's words for what failed there),
    DeadlineExceeded when the shim hangs, :data:`Gone` when it has died, and Internal when
    the answer makes no sense.  ``timeout_s`` of None waits for as long as it takes.
    """

    def __init__(self, client: ttrpc.Client, *, version: int = 2, shim: str = "the shim") -> None:
        """``shim`` is what errors call the program."""
        self.shim = shim
        self._client = client
        self._service = f"containerd.task.v{version}.Task"
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Ends with the connection.  Await it with asyncio.wait or shield."""
        self._watch = asyncio.create_task(self._client.wait_closed())
        self._watch.add_done_callback(self._set_closed)

    def _set_closed(self, _: object) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    @classmethod
    async def connect(
        cls, address: Address, *, shim: str = "the shim", timeout_s: float = CONNECT_S
    ) -> Task:
        """A connection to what :func:`shim_process.start` gave.

        Raises :data:`Gone` when nobody listens there, Unavailable when it cannot be reached
        for another reason, DeadlineExceeded when it does not take the connection.
        """
        try:
            async with asyncio.timeout(timeout_s):
                sock = await _dial(address.address)
        except TimeoutError as error:
            raise errors.DeadlineExceeded(
                f"{shim} took no connection at {address.address} within {timeout_s:g} s",
                kind="runtime",
                ref=shim,
            ) from error
        except OSError as error:
            dead = error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR)
            raise (Gone if dead else errors.Unavailable)(
                f"{shim} cannot be reached at {address.address}: {error.strerror or error}",
                kind="runtime",
                ref=shim,
            ) from error
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        return cls(ttrpc.Client(reader, writer), version=address.version, shim=shim)

    async def close(self) -> None:
        """Ends the connection; the shim and its containers go on.  Waiting calls raise Gone."""
        await self._client.close()
        await self._watch
        self._set_closed(None)

    async def _call(
        self, method: str, request: Message, answer: type[_Answer], timeout_s: float | None
    ) -> _Answer:
        data = await self._raw(method, request, timeout_s)
        try:
            return answer.decode(data)
        except ValueError as error:
            raise self._senseless(method, error) from error

    async def _raw(self, method: str, request: Message, timeout_s: float | None) -> bytes:
        ref = str(getattr(request, "id", ""))
        try:
            return await self._client.call(
                self._service, method, request.encode(), timeout_s=timeout_s
            )
        except (TimeoutError, errors.DeadlineExceeded) as error:
            raise errors.DeadlineExceeded(
                f"{self.shim} did not answer {method} within {timeout_s or 0:g} s",
                kind="runtime",
                ref=ref,
            ) from error
        except Gone as error:
            raise Gone(
                f"{self.shim} has ended before it answered {method}: {error.message}",
                kind="runtime",
                ref=ref,
            ) from error
        except errors.EngineError as error:
            if not error.kind:
                error.kind, error.ref = "runtime", ref
            raise

    def _senseless(self, method: str, error: ValueError) -> errors.Internal:
        return errors.Internal(
            f"{self.shim} answered {method} with what makes no sense: {error}",
            kind="runtime",
            ref=self.shim,
        )

    async def state(
        self, id: str, exec_id: str = "", *, timeout_s: float | None = DEFAULT_S
    ) -> StateResponse:
        """What the process does: ``status`` is CREATED, RUNNING … of :mod:`shim_messages`."""
        request = messages.Target(id, exec_id)
        return await self._call("State", request, messages.StateResponse, timeout_s)

    async def create(
        self,
        id: str,
        bundle: str,
        *,
        rootfs: Sequence[Mount] = (),
        terminal: bool = False,
        stdin: str = "",
        stdout: str = "",
        stderr: str = "",
        options: AnyValue | None = None,
        timeout_s: float | None = CREATE_S,
    ) -> int:
        """Makes the container of ``bundle``; the pid of its first process, as the shim has it.

        Streams are paths of FIFOs, '' for none.  Without a terminal ``stdout`` and ``stderr``
        are given both or neither; with one, ``stderr`` is ''.
        """
        request = messages.CreateRequest(
            id, bundle, tuple(rootfs), terminal, stdin, stdout, stderr, options=options
        )
        return (await self._call("Create", request, messages.PidResponse, timeout_s)).pid

    async def start(
        self, id: str, exec_id: str = "", *, timeout_s: float | None = DEFAULT_S
    ) -> int:
        """Runs the process that Create or Exec made; its pid."""
        request = messages.Target(id, exec_id)
        return (await self._call("Start", request, messages.PidResponse, timeout_s)).pid

    async def delete(
        self, id: str, exec_id: str = "", *, timeout_s: float | None = DEFAULT_S
    ) -> DeleteResponse:
        """Forgets a process that has ended or never ran, once its output has been copied.

        Never call it for a container that runs: kata would drop it.
        """
        request = messages.Target(id, exec_id)
        return await self._call("Delete", request, messages.DeleteResponse, timeout_s)

    async def pids(self, id: str, *, timeout_s: float | None = DEFAULT_S) -> tuple[int, ...]:
        """The processes of the container; of kata one of the host."""
        request = messages.Target(id)
        answer = await self._call("Pids", request, messages.PidsResponse, timeout_s)
        return tuple(process.pid for process in answer.processes)

    async def pause(self, id: str, *, timeout_s: float | None = DEFAULT_S) -> None:
        """Stops all processes where they are."""
        await self._raw("Pause", messages.Target(id), timeout_s)

    async def resume(self, id: str, *, timeout_s: float | None = DEFAULT_S) -> None:
        """Lets paused processes go on."""
        await self._raw("Resume", messages.Target(id), timeout_s)

    async def kill(
        self,
        id: str,
        signal: int,
        exec_id: str = "",
        *,
        all: bool = False,
        timeout_s: float | None = DEFAULT_S,
    ) -> None:
        """Sends a signal to the process, or to all of the container.

        After its end: NotFound with runc; with kata nothing happens.
        """
        request = messages.KillRequest(id, exec_id, signal, all)
        await self._raw("Kill", request, timeout_s)

    async def exec(
        self,
        id: str,
        exec_id: str,
        process: Mapping[str, Any],
        *,
        terminal: bool = False,
        stdin: str = "",
        stdout: str = "",
        stderr: str = "",
        timeout_s: float | None = DEFAULT_S,
    ) -> None:
        """Adds a process (``process`` of the runtime-spec); :meth:`start` runs it.

        Streams are as for :meth:`create`.  When the start fails, :meth:`delete` it.
        """
        spec = messages.document("Process", process)
        request = messages.ExecRequest(id, exec_id, terminal, stdin, stdout, stderr, spec)
        await self._raw("Exec", request, timeout_s)

    async def resize(
        self,
        id: str,
        exec_id: str = "",
        *,
        width: int,
        height: int,
        timeout_s: float | None = DEFAULT_S,
    ) -> None:
        """Sets the size of the process's terminal, in characters."""
        await self._raw("ResizePty", messages.ResizeRequest(id, exec_id, width, height), timeout_s)

    async def close_io(
        self, id: str, exec_id: str = "", *, timeout_s: float | None = DEFAULT_S
    ) -> None:
        """Ends the process's input, once every writer of the FIFO has closed it."""
        await self._raw("CloseIO", messages.CloseIORequest(id, exec_id, True), timeout_s)

    async def update(
        self,
        id: str,
        resources: Mapping[str, Any],
        *,
        annotations: Mapping[str, str] | None = None,
        timeout_s: float | None = DEFAULT_S,
    ) -> None:
        """New limits (``linux.resources`` of the runtime-spec), in place."""
        request = messages.UpdateRequest(
            id,
            messages.document("LinuxResources", resources),
            tuple(messages.Pair(*pair) for pair in (annotations or {}).items()),
        )
        await self._raw("Update", request, timeout_s)

    async def wait(
        self, id: str, exec_id: str = "", *, timeout_s: float | None = None
    ) -> WaitResponse:
        """The end of the process; at once when it has ended already and was not deleted."""
        request = messages.Target(id, exec_id)
        return await self._call("Wait", request, messages.WaitResponse, timeout_s)

    async def stats(self, id: str, *, timeout_s: float | None = DEFAULT_S) -> Metrics:
        """What the container uses now."""
        request = messages.Target(id)
        answer = await self._call("Stats", request, messages.StatsResponse, timeout_s)
        try:
            return messages.metrics(answer.stats or messages.AnyValue())
        except ValueError as error:
            raise self._senseless("Stats", error) from error

    async def connect_info(
        self, id: str, *, timeout_s: float | None = DEFAULT_S
    ) -> ConnectResponse:
        """The pids of shim and container (the call Connect)."""
        request = messages.Target(id)
        return await self._call("Connect", request, messages.ConnectResponse, timeout_s)

    async def shutdown(self, id: str, *, timeout_s: float | None = DEFAULT_S) -> None:
        """The shim ends if it serves no container any more; else nothing happens.

        A connection that is closed instead of an answer, as kata does it, is success.
        """
        try:
            await self._raw("Shutdown", messages.ShutdownRequest(id), timeout_s)
        except Gone:
            return


async def _dial(address: str) -> socket.socket:
    """A connected socket.  The caller limits the time."""
    if address.startswith("unix://"):
        return await _dial_path(address.removeprefix("unix://"))
    name = b"\0" + os.fsencode(address)
    try:
        return await _dial_at(name)
    except ConnectionRefusedError:
        # programs of older Go versions bind the name with a NUL at its end
        return await _dial_at(name + b"\0")


async def _dial_path(path: str) -> socket.socket:
    if len(os.fsencode(path)) < _SUN_PATH:
        return await _dial_at(path)
    folder, name = os.path.split(path)
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return await _dial_at(f"/proc/self/fd/{fd}/{name}")
    finally:
        os.close(fd)


async def _dial_at(address: str | bytes) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        while True:
            try:
                sock.connect(address)
            except BlockingIOError:
                # its queue is full: unix(7) has no way to be told when it is not
                await asyncio.sleep(_BUSY_S)
                continue
            return sock
    except BaseException:
        sock.close()
        raise
