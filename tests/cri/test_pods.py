"""Pod sandboxes: their life, what they keep, their files."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.cri.client import refused
from tests.cri.node import NOT_READY, READY

if TYPE_CHECKING:
    from tests.cri.node import Node

pytestmark = [pytest.mark.root, pytest.mark.lxc]


def test_run(node: Node) -> None:
    """Spec: runtime should support running PodSandbox."""
    pod = node.pod()
    status = pod.status()
    assert (status.id, status.state) == (pod.id, READY)
    assert status.created_at > 0
    assert status.network.ip
    (listed,) = pod.listed()
    assert (listed.state, listed.created_at) == (READY, status.created_at)


def test_stop(node: Node) -> None:
    """Spec: runtime should support stopping PodSandbox."""
    pod = node.pod()
    pod.stop()
    status = pod.status()
    assert status.state == NOT_READY
    assert status.network.ip == ""
    assert [item.state for item in pod.listed()] == [NOT_READY]


def test_remove(node: Node) -> None:
    """Spec: runtime should support removing PodSandbox."""
    pod = node.pod()
    pod.stop()
    pod.remove()
    assert pod.listed() == []
    with refused("NOT_FOUND"):
        pod.status()


def test_remove_ends_what_runs_in_it(node: Node) -> None:
    pod = node.pod()
    container = pod.run()
    pod.remove()
    assert container.listed() == []
    with refused("NOT_FOUND"):
        container.status()


def test_attributes_are_kept(node: Node) -> None:
    """Spec: runtime should support preserving PodSandbox attributes."""
    labels = {"app": "tests", "empty": ""}
    annotations = {"example.org/note": "ü \n", "other": "x" * 3000}
    pod = node.pod(labels=labels, annotations=annotations)
    for found in (pod.status(), *pod.listed()):
        assert found.metadata == pod.config.metadata
        assert dict(found.labels) == labels
        assert dict(found.annotations) == annotations
        assert found.runtime_handler == node.handler


def test_namespaces_in_the_status(node: Node) -> None:
    options = {"network": "NODE", "pid": "CONTAINER", "ipc": "NODE"}
    pod = node.pod(linux={"security_context": {"namespace_options": options}})
    found = pod.status().linux.namespaces.options
    assert (found.network, found.pid, found.ipc) == (2, 1, 2)


def test_filters_are_joined(node: Node) -> None:
    one = node.pod(labels={"role": "one", "of": node.handler + "filters"})
    two = node.pod(labels={"role": "two", "of": node.handler + "filters"})
    two.stop()

    def ids(**values: object) -> set[str]:
        return {item.id for item in node.call("ListPodSandbox", filter=values).items}

    both = {"of": node.handler + "filters"}
    assert ids(label_selector=both) == {one.id, two.id}
    assert ids(label_selector=both, state={"state": "SANDBOX_READY"}) == {one.id}
    assert ids(label_selector={**both, "role": "two"}) == {two.id}
    assert ids(id=one.id, label_selector={"role": "two"}) == set()
    assert {one.id, two.id} <= ids()
    assert ids(id="0" * 64) == set()


def test_two_pods_cannot_have_one_name(node: Node) -> None:
    pod = node.pod()
    with refused("ALREADY_EXISTS", "UNKNOWN"):
        node.run_pod(pod.config)
    assert pod.status().state == READY
    pod.stop()
    pod.remove()
    node.run_pod(pod.config)


def test_another_attempt_is_another_pod(node: Node) -> None:
    pod = node.pod()
    pod.stop()
    pod.config.metadata.attempt = 1
    assert node.run_pod(pod.config).status().metadata.attempt == 1


def test_an_unknown_handler_leaves_nothing(plain: Node) -> None:
    plain.handler = "no-such-handler"
    config = plain.pod_config()
    with refused():
        plain.run_pod(config)
    names = {item.metadata.name for item in plain.call("ListPodSandbox").items}
    assert config.metadata.name not in names


def test_metadata_must_be_given(plain: Node) -> None:
    config = plain.pod_config()
    config.ClearField("metadata")
    with refused():
        plain.run_pod(config)


def test_safe_sysctls(node: Node) -> None:
    """Spec: should support safe sysctls."""
    pod = node.pod(linux={"sysctls": {"kernel.shm_rmid_forced": "1"}})
    assert pod.output("cat /proc/sys/kernel/shm_rmid_forced") == ["1"]


def test_unsafe_sysctls(node: Node) -> None:
    """Spec: should support unsafe sysctls."""
    sysctls = {"fs.mqueue.msg_max": "100", "net.ipv4.ip_unprivileged_port_start": "700"}
    pod = node.pod(linux={"sysctls": sysctls})
    lines = pod.output("cd /proc/sys; cat fs/mqueue/msg_max net/ipv4/ip_unprivileged_port_start")
    assert lines == ["100", "700"]


def test_hostname(node: Node) -> None:
    """Spec: runtime should support set hostname."""
    pod = node.pod(hostname="some-host")
    assert pod.output("hostname; cat /etc/hostname; hostname -i 2>/dev/null || true")[:2] == [
        "some-host",
        "some-host",
    ]


def test_hostname_of_the_node(node: Node) -> None:
    options = {"network": "NODE"}
    pod = node.pod(linux={"security_context": {"namespace_options": options}})
    assert pod.output("hostname") == [socket.gethostname()]


def test_dns(node: Node) -> None:
    """Spec: runtime should support DNS config."""
    servers, options = ["10.10.10.10", "10.10.10.11"], ["ndots:8", "timeout:3"]
    searches = [f"n{number}.example.org" for number in range(8)]
    pod = node.pod(dns_config={"servers": servers, "searches": searches, "options": options})
    lines = [line.split() for line in pod.output("cat /etc/resolv.conf")]
    assert ["nameserver", "10.10.10.10"] in lines
    assert ["nameserver", "10.10.10.11"] in lines
    assert ["search", *searches] in lines
    assert ["options", *options] in lines


def test_containers_share_files_and_shared_memory(node: Node) -> None:
    pod = node.pod()
    one, two = pod.run(), pod.run()
    one.output("sh", "-c", "echo seen > /dev/shm/file")
    assert two.output("cat", "/dev/shm/file") == "seen"
    assert one.output("cat", "/etc/hosts") == two.output("cat", "/etc/hosts")


def test_verbose_status(node: Node) -> None:
    pod = node.pod()
    assert node.call("PodSandboxStatus", pod_sandbox_id=pod.id, verbose=True).info["info"]
    assert not node.call("PodSandboxStatus", pod_sandbox_id=pod.id).info
