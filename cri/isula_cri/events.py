"""GetContainerEvents: what the kubelet's evented PLEG listens to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from isula_cri import messages, status
from isula_edge import errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from isula_cri.node import Node
    from isula_edge.pod.record import Pod
    from isula_edge.service.events import Event

__all__ = ["EventCalls"]

_QUEUE = 1024
_TYPES = messages.enum("ContainerEventType")
_ACTIONS = {
    "create": _TYPES["CONTAINER_CREATED_EVENT"],
    "start": _TYPES["CONTAINER_STARTED_EVENT"],
    "die": _TYPES["CONTAINER_STOPPED_EVENT"],
    "remove": _TYPES["CONTAINER_DELETED_EVENT"],
}
_POD_ACTIONS = {**_ACTIONS, "stop": _ACTIONS["die"]}


class EventCalls:
    """One queue for each listener; who does not read is told to list instead."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._pod_of: dict[str, str] = {item.id: item.pod for item in node.all_containers()}
        self._queues: set[asyncio.Queue[Any]] = set()
        self._closed = False
        node.engine.events.listen(self._heard)

    def _heard(self, event: Event) -> None:
        """Keeps what was so at the moment of the event."""
        if event.kind == "pod":
            self._tell(event, event.id, _POD_ACTIONS.get(event.action))
        elif event.kind == "container":
            container = next((x for x in self._node.engine.table if x.id == event.id), None)
            if container is not None and container.pod:
                self._pod_of[event.id] = container.pod
            pod_id = self._pod_of.get(event.id)
            if event.action == "remove":
                self._pod_of.pop(event.id, None)
            if pod_id:
                self._tell(event, pod_id, _ACTIONS.get(event.action))

    def _tell(self, event: Event, pod_id: str, kind: int | None) -> None:
        if kind is None or not self._queues:
            return
        answer = messages.ContainerEventResponse(
            container_id=event.id, container_event_type=kind, created_at=event.time_ns
        )
        pod = self._node.engine.pods.find(pod_id)
        if pod is not None:
            self._describe(answer, pod)
        for queue in list(self._queues):
            if queue.full():
                # it lists when the stream ends
                self._queues.discard(queue)
                queue.get_nowait()
                queue.put_nowait(None)
            else:
                queue.put_nowait(answer)

    def _describe(self, answer: Any, pod: Pod) -> None:
        engine = self._node.engine
        answer.pod_sandbox_status.CopyFrom(status.pod_message(pod))
        answer.containers_statuses.extend(
            status.container_message(engine, item)
            for item in self._node.containers_of(pod)
        )

    def close(self) -> None:
        """Ends all streams."""
        self._closed = True
        self._node.engine.events.unlisten(self._heard)
        for queue in self._queues:
            while queue.full():
                queue.get_nowait()
            queue.put_nowait(None)

    async def GetContainerEvents(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """Events from now on until the client leaves; Aborted when it reads too slowly."""
        del request, context
        queue: asyncio.Queue[Any] = asyncio.Queue(_QUEUE)
        self._queues.add(queue)
        try:
            while (answer := await queue.get()) is not None:
                yield answer
        finally:
            self._queues.discard(queue)
        if self._closed:
            return
        raise errors.Aborted("events were not read in time: list, then listen again")
