"""RPCs of pod sandboxes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from isula_cri import messages, status
from isula_cri.node import limits_of
from isula_cri.pages import pages
from isula_cri.pod_config import pod_spec
from isula_cri.resources import stored
from isula_edge import errors
from isula_edge.sys.tasks import to_its_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from isula_cri.node import Node
    from isula_cri.nri import Nri
    from isula_edge.pod.record import Pod

__all__ = ["PodCalls"]


class PodCalls:
    """RunPodSandbox to ListPodSandbox."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._pods = node.engine.pods
        # of which plugins have been told that they stop
        self._stopped: set[str] = set()

    async def RunPodSandbox(self, request: Any, context: Any) -> Any:  # noqa: N802
        """A pod, ready for containers; on failure nothing is left."""
        del context
        engine = self._node.engine
        if not request.HasField("config"):
            raise errors.InvalidArgument("a pod needs a config")
        messages.refuse_nul(request)
        spec = pod_spec(engine, request.config, request.runtime_handler)
        if spec.uid_maps:
            features = await self._node.features()
            if not self._node.user_namespaces(features, spec.runtime):
                raise errors.Unimplemented(
                    f"runtime {spec.runtime} gives pods no user namespace here", kind="feature"
                )
        async with self._node.making():
            pod = await self._pods.run(spec, self._admit)
        return messages.RunPodSandboxResponse(pod_sandbox_id=pod.id)

    async def _admit(self, pod: Pod) -> None:
        """Asks the plugins; what one says against the pod is raised."""
        nri = self._node.told
        if nri is not None:
            await nri.run_pod(self._node.pod_info(pod))

    async def StopPodSandbox(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Ends all of a pod; a pod that is unknown or stopped is fine."""
        del context
        pod = self._pods.find(request.pod_sandbox_id)
        if pod is not None:
            await to_its_end(self._stop(pod))
        return messages.StopPodSandboxResponse()

    async def _stop(self, pod: Pod) -> None:
        nri = self._node.told
        if nri is None or pod.id in self._stopped:
            await self._pods.stop(pod)
            return
        self._stopped.add(pod.id)
        try:
            await self._stop_telling(pod, nri)
        except BaseException:
            # told again by the next call
            self._stopped.discard(pod.id)
            raise
        await self._pods.stop(pod)

    async def _stop_telling(self, pod: Pod, nri: Nri) -> None:
        for container in self._pods.containers(pod):
            await self._node.engine.containers.stop(container, 0, force=True)
        await nri.stop_pod(self._node.pod_info(pod))

    async def RemovePodSandbox(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Removes a pod with its containers; an unknown one is fine."""
        del context
        pod = self._pods.find(request.pod_sandbox_id)
        if pod is not None:
            await to_its_end(self._remove(pod))
        return messages.RemovePodSandboxResponse()

    async def _remove(self, pod: Pod) -> None:
        await self._stop(pod)
        nri = self._node.told
        if nri is not None:
            info = self._node.pod_info(pod)
            for container in self._pods.containers(pod):
                await nri.remove_container(info, self._node.container_info(container))
            await nri.remove_pod(info)
        await self._pods.remove(pod)
        self._stopped.discard(pod.id)

    async def PodSandboxStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        """One pod with the status of its containers; verbose with details as JSON."""
        del context
        engine = self._node.engine
        pod = self._node.pod(request.pod_sandbox_id)
        answer = messages.PodSandboxStatusResponse(
            status=status.pod_message(pod),
            containers_statuses=[
                status.container_message(engine, item)
                for item in self._node.containers_of(pod)
            ],
            timestamp=time.time_ns(),
        )
        if request.verbose:
            answer.info.update(status.verbose_pod(engine, pod))
        return answer

    def _listed(self, wanted: Any) -> list[Any]:
        labels = dict(wanted.label_selector)
        return [
            status.pod_item(pod)
            for pod in self._node.all_pods()
            if pod.id.startswith(wanted.id)
            and (not wanted.HasField("state") or status.is_ready(pod) == wanted.state.state)
            and labels.items() <= pod.spec.labels.items()
        ]

    async def ListPodSandbox(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The pods that the filter fits."""
        del context
        return messages.ListPodSandboxResponse(items=self._listed(request.filter))

    async def StreamPodSandboxes(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """As ListPodSandbox, in parts."""
        del context
        for page in pages(self._listed(request.filter)):
            yield messages.StreamPodSandboxesResponse(pod_sandboxes=page)

    async def UpdatePodSandboxResources(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Remembers what the kubelet has set for the pod's cgroup, and tells the plugins."""
        del context
        pod = self._node.pod(request.pod_sandbox_id)
        given = [
            getattr(request, name) if request.HasField(name) else None
            for name in ("overhead", "resources")
        ]
        nri = self._node.told
        if nri is not None:
            limits = [item and limits_of(item) for item in given]
            await nri.update_pod(self._node.pod_info(pod), *limits)
        await self._pods.update(pod, *(item and stored(item) for item in given))
        if nri is not None:
            await nri.post_update_pod(self._node.pod_info(pod))
        return messages.UpdatePodSandboxResourcesResponse()
