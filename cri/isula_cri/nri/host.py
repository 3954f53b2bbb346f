"""The engine's side of NRI: the socket, the plugins that are connected, and what they hear."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from google.protobuf.message import DecodeError

from isula_cri.nri import messages
from isula_cri.nri.adjust import Adjustment
from isula_cri.nri.gate import Gate
from isula_cri.nri.info import Resources, container_message, pod_message
from isula_cri.nri.launch import end, find, launch
from isula_cri.nri.merge import Creation, Owners, Updates
from isula_cri.nri.plugin import Plugin, method
from isula_edge import errors
from isula_edge.sys import unix

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from contextlib import AbstractAsyncContextManager

    from isula_cri.nri.info import ContainerInfo, PodInfo
    from isula_edge.sys.process import Identity, Reaper

__all__ = ["Nri", "View"]

_log = logging.getLogger(__name__)
_SHUTDOWN_S = 1.0
_BACKLOG = 16
_RETRY_S = 1.0


class View(Protocol):
    """What plugins may see and change of the engine."""

    def pods(self) -> Sequence[PodInfo]:
        """All pods, ready or not; none that is still being made."""

    def containers(self) -> Sequence[ContainerInfo]:
        """All containers of pods, in any state; none that is still being made."""

    async def update(self, container_id: str, resources: Resources) -> None:
        """Sets the limits that are given.  Raises EngineError."""


class Nri:
    """NRI.  ``socket_path`` of '' takes no connections; ``plugin_dir`` of '' starts nothing.

    Callers hold :meth:`block` over all of RunPodSandbox and of CreateContainer, so that a
    plugin that connects hears of each pod and container, once.  While :attr:`idle`, nothing
    is to be told, and nothing for it need be collected.
    """

    def __init__(
        self,
        socket_path: str,
        view: View,
        *,
        plugin_dir: str,
        config_dir: str,
        reaper: Reaper,
        registration_s: float = 5.0,
        request_s: float = 2.0,
    ) -> None:
        self._socket_path = socket_path
        self._view = view
        self._plugin_dir = plugin_dir
        self._config_dir = config_dir
        self._reaper = reaper
        self._registration_s = registration_s
        self._request_s = request_s
        self._listener: socket.socket | None = None
        self._plugins: list[Plugin] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._gate = Gate()
        self._turn = asyncio.Lock()

    @property
    def idle(self) -> bool:
        """Whether no plugin is connected."""
        return not self._plugins and not self._gate.closed

    @property
    def plugins(self) -> list[str]:
        """The plugins, as ``INDEX-NAME``, in the order in which they are asked."""
        return [plugin.name for plugin in self._plugins]

    def block(self) -> AbstractAsyncContextManager[None]:
        """Keeps plugins from being synchronized while a pod or container is half made."""
        return self._gate.inside()

    async def start(self) -> None:
        """Starts the plugins that are installed, then takes connections.

        A plugin that fails is logged.  Raises Unavailable when the socket cannot be made.
        """
        for item in find(self._plugin_dir, self._config_dir) if self._plugin_dir else ():
            try:
                process, streams = await launch(item, self._reaper)
            except OSError as error:
                _log.error("NRI: %s cannot be started: %s", item.path, error)
                continue
            plugin = self._plugin(streams, ident=(item.index, item.name), config=item.config)
            if await self._join(plugin):
                self._watch(plugin, process)
            else:
                end(process)
        if self._socket_path:
            await self._listen()

    async def close(self) -> None:
        """Takes no more connections, tells the plugins, and ends those that were started."""
        plugins, self._plugins = self._plugins, []
        await asyncio.gather(*(plugin.shut_down(_SHUTDOWN_S) for plugin in plugins))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()
            with contextlib.suppress(OSError):
                os.unlink(self._socket_path)

    # -- pods -------------------------------------------------------------------------------

    async def run_pod(self, pod: PodInfo) -> None:
        """Before the pod is ready.  Raises what a plugin has against it: the pod must go."""
        try:
            await self._tell("RUN_POD_SANDBOX", pod)
        except (errors.EngineError, asyncio.CancelledError):
            await self._note("STOP_POD_SANDBOX", pod)
            await self._note("REMOVE_POD_SANDBOX", pod)
            raise

    async def update_pod(
        self, pod: PodInfo, overhead: Resources | None, resources: Resources | None
    ) -> None:
        """Before the limits of a pod are changed.  Raises what a plugin has against it."""
        limits = {}
        if overhead is not None:
            limits["overhead_linux_resources"] = overhead.message()
        if resources is not None:
            limits["linux_resources"] = resources.message()
        await self._tell("UPDATE_POD_SANDBOX", pod, **limits)

    async def post_update_pod(self, pod: PodInfo) -> None:
        """After the limits of a pod were changed."""
        await self._note("POST_UPDATE_POD_SANDBOX", pod)

    async def stop_pod(self, pod: PodInfo) -> None:
        """After the pod's containers were stopped, before its network goes; once for a pod."""
        await self._note("STOP_POD_SANDBOX", pod)

    async def remove_pod(self, pod: PodInfo) -> None:
        """After the pod was removed."""
        await self._note("REMOVE_POD_SANDBOX", pod)

    # -- containers -------------------------------------------------------------------------

    async def create_container(self, pod: PodInfo, container: ContainerInfo) -> Adjustment | None:
        """Before the container is made: what plugins change in it, None for nothing.

        Updates of other containers are carried out.  Raises what a plugin has against the
        container, or a conflict of two plugins, and then plugins have been told of its end.
        """
        if self.idle:
            return None
        try:
            return await self._create(pod, container)
        except errors.EngineError:
            await self.undo_create(pod, container)
            raise

    async def undo_create(self, pod: PodInfo, container: ContainerInfo) -> None:
        """The creation failed after :meth:`create_container`."""
        await self._note("STOP_CONTAINER", pod, container)
        await self._note("REMOVE_CONTAINER", pod, container)

    async def post_create(self, pod: PodInfo, container: ContainerInfo) -> None:
        """After the container was made."""
        await self._note("POST_CREATE_CONTAINER", pod, container)

    async def start_container(self, pod: PodInfo, container: ContainerInfo) -> None:
        """Before the container is started.  Raises what a plugin has against it."""
        await self._tell("START_CONTAINER", pod, container)

    async def post_start(self, pod: PodInfo, container: ContainerInfo) -> None:
        """After the container was started."""
        await self._note("POST_START_CONTAINER", pod, container)

    async def update(
        self, pod: PodInfo, container: ContainerInfo, resources: Resources
    ) -> Resources:
        """Before limits are changed: the limits to set, with what plugins change in them.

        Updates of other containers are carried out.  Raises what a plugin has against it.
        """
        if self.idle:
            return resources
        merged = Updates(Owners())
        request = messages.UpdateContainerRequest(
            pod=pod_message(pod),
            container=container_message(container),
            linux_resources=resources.message(),
        )
        first = messages.ContainerUpdate(container_id=container.id)
        first.linux.resources.CopyFrom(request.linux_resources)
        merged.by_id[container.id] = first
        async with self.block(), self._turn:
            for plugin in self._asked("UPDATE_CONTAINER"):
                answer = await plugin.relay("UPDATE_CONTAINER", request)
                if answer is not None:
                    _no_evictions(plugin, answer.evict)
                    merged.take(plugin.name, answer.update)
                    own = merged.by_id[container.id].linux.resources
                    request.linux_resources.CopyFrom(own)
        del merged.by_id[container.id]
        await self._carry_out_all(merged)
        return Resources.of(request.linux_resources)

    async def post_update(self, pod: PodInfo, container: ContainerInfo) -> None:
        """After limits were changed."""
        await self._note("POST_UPDATE_CONTAINER", pod, container)

    async def stop_container(self, pod: PodInfo, container: ContainerInfo) -> None:
        """After the container has ended, in whatever way; once for each of its starts.

        What plugins say against it is logged; updates of other containers are carried out.
        """
        merged = await self._note("STOP_CONTAINER", pod, container)
        merged.by_id.pop(container.id, None)
        await self._carry_out(merged.by_id.values())

    async def remove_container(self, pod: PodInfo, container: ContainerInfo) -> None:
        """After the container was removed."""
        await self._note("REMOVE_CONTAINER", pod, container)

    # -- plugins ----------------------------------------------------------------------------

    def _asked(self, event: str) -> list[Plugin]:
        return [plugin for plugin in self._plugins if plugin.wants(event)]

    async def _tell(
        self, event: str, pod: PodInfo, container: ContainerInfo | None = None, **more: Any
    ) -> None:
        """Relays what plugins may refuse, and nothing else.  Raises what they say."""
        if self.idle:
            return
        async with self.block(), self._turn:
            request = _request(event, pod, container, **more)
            for plugin in self._asked(event):
                await plugin.relay(event, request)

    async def _note(
        self, event: str, pod: PodInfo, container: ContainerInfo | None = None
    ) -> Updates:
        """Relays what has happened already: what plugins say against it is logged."""
        merged = Updates(Owners())
        if self.idle:
            return merged
        async with self.block(), self._turn:
            request = _request(event, pod, container)
            for plugin in self._asked(event):
                try:
                    answer = await plugin.relay(event, request)
                    if event == "STOP_CONTAINER" and answer is not None:
                        merged.take(plugin.name, answer.update)
                except errors.EngineError as error:
                    _log.warning("NRI: %s", error)
        return merged

    async def _create(self, pod: PodInfo, container: ContainerInfo) -> Adjustment | None:
        request = messages.CreateContainerRequest(
            pod=pod_message(pod), container=container_message(container)
        )
        original = messages.Container()
        original.CopyFrom(request.container)
        merged = Creation(request)
        async with self.block(), self._turn:
            plugins = self._asked("CREATE_CONTAINER")
            for plugin in plugins:
                answer = await plugin.relay("CREATE_CONTAINER", request)
                if answer is not None:
                    _no_evictions(plugin, answer.evict)
                    merged.take(plugin.name, answer)
            await self._validate(merged, original, plugins)
        await self._carry_out_all(merged.updates)
        return Adjustment(merged.adjust) if merged.adjust.ByteSize() else None

    async def _validate(self, merged: Creation, original: Any, plugins: list[Plugin]) -> None:
        """Asks plugins that check what all plugins together have changed."""
        event = "VALIDATE_CONTAINER_ADJUSTMENT"
        if not self._asked(event):
            return
        request = messages.ValidateContainerAdjustmentRequest(
            pod=merged.request.pod,
            container=original,
            adjust=merged.adjust,
            update=merged.updates.by_id.values(),
            owners=merged.owners.message(),
            plugins=[{"name": plugin.base, "index": plugin.index} for plugin in plugins],
        )
        for plugin in self._asked(event):
            answer = await plugin.relay(event, request)
            if plugin.closed:
                raise errors.Unavailable(
                    f'NRI plugin "{plugin.name}" went while it checked a container', kind="NRI"
                )
            if answer is not None and answer.reject:
                raise errors.FailedPrecondition(
                    f'NRI plugin "{plugin.name}" rejects the adjustment of the container: '
                    f"{answer.reason or 'it says no reason'}",
                    kind="NRI",
                    ref=plugin.name,
                )

    async def _carry_out_all(self, merged: Updates) -> None:
        """Updates of other containers; Aborted when one fails that must not."""
        failed = await self._carry_out(merged.by_id.values())
        if failed:
            raise errors.Aborted(
                f"NRI: container {failed[0].container_id} could not be updated", kind="NRI"
            )

    async def _carry_out(self, updates: Any) -> list[Any]:
        """Carries out updates; those that failed and must not."""
        failed = []
        for update in list(updates):
            name = update.container_id
            try:
                await self._view.update(name, Resources.of(update.linux.resources))
            except errors.EngineError as error:
                _log.warning("NRI: container %s is not updated: %s", name, error)
                if not update.ignore_failure:
                    failed.append(update)
        return failed

    def _plugin(
        self,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        ident: tuple[str, str] = ("", ""),
        config: str = "",
    ) -> Plugin:
        return Plugin(
            streams,
            self._carry_out,
            registration_s=self._registration_s,
            request_s=self._request_s,
            ident=ident,
            config=config,
        )

    async def _join(self, plugin: Plugin) -> bool:
        """Registers and synchronizes ``plugin``; False when it fails, and is closed."""
        try:
            await plugin.start()
            async with self._gate.alone():
                pods = [pod_message(pod) for pod in self._view.pods()]
                containers = [container_message(item) for item in self._view.containers()]
                updates = await plugin.synchronize(pods, containers)
                self._plugins = sorted([*self._plugins, plugin], key=lambda one: one.index)
        except (errors.EngineError, TimeoutError, DecodeError) as error:
            reason = str(error) or "it took too long"
            _log.error("NRI: plugin %s is refused: %s", plugin.name, reason)
            plugin.close()
            await plugin.wait_closed()
            return False
        _log.info("NRI: plugin %s is connected", plugin.name)
        await self._carry_out(updates)
        return True

    def _watch(self, plugin: Plugin, process: Identity | None) -> None:
        """Forgets the plugin when its connection ends."""
        self._spawn(self._forget(plugin, process))

    async def _forget(self, plugin: Plugin, process: Identity | None) -> None:
        try:
            await plugin.wait_closed()
        finally:
            end(process)
            if plugin in self._plugins:
                self._plugins.remove(plugin)
                _log.info("NRI: plugin %s has gone", plugin.name)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _listen(self) -> None:
        path = self._socket_path
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            unix.clear(path)
            listener.bind(path)
            os.chmod(path, 0o600)
            listener.listen(_BACKLOG)
            listener.setblocking(False)
        except OSError as error:
            listener.close()
            raise errors.Unavailable(
                f"cannot listen for NRI plugins on {path}: {error}", kind="NRI", ref=path
            ) from error
        except errors.EngineError:
            listener.close()
            raise
        self._listener = listener
        self._spawn(self._accept_all(listener))

    async def _accept_all(self, listener: socket.socket) -> None:
        # not asyncio.Server: closing one loses a connection that is just coming in
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
                streams = await asyncio.open_unix_connection(sock=connection)
            except OSError as error:
                _log.error("NRI: a plugin's connection is lost: %s", error)
                await asyncio.sleep(_RETRY_S)
                continue
            plugin = self._plugin(streams)
            task = self._spawn(self._accept(plugin))
            # who is cancelled before it has begun cleans nothing up
            task.add_done_callback(partial(_hang_up, plugin))

    async def _accept(self, plugin: Plugin) -> None:
        try:
            if await self._join(plugin):
                await self._forget(plugin, None)
        finally:
            plugin.close()
            await plugin.wait_closed()


def _hang_up(plugin: Plugin, _: object) -> None:
    plugin.close()


def _request(event: str, pod: PodInfo, container: ContainerInfo | None = None, **more: Any) -> Any:
    parts = {"pod": pod_message(pod), **more}
    if container is not None:
        parts["container"] = container_message(container)
    return getattr(messages, f"{method(event)}Request")(**parts)


def _no_evictions(plugin: Plugin, asked: Any) -> None:
    if asked:
        _log.warning("NRI: plugin %s asks for evictions, which this engine has not", plugin.name)
