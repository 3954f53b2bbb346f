"""RPCs of statistics and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isula_cri import messages, metrics, stats, status
from isula_cri.pages import pages
from isula_edge.container.record import Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from isula_cri.node import Node
    from isula_edge.container.record import Container
    from isula_edge.pod.record import Pod
    from isula_edge.service.stats import ContainerUsage, PodUsage

__all__ = ["StatisticsCalls"]


class StatisticsCalls:
    """ContainerStats to StreamPodSandboxMetrics."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._engine = node.engine

    def _container(self, usage: ContainerUsage, container: Container) -> Any:
        return stats.container_stats(
            usage,
            metadata=status.container_metadata(container),
            labels=container.settings.labels,
            annotations=container.cri["annotations"],
            mountpoint=self._engine.layers.driver.home,
        )

    async def ContainerStats(self, request: Any, context: Any) -> Any:  # noqa: N802
        """What one container uses."""
        del context
        container = self._node.container(request.container_id)
        usage = await self._engine.stats.container(container)
        return messages.ContainerStatsResponse(stats=self._container(usage, container))

    async def _containers(self, wanted: Any) -> list[Any]:
        labels = dict(wanted.label_selector)
        chosen = [
            item
            for item in self._node.all_containers()
            if item.state.status is not Status.EXITED
            and item.id.startswith(wanted.id)
            and item.pod.startswith(wanted.pod_sandbox_id)
            and labels.items() <= item.settings.labels.items()
        ]
        usages = await self._engine.stats.containers(chosen)
        return [self._container(usage, item) for usage, item in zip(usages, chosen, strict=True)]

    async def ListContainerStats(self, request: Any, context: Any) -> Any:  # noqa: N802
        """What the containers use that the filter fits; ended ones use nothing."""
        del context
        return messages.ListContainerStatsResponse(stats=await self._containers(request.filter))

    async def StreamContainerStats(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """As ListContainerStats, in parts."""
        del context
        for page in pages(await self._containers(request.filter)):
            yield messages.StreamContainerStatsResponse(container_stats=page)

    def _running(self, pod: Pod) -> list[Container]:
        return [item for item in self._node.containers_of(pod) if item.running]

    def _pod(self, usage: PodUsage, pod: Pod, containers: Sequence[Container]) -> Any:
        listed = [
            self._container(one, item)
            for one, item in zip(usage.containers, containers, strict=True)
        ]
        return stats.pod_stats(
            usage,
            listed,
            metadata=status.pod_metadata(pod),
            labels=pod.spec.labels,
            annotations=pod.spec.annotations,
        )

    async def PodSandboxStats(self, request: Any, context: Any) -> Any:  # noqa: N802
        """What one pod uses."""
        del context
        pod = self._node.pod(request.pod_sandbox_id)
        containers = self._running(pod)
        usage = await self._engine.stats.pod(pod, containers)
        return messages.PodSandboxStatsResponse(stats=self._pod(usage, pod, containers))

    async def _pods(self, wanted: Any) -> list[Any]:
        labels = dict(wanted.label_selector)
        chosen = [
            (pod, self._running(pod))
            for pod in self._node.all_pods()
            if pod.ready
            and pod.id.startswith(wanted.id)
            and labels.items() <= pod.spec.labels.items()
        ]
        usages = await self._engine.stats.pods(chosen)
        return [
            self._pod(usage, pod, listed)
            for usage, (pod, listed) in zip(usages, chosen, strict=True)
        ]

    async def ListPodSandboxStats(self, request: Any, context: Any) -> Any:  # noqa: N802
        """What the ready pods use that the filter fits."""
        del context
        return messages.ListPodSandboxStatsResponse(stats=await self._pods(request.filter))

    async def StreamPodSandboxStats(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """As ListPodSandboxStats, in parts."""
        del context
        for page in pages(await self._pods(request.filter)):
            yield messages.StreamPodSandboxStatsResponse(pod_sandbox_stats=page)

    async def ListMetricDescriptors(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Every metric that ListPodSandboxMetrics can give."""
        del request, context
        return messages.ListMetricDescriptorsResponse(descriptors=metrics.descriptors())

    async def _metrics(self) -> list[Any]:
        chosen = [(pod, self._running(pod)) for pod in self._node.all_pods() if pod.ready]
        usages = await self._engine.stats.pods(chosen, detailed=True)
        found = []
        for usage, (pod, listed) in zip(usages, chosen, strict=True):
            containers = [
                metrics.container_metrics(one, metrics.subject_of(pod, item))
                for one, item in zip(usage.containers, listed, strict=True)
            ]
            found.append(metrics.pod_metrics(usage, metrics.subject_of(pod), containers))
        return found

    async def ListPodSandboxMetrics(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Metrics of all ready pods and their running containers."""
        del request, context
        return messages.ListPodSandboxMetricsResponse(pod_metrics=await self._metrics())

    async def StreamPodSandboxMetrics(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """As ListPodSandboxMetrics, in parts."""
        del request, context
        for page in pages(await self._metrics()):
            yield messages.StreamPodSandboxMetricsResponse(pod_sandbox_metrics=page)
