"""An NRI plugin and an engine's view, for the engine's side of NRI to work with."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from isula_cri.nri import ContainerInfo, PodInfo, Resources, messages
from isula_cri.nri.mux import PLUGIN, RUNTIME, Mux
from isula_edge import errors
from isula_edge.runtime.ttrpc import Client, Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

__all__ = ["POD", "FakeView", "Plugin", "plugin", "soon"]

POD = PodInfo("pod1", "web", "uid1", "default")
ALL = {
    "Configure", "Synchronize", "Shutdown", "RunPodSandbox", "StopPodSandbox", "RemovePodSandbox",
    "UpdatePodSandbox", "PostUpdatePodSandbox", "CreateContainer", "PostCreateContainer",
    "StartContainer", "PostStartContainer", "UpdateContainer", "PostUpdateContainer",
    "StopContainer", "RemoveContainer", "ValidateContainerAdjustment",
}  # fmt: skip
OLD = {"Configure", "Synchronize", "CreateContainer", "UpdateContainer", "StopContainer"}
"""What plugins of before release 0.12 serve, with StateChange."""


@dataclass
class FakeView:
    """Pods and containers, and the updates that were asked for."""

    found: list[PodInfo] = field(default_factory=list)
    made: list[ContainerInfo] = field(default_factory=list)
    updates: list[tuple[str, Resources]] = field(default_factory=list)
    failing: set[str] = field(default_factory=set)

    def pods(self) -> Sequence[PodInfo]:
        return self.found

    def containers(self) -> Sequence[ContainerInfo]:
        return self.made

    async def update(self, container_id: str, resources: Resources) -> None:
        if container_id in self.failing:
            raise errors.NotFound(f"no container {container_id}")
        self.updates.append((container_id, resources))


class Plugin:
    """A plugin that notes what it hears.

    ``hooks`` maps a call to what is done with its request: an answer, None for an empty one,
    a coroutine of either, or an EngineError raised.  ``calls`` are those that it serves.
    """

    def __init__(
        self,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        hooks: dict[str, Callable[[Any], Any]] | None = None,
        calls: set[str] | None = None,
    ) -> None:
        self.hooks = hooks or {}
        self.calls = ALL if calls is None else calls
        self.heard: list[tuple[str, Any]] = []
        self.mux = Mux(*streams, (PLUGIN, RUNTIME))
        runtime, own = self.mux.channels[RUNTIME], self.mux.channels[PLUGIN]
        self.client = Client(runtime, runtime)
        server = Server(own, own, {messages.PLUGIN: self.serve})
        self.tasks = [asyncio.create_task(self.mux.run()), asyncio.create_task(server.serve())]

    @property
    def names(self) -> list[str]:
        """The calls that it heard."""
        return [name for name, _ in self.heard]

    def last(self, name: str) -> Any:
        """The last request of a call."""
        return next(request for heard, request in reversed(self.heard) if heard == name)

    async def serve(self, method: str, payload: bytes) -> bytes:
        if method not in self.calls:
            raise errors.Unimplemented(method)
        kind = {"StateChange": "StateChangeEvent", "Shutdown": "Empty"}.get(
            method, f"{method}Request"
        )
        request = getattr(messages, kind).FromString(payload)
        self.heard.append((method, request))
        answer = self.hooks[method](request) if method in self.hooks else None
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer is None:
            return b""
        return answer if isinstance(answer, bytes) else bytes(answer.SerializeToString())

    async def register(self, name: str, index: str) -> None:
        request = messages.RegisterPluginRequest(plugin_name=name, plugin_idx=index)
        await self.call("RegisterPlugin", request)

    async def call(self, method: str, request: Any) -> bytes:
        """Calls the engine."""
        data = request.SerializeToString()
        return await self.client.call(messages.RUNTIME, method, data, timeout_s=30)

    async def close(self) -> None:
        await self.client.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def plugin(
    path: str,
    name: str = "test",
    index: str = "10",
    *,
    calls: set[str] | None = None,
    **hooks: Callable[[Any], Any],
) -> AsyncIterator[Plugin]:
    """A plugin that is connected to the socket ``path`` and has registered."""
    made = Plugin(await asyncio.open_unix_connection(path), hooks, calls)
    try:
        await made.register(name, index)
        yield made
    finally:
        await made.close()


async def soon(condition: Callable[[], object], what: str) -> None:
    """Waits until ``condition`` holds."""
    try:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110  # it may be anything
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"{what} did not come true") from None
