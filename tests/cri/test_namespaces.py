"""Namespaces that containers share: with the pod, with another container, with the node."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.cri.client import refused
from tests.rig import until

if TYPE_CHECKING:
    from tests.cri.node import Node, Pod

pytestmark = [pytest.mark.root, pytest.mark.lxc]


def pod_with(node: Node, **options: Any) -> Pod:
    return node.pod(linux={"security_context": {"namespace_options": options}})


def inode(text: str) -> str:
    """The inode of a namespace's link."""
    return text.partition("[")[2].rstrip("]")


def test_pid_of_the_container(node: Node) -> None:
    """Spec: runtime should support ContainerPID."""
    pod = pod_with(node, pid="CONTAINER")
    security = {"namespace_options": {"pid": "CONTAINER"}}
    one, two = pod.run(security=security), pod.run("sleep", "2345", security=security)
    assert "2345" not in one.output("ps", "-o", "args")
    assert one.output("cat", "/proc/1/comm") == two.output("cat", "/proc/1/comm") == "sleep"


def test_pid_of_the_pod(node: Node) -> None:
    """Spec: runtime should support PodPID."""
    pod = pod_with(node, pid="POD")
    security = {"namespace_options": {"pid": "POD"}}
    one, two = pod.run(security=security), pod.run("sleep", "2345", security=security)
    assert "2345" in one.output("ps", "-o", "args")
    assert one.output("cat", "/proc/1/comm") != "sleep"
    # one ends, the others go on
    two.stop()
    assert "2345" not in one.output("ps", "-o", "args")
    third = pod.run("sh", "-c", "sleep 3456 & exit 6", security=security)
    assert third.wait().exit_code == 6


def test_a_pod_reaps_orphans(node: Node) -> None:
    pod = pod_with(node, pid="POD")
    security = {"namespace_options": {"pid": "POD"}}
    container = pod.run(security=security)
    container.output("sh", "-c", "(sleep 0.1 &) ; true")
    until(lambda: "sleep 0.1" not in container.output("ps", "-o", "args"), "the orphan ending")
    until(lambda: "Z" not in container.output("ps", "-o", "stat"), "no zombies")


def test_pid_of_the_node(node: Node) -> None:
    """Spec: runtime should support HostPID."""
    pod = pod_with(node, pid="NODE")
    container = pod.run(security={"namespace_options": {"pid": "NODE"}})
    mine = os.readlink("/proc/self/ns/pid")
    assert inode(container.output("readlink", "/proc/self/ns/pid")) == inode(mine)


def test_pid_of_another_container(node: Node) -> None:
    pod = pod_with(node, pid="CONTAINER")
    target = pod.run("sleep", "2345", security={"namespace_options": {"pid": "CONTAINER"}})
    options = {"pid": "TARGET", "target_id": target.id}
    guest = pod.run(security={"namespace_options": options})
    assert "2345" in guest.output("ps", "-o", "args")
    with refused():
        pod.run(security={"namespace_options": {"pid": "TARGET", "target_id": "0" * 64}})


@pytest.mark.parametrize("host", [True, False])
def test_ipc(node: Node, host: bool) -> None:
    """Specs: runtime should support HostIpc is true, HostIpc is false."""
    mode = "NODE" if host else "POD"
    pod = pod_with(node, ipc=mode)
    container = pod.run(security={"namespace_options": {"ipc": mode, "pid": "CONTAINER"}})
    found = inode(container.output("readlink", "/proc/self/ns/ipc"))
    assert (found == inode(os.readlink("/proc/self/ns/ipc"))) is host


@pytest.mark.parametrize("host", [True, False])
def test_network(node: Node, host: bool) -> None:
    """Specs: runtime should support HostNetwork is true, HostNetwork is false."""
    mode = "NODE" if host else "POD"
    pod = pod_with(node, network=mode)
    container = pod.run(security={"namespace_options": {"network": mode, "pid": "CONTAINER"}})
    mine = node.machine.inside(lambda: os.readlink("/proc/thread-self/ns/net"))
    found = inode(container.output("readlink", "/proc/self/ns/net"))
    assert (found == inode(mine)) is host
    if host:
        assert pod.status().network.ip == ""
    else:
        assert pod.status().network.ip in container.output("ip", "addr", "show", "eth0")


def test_containers_share_network_ipc_and_host_name(node: Node) -> None:
    pod = node.pod()
    one, two = pod.run(), pod.run()
    for kind in ("net", "ipc", "uts"):
        link = f"/proc/self/ns/{kind}"
        assert one.output("readlink", link) == two.output("readlink", link)


# user namespaces

_RANGE = {"host_id": 100000, "container_id": 0, "length": 65536}


def users(mode: str, *ranges: dict[str, int]) -> dict[str, Any]:
    return {"mode": mode, "uids": list(ranges), "gids": list(ranges)}


@pytest.fixture
def mapping(node: Node) -> Node:
    """A client of a handler that has user namespaces."""
    handlers = node.call("Status").runtime_handlers
    if not any(item.features.user_namespaces for item in handlers if item.name == node.handler):
        pytest.skip("this handler does not announce user namespaces")
    return node


def test_users_of_the_pod(mapping: Node) -> None:
    """Spec: UserNamespaces: runtime should support NamespaceMode_POD."""
    options = users("POD", _RANGE)
    pod = pod_with(mapping, userns_options=options)
    security = {"namespace_options": {"pid": "CONTAINER", "userns_options": options}}
    one, two = pod.run(security=security), pod.run(security=security)
    assert one.output("cat", "/proc/self/uid_map").split() == ["0", "100000", "65536"]
    assert one.output("cat", "/proc/self/gid_map").split() == ["0", "100000", "65536"]
    assert one.output("stat", "-c", "%u", "/bin/busybox") == "0"
    link = "/proc/self/ns/user"
    assert one.output("readlink", link) == two.output("readlink", link)
    one.output("touch", "/file")
    assert pod.status().linux.namespaces.options.userns_options.mode == 0


def test_users_of_the_node(mapping: Node) -> None:
    """Spec: UserNamespaces: runtime should support NamespaceMode_NODE."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        mine = file.read().split()
    options = users("NODE")
    pod = pod_with(mapping, userns_options=options)
    security = {"namespace_options": {"userns_options": options, "pid": "CONTAINER"}}
    assert pod.output("cat /proc/self/uid_map", security=security)[0].split() == mine


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(users("CONTAINER", _RANGE), id="NamespaceMode_CONTAINER"),
        pytest.param(users("TARGET", _RANGE), id="NamespaceMode_TARGET"),
        pytest.param(
            users("POD", _RANGE, {"host_id": 200000, "container_id": 65536, "length": 1}),
            id="more than one mapping provided",
        ),
        pytest.param(
            users("POD", {"host_id": 100000, "container_id": 1, "length": 65536}),
            id="container ID 0 is not mapped",
        ),
    ],
)
def test_users_that_are_refused(mapping: Node, options: dict[str, Any]) -> None:
    """Specs: UserNamespaces: runtime should fail with (or if) …."""
    with refused():
        pod_with(mapping, userns_options=options)
