"""What all parts of the CRI share: the engine, plugins, and how pods and containers are found."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from isula_cri import messages
from isula_cri import resources as cri_resources
from isula_edge import errors
from isula_edge.container import staging
from isula_edge.container.record import Container, Status
from isula_edge.oci.resources import ResourceChange
from isula_edge.service.attempts import Attempts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from isula_cri.nri import ContainerInfo, Nri, PodInfo, Resources
    from isula_edge.pod.record import Pod
    from isula_edge.service.engine import Engine
    from isula_edge.service.events import Event

__all__ = ["Node", "limit_change", "limit_resources", "limits_of"]

_STATES = {
    Status.CREATED: "created",
    Status.STARTING: "created",
    Status.RUNNING: "running",
    Status.PAUSED: "paused",
    Status.EXITED: "stopped",
}


class Node:
    """One engine as the CRI sees it; the :class:`View` of NRI's plugins."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.nri: Nri | None = None
        self._features: staging.Features | None = None
        self.creations: Attempts[Container] = Attempts()
        self._started: set[str] = {item.id for item in engine.table if item.running}
        engine.events.listen(self._heard)

    async def features(self) -> staging.Features:
        """What mounts and user namespaces can do here, tried at the first question."""
        if self._features is None:
            driver = self.engine.layers.driver
            self._features = await asyncio.to_thread(staging.features, driver)
        return self._features

    def user_namespaces(self, features: staging.Features, runtime: str) -> bool:
        """Whether pods of ``runtime`` can have one."""
        program = getattr(self.engine.runtimes[runtime], "program", "")
        return features.user_namespaces and staging.supports_user_namespaces(runtime, program)

    @contextlib.asynccontextmanager
    async def making(self) -> AsyncIterator[None]:
        """While inside, plugins are not synchronized: something is half made."""
        if self.nri is None:
            yield
            return
        async with self.nri.block():
            yield

    @property
    def told(self) -> Nri | None:
        """NRI when a plugin is to be told of something."""
        return None if self.nri is None or self.nri.idle else self.nri

    def pod(self, ref: str) -> Pod:
        """A pod by id or prefix; NotFound."""
        return self.engine.pods.get(ref)

    def container(self, ref: str) -> Container:
        """A container of a pod by id or prefix; NotFound."""
        found = self.engine.table.get(ref) if ref else None
        if found is None or not found.pod or not found.id.startswith(ref):
            raise errors.NotFound(f"No such container with id: {ref}", kind="container", ref=ref)
        return found

    def find_container(self, ref: str) -> Container | None:
        """As :meth:`container`; None when there is none."""
        try:
            return self.container(ref)
        except errors.NotFound:
            return None

    def all_containers(self) -> list[Container]:
        """Containers of pods, the oldest first."""
        found = [item for item in self.engine.table if item.pod]
        return sorted(found, key=lambda item: item.created_ns)

    def containers_of(self, pod: Pod) -> list[Container]:
        """Containers of one pod, the oldest first."""
        return sorted(self.engine.pods.containers(pod), key=lambda item: item.created_ns)

    def close(self) -> None:
        """Listens no longer."""
        self.engine.events.unlisten(self._heard)

    def all_pods(self) -> list[Pod]:
        """Pods, the oldest first."""
        return sorted(self.engine.pods, key=lambda pod: pod.created_ns)

    # what NRI's plugins see

    def pods(self) -> Sequence[PodInfo]:
        """See :class:`isula_cri.nri.View`."""
        return [self.pod_info(pod) for pod in self.all_pods()]

    def containers(self) -> Sequence[ContainerInfo]:
        """See :class:`isula_cri.nri.View`."""
        return [self.container_info(item) for item in self.all_containers()]

    async def update(self, container_id: str, resources: Resources) -> None:
        """See :class:`isula_cri.nri.View`."""
        await self.engine.containers.update(self.container(container_id), limit_change(resources))

    def pod_info(self, pod: Pod) -> PodInfo:
        """A pod as plugins see it."""
        from isula_cri.nri import PodInfo

        spec = pod.spec
        return PodInfo(
            pod.id,
            spec.name,
            spec.uid,
            spec.namespace,
            spec.labels,
            spec.annotations,
            spec.handler,
            spec.cgroup_parent,
            pod.pause.pid if pod.pause else 0,
            pod.ips,
            {kind: path for kind, path in pod.namespaces.items() if path},
            _limits(spec.resources),
            _limits(spec.overhead),
        )

    def container_info(self, container: Container) -> ContainerInfo:
        """A container as plugins see it."""
        from isula_cri.nri import from_settings

        state = container.state
        return replace(
            from_settings(container.settings),
            id=container.id,
            pod_id=container.pod,
            name=container.cri["name"],
            state=_STATES[state.status],
            annotations=container.cri["annotations"],
            args=container.args,
            pid=state.pid,
            created_ns=container.created_ns,
            started_ns=state.started_ns,
            finished_ns=state.finished_ns,
            exit_code=state.exit_code,
            message=state.error,
            image=container.image,
            image_id=container.image_id,
        )

    def _heard(self, event: Event) -> None:
        """Tells plugins of the end of a container, once for each start."""
        if event.kind != "container":
            return
        if event.action == "start":
            self._started.add(event.id)
        elif event.action == "die" and event.id in self._started:
            self._started.discard(event.id)
            if self.told is not None:
                self.engine.background(self._stopped(event.id))

    async def _stopped(self, container_id: str) -> None:
        container = self.find_container(container_id)
        nri = self.told
        if nri is None or container is None:
            return
        pod = self.engine.pods.find(container.pod)
        if pod is not None:
            await nri.stop_container(self.pod_info(pod), self.container_info(container))


def _limits(stored: dict[str, Any]) -> Resources | None:
    return limits_of(messages.LinuxContainerResources(**stored)) if stored else None


def limits_of(message: Any) -> Resources:
    """A LinuxContainerResources as plugins see it."""
    return limit_resources(cri_resources.change(message))


def limit_change(resources: Resources) -> ResourceChange:
    """The limits that a plugin asks for; Unimplemented for those that cannot be changed."""
    for name in ("blockio_class", "rdt_class", "cpu_rt_runtime", "cpu_rt_period"):
        if getattr(resources, name, None):
            raise errors.Unimplemented(f"{name} cannot be changed", kind="resources", ref=name)
    return ResourceChange(
        cpu_shares=resources.cpu_shares or 0,
        cpu_period=resources.cpu_period or 0,
        cpu_quota=resources.cpu_quota or 0,
        cpuset_cpus=resources.cpuset_cpus,
        cpuset_mems=resources.cpuset_mems,
        memory=resources.memory_limit or 0,
        memory_swap=resources.memory_swap or 0,
        pids_limit=resources.pids_limit or 0,
        hugepages=tuple(resources.hugepages),
        unified=dict(resources.unified),
    )


def limit_resources(change: ResourceChange) -> Resources:
    """The reverse of :func:`limit_change`."""
    from isula_cri.nri import Resources

    return Resources(
        cpu_shares=change.cpu_shares or None,
        cpu_period=change.cpu_period or None,
        cpu_quota=change.cpu_quota or None,
        cpuset_cpus=change.cpuset_cpus,
        cpuset_mems=change.cpuset_mems,
        memory_limit=change.memory or None,
        memory_swap=change.memory_swap or None,
        pids_limit=change.pids_limit or None,
        hugepages=change.hugepages,
        unified=change.unified,
    )
