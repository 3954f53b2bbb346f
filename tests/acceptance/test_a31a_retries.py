"""Case A31a: who asks once more joins or replaces the attempt; a cancelled one frees all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tests.cri import node as nodes
from tests.cri.client import refused
from tests.cri.counted import CountedEngine, plan
from tests.cri.leavings import gone
from tests.cri.node import READY, RUNNING, Container, Pod
from tests.fakes.cni_gate import Gate
from tests.rig import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cri.node import Machine, Node

pytestmark = [pytest.mark.root, pytest.mark.lxc]
_ID = re.compile(r"[0-9a-f]{64}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("retries")


@pytest.fixture(scope="module")
def made_gate(folder: Path) -> Gate:
    return Gate.last_of(nodes.conflist(folder), folder)


@pytest.fixture(scope="module")
def machine(images: Path, folder: Path, made_gate: Gate) -> Iterator[Machine]:
    """An engine whose pods' network ends with the gate."""
    plugins = f"/usr/lib/cni:{made_gate.bin}"
    with nodes.machine(folder, images, CountedEngine, **{"cni-bin-dir": plugins}) as found:
        yield found


@pytest.fixture
def gate(made_gate: Gate) -> Iterator[Gate]:
    """The gate, which is open afterwards."""
    yield made_gate
    made_gate.open()


def run_later(node: Node, config: Any, timeout_s: float = 60) -> Any:
    """A call of RunPodSandbox that has begun."""
    return node.call.later(
        "RunPodSandbox", config=config, runtime_handler=node.handler, timeout_s=timeout_s
    )


def at_the_gate(gate: Gate, known: int) -> str:
    """The pod that waits there, the first after ``known`` others."""
    until(lambda: len(gate.calls("ADD")) > known, "the network being made")
    return gate.calls("ADD")[known]


def test_a_retry_joins_the_attempt(node: Node, gate: Gate) -> None:
    before = len(gate.calls("ADD"))
    gate.wait()
    config = node.pod_config()
    calls = [run_later(node, config)]
    pod_id = at_the_gate(gate, before)
    calls += [run_later(node, config) for _ in range(3)]
    node.call("Version")
    gate.open()
    assert {call.result().pod_sandbox_id for call in calls} == {pod_id}
    assert gate.calls("ADD")[before:] == [pod_id]
    pod = Pod(node, config, pod_id)
    assert pod.status().state == READY
    pod.remove()
    gone(node.machine, [pod_id])


def test_another_request_under_the_name_is_refused(plain: Node, gate: Gate) -> None:
    before = len(gate.calls("ADD"))
    gate.wait()
    config = plain.pod_config()
    first = run_later(plain, config)
    at_the_gate(gate, before)
    other = plain.pod_config(metadata=config.metadata, hostname="other")
    with refused("ALREADY_EXISTS"):
        plain.run_pod(other)
    gate.open()
    Pod(plain, config, first.result().pod_sandbox_id).remove()


def test_the_first_caller_may_leave(plain: Node, gate: Gate) -> None:
    before = len(gate.calls("ADD"))
    gate.wait()
    config = plain.pod_config()
    first, second = run_later(plain, config), run_later(plain, config)
    pod_id = at_the_gate(gate, before)
    first.cancel()
    plain.call("Version")
    gate.open()
    assert second.result().pod_sandbox_id == pod_id
    Pod(plain, config, pod_id).remove()


def test_a_retry_replaces_the_attempt_that_timed_out(node: Node, gate: Gate) -> None:
    """The kubelet's deadline passes while a plugin hangs; its retry comes at once."""
    before = len(gate.calls("ADD"))
    gate.wait()
    config = node.pod_config()
    first = run_later(node, config, timeout_s=0.5)
    late = at_the_gate(gate, before)
    with refused("DEADLINE_EXCEEDED"):
        first.result()
    again = run_later(node, config)
    new = at_the_gate(gate, before + 1)
    assert new != late
    gate.open()
    assert again.result().pod_sandbox_id == new
    pod = Pod(node, config, new)
    kept = {path.name for path in (node.machine.folder / "ipam/tests").glob("10.*")}
    assert kept == {pod.status().network.ip}
    container = pod.run()
    assert container.output("echo", "well") == "well"
    pod.remove()
    gone(node.machine, [late, new])


