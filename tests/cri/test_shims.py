"""Pods of a runtime that is a shim: one server for a pod, and with a VM one sandbox."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cri import node as nodes
from tests.cri.leavings import gone, processes
from tests.rig import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cri.node import Machine, Node

pytestmark = [pytest.mark.root, pytest.mark.lxc]

RUNC = "io.containerd.runc.v2"


@pytest.fixture(scope="module")
def shims(images: Path) -> Iterator[Machine]:
    """An engine of its own with two handlers: a shim, and one that says it has a VM."""
    runtimes = {
        "shim": {"runtimeType": RUNC},
        "machine": {"runtimeType": RUNC, "vm": True},
    }
    with tempfile.TemporaryDirectory(prefix="isula-shims-", dir="/var/tmp") as folder:
        os.chmod(folder, 0o711)
        with nodes.machine(Path(folder), images, runtimes=runtimes) as found:
            yield found


@pytest.fixture(params=["shim", "machine"])
def guest(request: pytest.FixtureRequest, shims: Machine) -> Iterator[Node]:
    """A client for each of the two handlers; nothing of its pods is left afterwards."""
    found = nodes.Node(shims, request.param)
    try:
        yield found
    finally:
        found.close()
    gone(shims)


def servers(*ids: str) -> list[str]:
    """Process ids of the shims that were started for one of ``ids``."""
    found = (line.split() for line in processes(set(ids)))
    return [words[0] for words in found if words[1:2] and "containerd-shim-runc-v2" in words[1]]


def test_a_pod_of_two_containers(guest: Node) -> None:
    pod = guest.pod()
    first = pod.run("sh", "-c", "echo out; echo err >&2; exec sleep 1000")
    second = pod.run("sh", "-c", "hostname; exit 7")
    assert second.wait().exit_code == 7
    assert second.printed() == [first.output("hostname")]
    assert first.exec("sh", "-c", "echo hello; exit 3").code == 3
    until(lambda: first.log.exists() and first.printed() == ["out"], "the output")
    assert first.printed("stderr") == ["err"]
    assert len(servers(pod.id, first.id, second.id)) == 1
    stats = guest.call("ContainerStats", container_id=first.id).stats
    assert stats.memory.working_set_bytes.value > 0
    first.stop()
    assert first.status().exit_code == 137
    pod.stop()
    assert not servers(pod.id, first.id, second.id)
    assert pod.status().state == nodes.NOT_READY


def test_a_restart_of_the_engine(guest: Node) -> None:
    pod = guest.pod()
    stays, ends = pod.run(), pod.run("sh", "-c", "sleep 1; exit 5")
    guest.machine.own.restart(signal.SIGKILL)
    again = nodes.Node(guest.machine, guest.handler)
    try:
        for container in (stays, ends):
            container.pod.node = again
        assert pod.status().state == nodes.READY
        assert stays.output("echo", "there") == "there"
        assert ends.wait().exit_code == 5
        pod.remove()
    finally:
        again.close()


def test_one_that_closes_its_output_harms_nobody(guest: Node) -> None:
    pod = guest.pod()
    first = pod.run("sh", "-c", "exec >/dev/null 2>&1; exec sleep 1000")
    second = pod.run()
    assert second.output("echo", "there") == "there"
    first.stop()
    first.remove()
    # its server has the id of the first one, and goes on
    assert second.output("echo", "there") == "there"
    assert second.status().state == nodes.RUNNING


def test_only_a_virtual_machine_needs_a_sandbox(shims: Machine) -> None:
    for handler, count in (("shim", 0), ("machine", 1)):
        node = nodes.Node(shims, handler)
        try:
            assert len(servers(node.pod().id)) == count
        finally:
            node.close()
    gone(shims)


def test_a_sandbox_that_dies_ends_its_pod(shims: Machine) -> None:
    node = nodes.Node(shims, "machine")
    try:
        pod = node.pod()
        container = pod.run()
        (server,) = servers(pod.id)
        os.kill(int(server), signal.SIGKILL)
        until(lambda: pod.status().state == nodes.NOT_READY, "the pod not being ready")
        assert container.wait().exit_code == 137
    finally:
        node.close()
    gone(shims)


def test_a_shim_that_is_absent_fails_the_pod(shims: Machine) -> None:
    engine = shims.own
    found = engine.isula("run", "--rm", "--runtime", "io.containerd.absent.v2", "busybox", "true")
    assert found.code == 125
    assert "runtime io.containerd.absent.v2 is not supported" in found.err


def test_a_command_that_takes_too_long_is_killed(guest: Node) -> None:
    container = guest.pod().run()
    with pytest.raises(Exception, match="timed out after 1 s"):
        container.exec("sh", "-c", "sleep 500; true", timeout=1)
    until(
        lambda: "sh -c sleep" not in container.output("ps", "-o", "args"), "the end of the command"
    )


def test_limits_and_statistics_of_a_running_container(guest: Node) -> None:
    container = guest.pod().run("sh", "-c", "head -c 4194304 /dev/zero >/tmp/x; exec sleep 1000")
    linux = {"memory_limit_in_bytes": 64 << 20, "cpu_quota": 50000, "cpu_period": 100000}
    guest.call("UpdateContainerResources", container_id=container.id, linux=linux)

    def limit() -> int:
        stats = guest.call("ContainerStats", container_id=container.id).stats
        assert stats.memory.working_set_bytes.value > 0
        return int(stats.memory.available_bytes.value + stats.memory.working_set_bytes.value)

    assert limit() == 64 << 20
