"""The daemon is killed at every step of a pod's calls; the kubelet goes on, nothing is left."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tests.cri import node as nodes
from tests.cri.counted import CountedEngine, plan
from tests.cri.leavings import gone
from tests.cri.node import CREATED, NOT_READY, READY, RUNNING, Container, Pod
from tests.rig import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cri.node import Machine, Node

pytestmark = [pytest.mark.root, pytest.mark.lxc, pytest.mark.slow, pytest.mark.timeout(300)]
_ID = re.compile(r"[0-9a-f]{64}")


@pytest.fixture(scope="module")
def machine(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """An engine whose steps are counted."""
    with nodes.machine(tmp_path_factory.mktemp("killed"), images, CountedEngine) as found:
        yield found


def at_every_step(
    machine: Machine,
    runtime: str,
    ready: Callable[[Node], Any],
    call: Callable[[Node, Any], object],
    after: Callable[[Node, Any, str], object],
) -> list[str]:
    """Kills the daemon at each step of ``call`` in turn: the steps that there were.

    ``ready`` makes the state before the call; ``after`` is what the kubelet does when it
    reaches the new daemon, and it ends with the pod removed.
    """
    engine, steps_of = machine.own, plan(machine)
    step = 0
    while True:
        step += 1
        node = machine.node(runtime)
        made = ready(node)
        steps_of.arm(step)
        try:
            call(node, made)
        except grpc.RpcError:
            assert engine.process is not None
            assert engine.process.wait(30) == -signal.SIGKILL
        steps = steps_of.steps
        steps_of.arm(0)
        node.call.close()
        killed = len(steps) >= step
        where = f"killed at step {step}, {steps[-1]}" if killed else "not killed"
        if killed:
            # the last step may have come after the answer
            until(lambda: engine.process is None or engine.process.poll() is not None, where)
            engine.start()
        node = machine.node(runtime)
        try:
            after(node, made, where)
        except (AssertionError, grpc.RpcError) as error:
            raise AssertionError(f"{where}: {error}\n{engine.log_text()[-3000:]}") from error
        finally:
            node.call.close()
        gone(machine, set(_ID.findall(" ".join(steps))), where)
        if not killed:
            return steps


def run_again(node: Node, config: Any) -> Pod:
    """What a kubelet does: the pod that is ready already, or the same call once more."""
    items = node.call("ListPodSandbox").items
    for item in items:
        if item.metadata == config.metadata and item.state == READY:
            return Pod(node, config, item.id)
    assert not items
    return node.run_pod(config)


def usable(pod: Pod, node: Node) -> None:
    """The pod has a network, and containers run in it."""
    assert pod.status().state == READY
    address = pod.status().network.ip
    assert (node.machine.folder / "ipam/tests" / address).exists()
    container = pod.run(security={"namespace_options": {"pid": "POD"}})
    assert address in container.output("ip", "-4", "addr", "show", "eth0")
    container.stop()
    container.remove()


def test_run_pod_sandbox(machine: Machine) -> None:
    def after(node: Node, config: Any, where: str) -> None:
        pod = run_again(node, config)
        usable(pod, node)
        pod.stop()
        assert pod.status().state == NOT_READY, where
        pod.remove()

    steps = at_every_step(
        machine,
        "runc",
        lambda node: node.pod_config(),
        lambda node, config: node.run_pod(config),
        after,
    )
    for word in ("rename graph/pods/", "mount ", "unshare", "posix_spawn /pause", "rename cni/"):
        assert any(step.startswith(word) for step in steps), (word, steps)


@pytest.mark.parametrize("runtime", ["lxc", "runc"])
def test_create_container(machine: Machine, runtime: str) -> None:
    def ready(node: Node) -> tuple[Pod, Any]:
        return node.pod(), node.container_config("sleep", "1000")

    def call(node: Node, made: tuple[Pod, Any]) -> None:
        pod, config = made
        node.call("CreateContainer", pod_sandbox_id=pod.id, config=config)

    def after(node: Node, made: tuple[Pod, Any], where: str) -> None:
        pod, config = Pod(node, made[0].config, made[0].id), made[1]
        assert pod.status().state == READY, where
        listed = node.call("ListContainers").containers
        assert [item.state for item in listed] in ([], [CREATED]), where
        if listed:
            container = Container(pod, config, listed[0].id)
        else:
            again = node.call("CreateContainer", pod_sandbox_id=pod.id, config=config)
            container = Container(pod, config, again.container_id)
        container.start()
        assert container.status().state == RUNNING, where
        assert container.output("echo", "well") == "well"
        pod.stop()
        pod.remove()

    steps = at_every_step(machine, runtime, ready, call, after)
    assert any(step.startswith("rename graph/engines/") for step in steps), steps


def running(node: Node) -> Pod:
    """A pod with one container that runs and one that does not."""
    pod = node.pod()
    pod.run(security={"namespace_options": {"pid": "POD"}})
    pod.create("true")
    return pod


def stopped(node: Node) -> Pod:
    """The same, stopped: a removal begins as a stop does."""
    pod = running(node)
    pod.stop()
    return pod


@pytest.mark.parametrize("runtime", ["lxc", "runc"])
@pytest.mark.parametrize(
    ("method", "ready", "word"),
    [("StopPodSandbox", running, "umount "), ("RemovePodSandbox", stopped, "unlink graph/pods/")],
    ids=["stop", "remove"],
)
def test_the_end(
    machine: Machine, runtime: str, method: str, ready: Callable[[Node], Pod], word: str
) -> None:
    def after(node: Node, made: Pod, where: str) -> None:
        pod = Pod(node, made.config, made.id)
        node.call(method, pod_sandbox_id=pod.id)
        for item in node.call("ListPodSandbox").items:
            assert item.state == NOT_READY, where
        for container in node.call("ListContainers").containers:
            assert container.state != RUNNING, where
        pod.stop()
        assert list((machine.folder / "ipam/tests").glob("10.*")) == [], where
        pod.remove()

    steps = at_every_step(
        machine,
        runtime,
        ready,
        lambda node, pod: node.call(method, pod_sandbox_id=pod.id),
        after,
    )
    assert any(step.startswith(word) for step in steps), steps