def test_a_cancelled_attempt_frees_everything(node: Node, gate: Gate) -> None:
    before = len(gate.calls("ADD"))
    gate.wait()
    call = run_later(node, node.pod_config())
    pod_id = at_the_gate(gate, before)
    call.cancel()
    gone(node.machine, [pod_id])
    assert pod_id in gate.calls("DEL")


# cancelled at every step


@dataclass
class Attempt:
    """A call, and what a kubelet does with its answer or that of a retry; then the pod goes."""

    method: str
    asked: dict[str, Any]
    after: Callable[[Any], object]


def at_every_step(machine: Machine, ready: Callable[[Node], Attempt]) -> int:
    """Cancels a call while a thread is held at each of its steps: how often that was."""
    held = step = 0
    counted = plan(machine)
    while True:
        step += 1
        node = machine.node()
        attempt = ready(node)
        counted.arm(step, hold=True)
        call = node.call.later(attempt.method, **attempt.asked)
        until(lambda: counted.held.exists() or call.done(), "a step or the end")  # noqa: B023
        if counted.held.exists():
            held += 1
            call.cancel()
            # on the same connection, so the engine has seen the cancellation
            node.call("Version")
        steps = counted.steps
        counted.arm(0)
        where = f"cancelled at step {step}, {steps[-1]}"
        try:
            answer = node.call(attempt.method, **attempt.asked) if call.cancelled() else None
            attempt.after(answer or call.result())
        except grpc.RpcError as error:
            raise AssertionError(f"{where}: {error}") from error
        finally:
            ids = set(_ID.findall(" ".join([*steps, *counted.steps])))
            node.close()
        gone(machine, ids, where)
        if len(steps) < step:
            return held


@pytest.mark.slow
def test_run_pod_sandbox_cancelled_at_every_step(machine: Machine) -> None:
    def ready(node: Node) -> Attempt:
        config = node.pod_config()

        def after(answer: Any) -> None:
            pod = Pod(node, config, answer.pod_sandbox_id)
            assert pod.status().state == READY
            pod.remove()

        return Attempt("RunPodSandbox", {"config": config}, after)

    assert at_every_step(machine, ready) > 10


@pytest.mark.slow
def test_create_container_cancelled_at_every_step(machine: Machine) -> None:
    def ready(node: Node) -> Attempt:
        pod = node.pod()
        config = node.container_config("sleep", "1000")

        def after(answer: Any) -> None:
            container = Container(pod, config, answer.container_id).start()
            assert [item.id for item in node.call("ListContainers").containers] == [container.id]
            assert container.status().state == RUNNING
            pod.remove()

        return Attempt("CreateContainer", {"pod_sandbox_id": pod.id, "config": config}, after)

    assert at_every_step(machine, ready) > 2


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["lxc", "runc"])
def test_a_start_goes_on_when_the_kubelet_leaves(machine: Machine, runtime: str) -> None:
    """A start is tried once; who has left finds out what became of it by the status."""
    counted = plan(machine)
    for step in (1, 5, 10, 15, 20):
        node = machine.node(runtime)
        container = node.pod().create("sleep", "1000")
        counted.arm(step, hold=True)
        call = node.call.later("StartContainer", container_id=container.id)
        until(lambda: counted.held.exists() or call.done(), "a step or the end")  # noqa: B023
        call.cancel()
        node.call("Version")
        counted.arm(0)
        until(lambda: container.status().state == RUNNING, f"started, left at {step}")  # noqa: B023
        assert container.output("echo", "well") == "well"
        node.close()
        gone(machine, [container.id, container.pod.id], f"left at step {step}")
