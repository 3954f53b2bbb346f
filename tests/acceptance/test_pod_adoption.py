"""The engine is killed and started again: pods and containers go on, and can be worked with."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.cri.leavings import gone
from tests.cri.node import CREATED, EXITED, READY, RUNNING, Container, Pod
from tests.rig import until

if TYPE_CHECKING:
    from tests.cri.node import Machine, Node

pytestmark = [pytest.mark.root, pytest.mark.lxc]
_SHARED = {"namespace_options": {"pid": "POD"}}
_COUNTS = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done"


def moved(container: Container, node: Node) -> Container:
    """The same container as another client knows it."""
    pod = Pod(node, container.pod.config, container.pod.id)
    return Container(pod, container.config, container.id)


def restarted(node: Node, number: int = signal.SIGKILL) -> Node:
    """A client of the engine after its end by a signal, and its start."""
    node.forget()
    node.machine.own.restart(number)
    return node.machine.node()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_all_goes_on(node: Node, runtime: str, number: int) -> None:
    machine = node.machine
    pod = node.pod(labels={"app": "kept"}, annotations={"note": "kept"})
    writer = pod.run("sh", "-c", _COUNTS)
    shared = pod.run(security=_SHARED)
    made = pod.create("sleep", "1000")
    ended = pod.run("sh", "-c", "exit 7")
    ended.wait()
    until(lambda: writer.printed(), "lines")
    started, address = writer.status().started_at, pod.status().network.ip
    before = pod.status()
    later = restarted(node, number)

    again = Pod(later, pod.config, pod.id)
    assert again.status() == before
    assert again.status().state == READY
    assert [item.state for item in again.listed()] == [READY]
    found = {item.id: item.state for item in later.call("ListContainers").containers}
    expected = {writer.id: RUNNING, shared.id: RUNNING, made.id: CREATED, ended.id: EXITED}
    assert found == expected
    assert moved(ended, later).status().exit_code == 7

    writer, shared, made = (moved(item, later) for item in (writer, shared, made))
    assert writer.status().started_at == started
    assert address in writer.output("ip", "-4", "addr", "show", "eth0")
    assert shared.output("hostname") == writer.output("hostname")
    count = len(writer.printed())
    until(lambda: len(writer.printed()) > count, "more lines")
    lines = writer.printed()
    assert lines == [str(number) for number in range(len(lines))]

    stats = later.call("ContainerStats", container_id=writer.id).stats
    assert stats.cpu.usage_core_nano_seconds.value > 0
    assert stats.memory.working_set_bytes.value > 0
    assert later.call("PodSandboxStats", pod_sandbox_id=pod.id).stats.linux.network

    made.start()
    assert made.output("echo", "well") == "well"
    new = again.run(security=_SHARED)
    assert new.output("hostname") == writer.output("hostname")
    works_to_the_end(machine, again, [writer, shared, made, new, moved(ended, later)])
    later.close()


def works_to_the_end(machine: Machine, pod: Pod, containers: list[Container]) -> None:
    """A stop of one, of all, and the removal."""
    containers[0].stop()
    assert containers[0].status().state == EXITED
    pod.stop()
    assert {item.status().state for item in containers} == {EXITED}
    pod.remove()
    gone(machine, [pod.id, *(item.id for item in containers)])


def test_killed_again_and_again(node: Node) -> None:
    pod = node.pod()
    container = pod.run("sh", "-c", _COUNTS)
    birth = container.output("cut", "-d ", "-f22", "/proc/1/stat")
    later = node
    for _ in range(5):
        later = restarted(later)
        container = moved(container, later)
        assert container.status().state == RUNNING
        assert container.output("cut", "-d ", "-f22", "/proc/1/stat") == birth
        later.call.close()
    last = node.machine.node()
    lines = container.printed()
    assert lines == [str(number) for number in range(len(lines))]
    Pod(last, pod.config, pod.id).remove()
    last.close()
    gone(node.machine, [pod.id, container.id])


def test_what_ends_meanwhile_is_known(node: Node) -> None:
    pod = node.pod()
    container = pod.run("sh", "-c", "while [ ! -e /stop ]; do sleep 0.01; done; exit 9")
    container.exec("sh", "-c", "(sleep 0.5; touch /stop) >/dev/null 2>&1 &")
    engine = node.machine.own
    node.forget()
    engine.stop(signal.SIGKILL)
    exits = engine.state / "exits" / container.id
    until(exits.exists, "the monitor noting the end")
    engine.start()
    later = node.machine.node()
    status = moved(container, later).wait()
    assert (status.exit_code, status.reason) == (9, "Error")
    assert Pod(later, pod.config, pod.id).status().state == READY
    Pod(later, pod.config, pod.id).remove()
    later.close()
    gone(node.machine, [pod.id, container.id])
