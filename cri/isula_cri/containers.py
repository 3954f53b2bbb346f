"""RPCs of containers: their life, status and resources."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any

from isula_cri import messages, resources, status
from isula_cri.container_config import Creation, container_name, creation
from isula_cri.node import limit_change, limit_resources
from isula_cri.pages import pages
from isula_edge import errors
from isula_edge.container import staging
from isula_edge.container.record import Status
from isula_edge.sys.tasks import to_its_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from isula_cri.node import Node
    from isula_edge.container.record import Container
    from isula_edge.pod.record import Pod

__all__ = ["ContainerCalls"]

_LONGEST_STOP_S = 2**31 - 1


class ContainerCalls:
    """CreateContainer to UpdateContainerResources."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._engine = node.engine

    async def CreateContainer(self, request: Any, context: Any) -> Any:  # noqa: N802
        """A container in a ready pod, of an image that is here."""
        del context
        pod = self._node.pod(request.pod_sandbox_id)
        if not pod.ready:
            raise errors.FailedPrecondition(
                f"pod sandbox {pod.id} is not ready", kind="pod", ref=pod.id
            )
        if not request.HasField("config"):
            raise errors.InvalidArgument("a container needs a config")
        messages.refuse_nul(request.config)
        name = container_name(pod, request.config.metadata)
        asked = (pod.id, request.config.SerializeToString(deterministic=True))
        async with self._node.making():
            container = await self._node.creations.run(
                name, asked, lambda: self._create(pod, request.config)
            )
        return messages.CreateContainerResponse(container_id=container.id)

    async def _create(self, pod: Pod, config: Any) -> Container:
        asked = creation(self._engine, pod, config)
        nri = self._node.told
        if nri is None:
            return await self._make(pod, asked)
        return await self._create_asking(pod, asked)

    async def _create_asking(self, pod: Pod, asked: Creation) -> Container:
        """As :meth:`_make`, with what NRI's plugins change."""
        from dataclasses import replace

        from isula_cri.nri import apply, from_settings
        from isula_edge.oci import cdi

        nri = self._node.nri
        assert nri is not None  # noqa: S101
        info = self._node.pod_info(pod)
        asked.id = os.urandom(32).hex()
        described = replace(
            from_settings(asked.settings),
            id=asked.id,
            pod_id=pod.id,
            name=asked.cri["name"],
            annotations=asked.cri["annotations"],
            args=asked.args,
        )
        adjustment = await nri.create_container(info, described)
        try:
            if adjustment is not None:
                asked.settings = apply(adjustment, asked.settings)
                asked.args = adjustment.args or asked.args
                names = adjustment.cdi_devices
                if names:
                    cdi.apply(asked.settings, names, self._engine.config.cri.cdi_dirs)
            container = await self._make(pod, asked)
        except BaseException:
            await nri.undo_create(info, described)
            raise
        await nri.post_create(info, self._node.container_info(container))
        return container

    async def _make(self, pod: Pod, asked: Creation) -> Container:
        engine = self._engine
        with contextlib.ExitStack() as stack:
            for mount in asked.settings.mounts:
                if mount.image:
                    stack.enter_context(engine.images.holding(engine.images.store.get(mount.image)))
            if any(mount.image for mount in asked.settings.mounts):
                scratch = f"{engine.config.state}/check-{os.urandom(8).hex()}"
                work = asyncio.to_thread(
                    staging.check_volumes, asked.settings, scratch, engine.layers
                )
                await to_its_end(work)
            container = await engine.containers.create_from(
                asked.settings,
                image=asked.image.id,
                command=asked.args,
                name=asked.name,
                runtime=pod.spec.runtime,
                pod=pod.id,
                cri=asked.cri,
                container_id=asked.id,
            )
        if engine.pods.find(pod.id) is not pod:
            await engine.containers.remove(container, force=True)
            raise errors.NotFound(f"No such pod sandbox: {pod.id}", kind="pod", ref=pod.id)
        return container

    async def StartContainer(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Starts a created container; its log file exists afterwards."""
        del context
        container = self._node.container(request.container_id)
        if container.state.status is not Status.CREATED:
            raise errors.FailedPrecondition(
                f"container {container.id} cannot be started, it is {container.state.status}",
                kind="container",
                ref=container.id,
            )
        pod = self._node.pod(container.pod)
        if not pod.ready:
            raise errors.FailedPrecondition(
                f"pod sandbox {pod.id} is not ready", kind="pod", ref=pod.id
            )
        # a kubelet that has left finds out what became of it by the status
        await to_its_end(self._start(pod, container))
        return messages.StartContainerResponse()

    async def _start(self, pod: Pod, container: Container) -> None:
        nri = self._node.told
        if nri is None:
            await self._engine.containers.start(container)
        else:
            info = self._node.pod_info(pod)
            await nri.start_container(info, self._node.container_info(container))
            await self._engine.containers.start(container)
            await nri.post_start(info, self._node.container_info(container))

    async def StopContainer(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Stops a container; one that is unknown or does not run is fine."""
        del context
        container = self._node.find_container(request.container_id)
        if container is not None:
            seconds = min(request.timeout, _LONGEST_STOP_S)
            await self._engine.containers.stop(container, float(seconds), force=seconds == 0)
        return messages.StopContainerResponse()

    async def RemoveContainer(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Removes a container, running or not; an unknown one is fine."""
        del context
        container = self._node.find_container(request.container_id)
        if container is not None:
            with contextlib.suppress(errors.NotFound):
                await to_its_end(self._remove(container))
        return messages.RemoveContainerResponse()

    async def _remove(self, container: Container) -> None:
        nri = self._node.told
        if nri is not None:
            await self._engine.containers.stop(container, 0, force=True)
            pod = self._engine.pods.find(container.pod)
            if pod is not None:
                info = self._node.container_info(container)
                await nri.remove_container(self._node.pod_info(pod), info)
        await self._engine.containers.remove(container, force=True)

    def _listed(self, wanted: Any) -> list[Any]:
        labels = dict(wanted.label_selector)
        return [
            status.container_item(item)
            for item in self._node.all_containers()
            if item.id.startswith(wanted.id)
            and item.pod.startswith(wanted.pod_sandbox_id)
            and (not wanted.HasField("state") or status.container_state(item) == wanted.state.state)
            and labels.items() <= item.settings.labels.items()
        ]

    async def ListContainers(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The containers that the filter fits."""
        del context
        return messages.ListContainersResponse(containers=self._listed(request.filter))

    async def StreamContainers(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """As ListContainers, in parts."""
        del context
        for page in pages(self._listed(request.filter)):
            yield messages.StreamContainersResponse(containers=page)

    async def ContainerStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        """One container; verbose with its process id and runtime-spec document as JSON."""
        del context
        container = self._node.container(request.container_id)
        answer = messages.ContainerStatusResponse(
            status=status.container_message(self._engine, container)
        )
        if request.verbose:
            answer.info.update(status.verbose_container(self._engine, container))
        return answer

    async def UpdateContainerResources(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Changes limits, all or none; 0 and empty leave one as it is."""
        del context
        container = self._node.container(request.container_id)
        change = resources.change(request.linux)
        nri = self._node.told
        pod = self._engine.pods.find(container.pod)
        if nri is None or pod is None:
            await self._engine.containers.update(container, change)
        else:
            info = self._node.pod_info(pod)
            described = self._node.container_info(container)
            wanted = await nri.update(info, described, limit_resources(change))
            await self._engine.containers.update(container, limit_change(wanted))
            await nri.post_update(info, self._node.container_info(container))
        return messages.UpdateContainerResourcesResponse()

    async def ReopenContainerLog(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Goes on in a new file after the kubelet has renamed the log."""
        del context
        container = self._node.container(request.container_id)
        if not container.settings.log_path:
            raise errors.FailedPrecondition(
                f"container {container.id} has no log_path", kind="container", ref=container.id
            )
        await self._engine.life.reopen_log(container)
        return messages.ReopenContainerLogResponse()

    async def CheckpointContainer(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Writes an archive of a running container, by criu."""
        del context
        from isula_cri.checkpoint import checkpoint

        container = self._node.container(request.container_id)
        pod = self._engine.pods.find(container.pod)
        network = {"ips": pod.ips} if pod is not None else None
        await checkpoint(
            self._engine, container, request.location, float(request.timeout), network
        )
        return messages.CheckpointContainerResponse()

    async def CheckpointPod(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Not served, on purpose."""
        del request, context
        from isula_cri.checkpoint import refuse_pods

        raise refuse_pods("CheckpointPod")

    async def RestorePod(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Not served, on purpose."""
        del request, context
        from isula_cri.checkpoint import refuse_pods

        raise refuse_pods("RestorePod")
