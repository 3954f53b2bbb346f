"""One plugin: its connection, its registration, and the requests it gets."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from isula_cri.nri import messages
from isula_cri.nri.messages import EVENTS, VALID_EVENTS
from isula_cri.nri.mux import PLUGIN, RUNTIME, Mux
from isula_edge import errors
from isula_edge.runtime.ttrpc import Broken, Client, Server
from isula_edge.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

__all__ = ["INDEX", "NAME", "NRI_VERSION", "Plugin", "method"]

_log = logging.getLogger(__name__)
NRI_VERSION = "v0.12.0"
"""The release of NRI whose plugins are served; older ones too."""
NAME = re.compile(r"[A-Za-z0-9_.+-]+")
INDEX = re.compile(r"[0-9]{2}")
# a message may have 4 MiB; one pod or container has never more than a few hundred KiB
_PART = 2 << 20
# calls that before release 0.12 were one, StateChange
_CHANGES = {
    "RunPodSandbox",
    "StopPodSandbox",
    "RemovePodSandbox",
    "PostUpdatePodSandbox",
    "PostCreateContainer",
    "StartContainer",
    "PostStartContainer",
    "PostUpdateContainer",
    "RemoveContainer",
}


class Plugin:
    """A plugin that is connected.

    ``ident`` is (index, name) of one that was started by us and '' for one that says it
    itself.  ``update`` carries out updates that it asks for and gives those that failed.
    """

    def __init__(
        self,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        update: Callable[[Sequence[Any]], Awaitable[list[Any]]],
        *,
        registration_s: float,
        request_s: float,
        ident: tuple[str, str] = ("", ""),
        config: str = "",
    ) -> None:
        self.index, self.base = ident
        self.events = 0
        self.closed = False
        self._config = config
        self._update = update
        self._registration_s = registration_s
        self._request_s = request_s
        self._registered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._old: set[str] = set()
        mux = Mux(*streams, (PLUGIN, RUNTIME))
        self._client = Client(mux.channels[PLUGIN], mux.channels[PLUGIN])
        channel = mux.channels[RUNTIME]
        server = Server(channel, channel, {messages.RUNTIME: self._serve})
        self._tasks = [asyncio.create_task(mux.run()), asyncio.create_task(server.serve())]

    @property
    def name(self) -> str:
        """As it is shown, and as owner of what it sets: ``INDEX-NAME``."""
        return f"{self.index}-{self.base}"

    async def start(self) -> None:
        """Waits for the registration, and configures it.

        Raises DeadlineExceeded, FailedPrecondition or what the plugin answers.
        """
        gone = asyncio.create_task(self._client.wait_closed())
        try:
            await asyncio.wait(
                [self._registered, gone],
                timeout=self._registration_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            gone.cancel()
        if not self._registered.done():
            if gone.done():
                raise errors.Unavailable("it hung up before it registered", kind="NRI")
            raise errors.DeadlineExceeded("it did not register in time", kind="NRI")
        self._registered.result()
        request = messages.ConfigureRequest(
            config=self._config,
            runtime_name="isula-edge",
            runtime_version=VERSION,
            registration_timeout=int(self._registration_s * 1000),
            request_timeout=int(self._request_s * 1000),
            NRI_version=NRI_VERSION,
        )
        answer = await self._call("Configure", request, messages.ConfigureResponse, self._request_s)
        if answer.events & ~VALID_EVENTS:
            raise errors.InvalidArgument(
                f"it subscribes to events that do not exist: {answer.events:#x}", kind="NRI"
            )
        self.events = answer.events or VALID_EVENTS

    async def synchronize(self, pods: Sequence[Any], containers: Sequence[Any]) -> list[Any]:
        """Tells all pods and containers; gives the updates that the plugin asks for.

        A plugin has the time of a registration for it, since it may have much to take in.
        Raises FailedPrecondition when there are too many for it, or what it answers.
        """
        parts = _parts(pods, containers)
        answer = messages.SynchronizeResponse()
        for request in parts:
            answer = await self._call(
                "Synchronize", request, messages.SynchronizeResponse, self._registration_s
            )
            if request.more and (answer.update or not answer.more):
                raise errors.FailedPrecondition(
                    "it does not know synchronization in several parts", kind="NRI"
                )
        return list(answer.update)

    def wants(self, event: str) -> bool:
        """Whether it has subscribed to ``event``, a name of Event."""
        return not self.closed and bool(self.events & 1 << EVENTS[event] - 1)

    async def relay(self, event: str, request: Any) -> Any:
        """The answer to ``request``; None when there is none.

        A plugin that breaks the protocol or takes too long is closed.  Raises what it says
        is wrong.
        """
        name = method(event)
        answer = getattr(messages, f"{name}Response")
        try:
            if name not in self._old:
                try:
                    return await self._call(name, request, answer, self._request_s)
                except errors.Unimplemented:
                    if name not in _CHANGES:
                        return None
                    self._old.add(name)
            change = messages.StateChangeEvent(event=EVENTS[event], pod=request.pod)
            if "container" in request.DESCRIPTOR.fields_by_name:
                change.container.CopyFrom(request.container)
            await self._call("StateChange", change, messages.Empty, self._request_s)
        except (Broken, TimeoutError, DecodeError) as error:
            reason = "it took too long" if isinstance(error, TimeoutError) else str(error)
            _log.error("NRI: plugin %s is dropped: %s: %s", self.name, name, reason)
            self.close()
        except errors.EngineError as error:
            raise type(error)(
                f'NRI plugin "{self.name}" refuses {name}: {error.message}',
                kind="NRI",
                ref=self.name,
            ) from error
        return None

    async def shut_down(self, limit_s: float) -> None:
        """Says that the engine ends, and hangs up."""
        try:
            await self._call("Shutdown", messages.Empty(), messages.Empty, limit_s)
        except (errors.EngineError, TimeoutError, DecodeError) as error:
            _log.debug("NRI: plugin %s: Shutdown: %s", self.name, error)
        self.close()
        await self.wait_closed()

    async def wait_closed(self) -> None:
        """Waits until the connection has ended, and nothing of it runs."""
        await self._client.wait_closed()
        self.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def close(self) -> None:
        """Hangs up; may be called again."""
        self.closed = True
        self._client.abort()
        for task in self._tasks:
            task.cancel()
        self._registered.cancel()

    async def _call(self, method: str, request: Any, answer: Any, limit_s: float) -> Any:
        data = request.SerializeToString()
        found = await self._client.call(messages.PLUGIN, method, data, timeout_s=limit_s)
        return answer.FromString(found)

    async def _serve(self, method: str, payload: bytes) -> bytes:
        """What the plugin calls."""
        try:
            if method == "RegisterPlugin":
                self._register(messages.RegisterPluginRequest.FromString(payload))
                return b""
            if method == "UpdateContainers":
                return await self._updates(messages.UpdateContainersRequest.FromString(payload))
        except DecodeError as error:
            raise errors.InvalidArgument(f"{method}: the request makes no sense") from error
        raise errors.Unimplemented(f"{method} is not served")

    def _register(self, request: Any) -> None:
        if self._registered.done():
            raise errors.FailedPrecondition("a plugin registers once")
        if not self.base:
            if not NAME.fullmatch(request.plugin_name) or not INDEX.fullmatch(request.plugin_idx):
                error = errors.InvalidArgument(
                    f"{request.plugin_idx!r} and {request.plugin_name!r:.100} are not two digits "
                    "and a name of letters, digits and . _ + -",
                    kind="NRI",
                )
                self._registered.set_exception(error)
                raise error
            self.index, self.base = request.plugin_idx, request.plugin_name
        self._registered.set_result(None)

    async def _updates(self, request: Any) -> bytes:
        if not self.events:
            raise errors.FailedPrecondition("a plugin is configured before it asks for anything")
        if request.evict:
            raise errors.Unimplemented("this engine evicts no containers")
        failed = await self._update(request.update)
        data: bytes = messages.UpdateContainersResponse(failed=failed).SerializeToString()
        return data


def method(event: str) -> str:
    """The call of an event: ``RUN_POD_SANDBOX`` is RunPodSandbox."""
    return "".join(word.capitalize() for word in event.split("_"))


def _parts(pods: Sequence[Any], containers: Sequence[Any]) -> list[Any]:
    """Requests that a message has room for; all but the last say that more follows."""
    parts = [messages.SynchronizeRequest()]
    size = 0
    for name, items in (("pods", pods), ("containers", containers)):
        for item in items:
            size += item.ByteSize()
            if size > _PART and (parts[-1].pods or parts[-1].containers):
                parts[-1].more = True
                parts.append(messages.SynchronizeRequest())
                size = item.ByteSize()
            getattr(parts[-1], name).append(item)
    return parts
