"""The stream of events that kubelets may follow instead of asking again and again."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from isula_cri import messages
from tests.rig import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cri.node import Node

pytestmark = [pytest.mark.root, pytest.mark.lxc]
_NAMES = {number: name for name, number in messages.enum("ContainerEventType").items()}


class Follower:
    """Reads a stream of events in a thread."""

    def __init__(self, node: Node) -> None:
        self._stream = node.call("GetContainerEvents", timeout_s=120)
        self.events: list[Any] = []
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        with contextlib.suppress(grpc.RpcError):
            for event in self._stream:
                self.events.append(event)

    def of(self, container_id: str) -> list[str]:
        """Kinds of the events of a container or pod."""
        return [
            _NAMES[event.container_event_type].split("_")[1].lower()
            for event in list(self.events)
            if event.container_id == container_id
        ]

    def close(self) -> None:
        """Leaves the stream."""
        self._stream.cancel()
        self.thread.join()


@pytest.fixture
def follower(node: Node) -> Iterator[Follower]:
    if node.machine.engine is None:
        pytest.skip("whether another engine has events is not known")
    found = Follower(node)
    try:
        yield found
    finally:
        found.close()


def test_a_life_in_events(node: Node, follower: Follower) -> None:
    pod = node.pod()
    # a stream that has begun misses nothing: the first event may come before it is read
    container = pod.run()
    container.stop()
    container.remove()
    pod.stop()
    pod.remove()
    until(lambda: "deleted" in follower.of(pod.id), "the last event")
    assert follower.of(container.id) == ["created", "started", "stopped", "deleted"]
    assert follower.of(pod.id) == ["created", "started", "stopped", "deleted"]
    started = next(
        event
        for event in follower.events
        if event.container_id == container.id and event.container_event_type == 1
    )
    assert started.created_at > 0
    assert started.pod_sandbox_status.id == pod.id
    assert [item.id for item in started.containers_statuses] == [container.id]


def test_an_exit_is_an_event(node: Node, follower: Follower) -> None:
    container = node.pod().run("sh", "-c", "exit 3")
    until(lambda: "stopped" in follower.of(container.id), "the event of the exit")
    stopped = next(
        event
        for event in follower.events
        if event.container_id == container.id and event.container_event_type == 2
    )
    (status,) = [item for item in stopped.containers_statuses if item.id == container.id]
    assert (status.state, status.exit_code) == (2, 3)


def test_two_follow(node: Node, follower: Follower) -> None:
    other = Follower(node)
    try:
        pod = node.pod()
        until(lambda: other.of(pod.id) == ["created", "started"], "the other's events")
        until(lambda: follower.of(pod.id) == ["created", "started"], "the first one's events")
    finally:
        other.close()


def test_status_has_the_containers(node: Node) -> None:
    if node.machine.engine is None:
        pytest.skip("whether another engine has events is not known")
    pod = node.pod()
    container = pod.run()
    found = node.call("PodSandboxStatus", pod_sandbox_id=pod.id)
    assert found.timestamp > 0
    assert [item.id for item in found.containers_statuses] == [container.id]
