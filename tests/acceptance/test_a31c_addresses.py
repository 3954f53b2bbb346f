"""Case A31c: after crashes and reboots, the addresses in use are those of pods that run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from isula_edge.sys.boot import boot_id
from tests.cri import node as nodes
from tests.cri.leavings import cgroups, gone, processes
from tests.cri.node import EXITED, NOT_READY, READY, RUNNING, Pod
from tests.fakes.cni_gate import Gate
from tests.rig import Engine, program, until

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from tests.cri.node import Container, Machine, Node

pytestmark = [pytest.mark.root, pytest.mark.lxc]
_SHARED = {"namespace_options": {"pid": "POD"}}


class RebootedEngine(Engine):
    """An engine whose machine can boot."""

    boots = 0

    @property
    def command(self) -> list[str]:
        words = super().command
        if not self.boots:
            return words
        at = words.index(program("isulad"))
        boot = f"{self.boots:08x}{boot_id()[8:]}"
        python = program("python")
        return [*words[:at], python, "-m", "tests.fakes.rebooted", boot, *words[at + 1 :]]

    def reboot(self, ids: Collection[str] = (), *, tmpfs: bool) -> None:
        """The machine boots: what is in memory is gone, the state directory if on ``tmpfs``.

        ``ids`` are the pods and containers that there were; their processes are gone.
        """
        for group in cgroups(set(ids)):
            os.rmdir(group)
        for place in self.mounts():
            subprocess.run(["umount", "-l", place], check=True)
        subprocess.run(
            ["ip", "-n", self.network.name, "link", "del", "cni0"], check=False, capture_output=True
        )
        if tmpfs:
            shutil.rmtree(self.state)
        self.boots += 1
        self.start()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("addresses")


@pytest.fixture(scope="module")
def gate(folder: Path) -> Gate:
    """Stands before the bridge."""
    return Gate(folder, "/usr/lib/cni", "bridge")


@pytest.fixture(scope="module")
def machine(images: Path, folder: Path, gate: Gate) -> Iterator[Machine]:
    """An engine whose machine can boot."""
    plugins = f"{gate.bin}:/usr/lib/cni"
    with nodes.machine(folder, images, RebootedEngine, **{"cni-bin-dir": plugins}) as found:
        yield found


def in_use(machine: Machine) -> set[str]:
    """Addresses that host-local has given out."""
    return {path.name for path in (machine.folder / "ipam/tests").glob("10.*")}


def cached(machine: Machine) -> set[str]:
    """Ids of the cached attachments."""
    names = [path.name for path in (machine.folder / "cni/results").iterdir()]
    return {name.split("-")[1] for name in names}


def made(node: Node) -> tuple[list[Pod], list[Container]]:
    """Pods with and without a process of their own; one of the containers does not run."""
    own = {"security_context": {"namespace_options": {"pid": "CONTAINER"}}}
    pods = [node.pod(), node.pod(linux=own), node.pod(linux=own)]
    containers = [pods[0].run(security=_SHARED), pods[1].run(), pods[2].create("true")]
    assert len(in_use(node.machine)) == 3
    return pods, containers


def kill_all(machine: Machine, ids: list[str]) -> None:
    """SIGKILL for the daemon, then for everything of pods and containers."""
    machine.own.stop(signal.SIGKILL)
    for line in processes(set(ids)):
        subprocess.run(["kill", "-9", line.split()[0]], check=False, capture_output=True)
    until(lambda: not list(processes(set(ids))), "all processes gone")


def ids_of(pods: list[Pod], containers: list[Container]) -> list[str]:
    return [*(pod.id for pod in pods), *(container.id for container in containers)]


def unpin(pods: list[Pod]) -> None:
    for pod in pods:
        path = Path(f"/var/run/netns/isulacni-{pod.id[:32]}")
        subprocess.run(["umount", "-l", str(path)], check=True)
        path.unlink()


@pytest.mark.parametrize("tmpfs", [True, False], ids=["tmpfs", "kept state"])
def test_a_reboot(machine: Machine, runtime: str, tmpfs: bool) -> None:
    engine = machine.own
    assert isinstance(engine, RebootedEngine)
    before = machine.node(runtime)
    pods, containers = made(before)
    ids = ids_of(pods, containers)
    kept = {path.name: path.read_bytes() for path in (machine.folder / "cni/results").iterdir()}
    assert cached(machine) == {pod.id for pod in pods}
    kill_all(machine, ids)
    unpin(pods)
    engine.reboot(ids, tmpfs=tmpfs)
    # before any kubelet is there
    until(lambda: not in_use(machine), "addresses given back")
    until(lambda: not cached(machine), "attachments forgotten")
    node = machine.node(runtime)
    listed = node.call("ListPodSandbox").items
    assert {item.id for item in listed} == {pod.id for pod in pods}
    assert {item.state for item in listed} == {NOT_READY}
    states = [item.state for item in node.call("ListContainers").containers]
    assert RUNNING not in states
    assert states.count(EXITED) == 2
    new = node.pod()
    new.run()
    assert in_use(machine) == {new.status().network.ip}
    assert all(json.loads(data)["containerId"] != new.id for data in kept.values())
    for pod in pods:
        again = Pod(node, pod.config, pod.id)
        again.stop()
        again.remove()
    assert in_use(machine) == {new.status().network.ip}
    node.close()
    before.call.close()
    gone(machine, ids)


def test_all_processes_killed(machine: Machine, runtime: str) -> None:
    """Without a reboot: a pod with a process of its own is over, the others are ready still."""
    before = machine.node(runtime)
    pods, containers = made(before)
    ids = ids_of(pods, containers)
    kill_all(machine, ids)
    machine.own.start()
    node = machine.node(runtime)
    states = {item.id: item.state for item in node.call("ListPodSandbox").items}
    assert [states[pod.id] for pod in pods] == [NOT_READY, READY, READY]
    assert RUNNING not in [item.state for item in node.call("ListContainers").containers]
    ready = [Pod(node, pod.config, pod.id) for pod in pods[1:]]
    addresses = {pod.status().network.ip for pod in ready}
    assert addresses <= in_use(machine)
    for pod in ready:
        assert pod.run().output("cat", "/sys/class/net/eth0/operstate") == "up"
    Pod(node, pods[0].config, pods[0].id).stop()
    assert in_use(machine) == addresses
    for pod in pods:
        Pod(node, pod.config, pod.id).remove()
    node.close()
    before.call.close()
    gone(machine, ids)


def test_killed_while_a_plugin_runs(machine: Machine, gate: Gate) -> None:
    """A plugin that outlives the daemon makes nothing that nobody knows of."""
    node = machine.node()
    known = len(gate.calls("ADD"))
    gate.wait()
    call = node.call.later("RunPodSandbox", config=node.pod_config())
    until(lambda: len(gate.calls("ADD")) > known, "the plugin running")
    pod_id = gate.calls("ADD")[known]
    machine.own.stop(signal.SIGKILL)
    with pytest.raises(grpc.RpcError):
        call.result()
    machine.own.start()
    # while the plugin waits still
    gone(machine, [pod_id])
    gate.open()
    node.call.close()
    gone(machine, [pod_id])


def test_attachments_of_others_stay(machine: Machine) -> None:
    """Podman or another engine has its results in the same directory."""
    results = machine.folder / "cni/results"
    results.mkdir(parents=True, exist_ok=True)
    theirs = results / f"tests-{'a' * 64}-eth0"
    raw = {
        "kind": "cniCacheV1",
        "containerId": "a" * 64,
        "networkName": "tests",
        "ifName": "eth0",
        "config": "",
        "result": {"cniVersion": "0.4.0"},
    }
    theirs.write_text(json.dumps(raw))
    try:
        engine = machine.own
        assert isinstance(engine, RebootedEngine)
        engine.stop(signal.SIGKILL)
        engine.reboot(tmpfs=True)
        pod = machine.node().pod()
        pod.remove()
        pod.node.close()
        assert theirs.exists()
    finally:
        os.unlink(theirs)
