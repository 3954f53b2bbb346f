"""Addresses and ports of pods."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.rig import until

if TYPE_CHECKING:
    from tests.cri.node import Node, Pod

pytestmark = [pytest.mark.root, pytest.mark.lxc]


def serve(pod: Pod) -> None:
    script = "mkdir /srv; echo served > /srv/index.html; exec busybox httpd -f -p 80 -h /srv"
    container = pod.run("sh", "-c", script)
    until(lambda: container.exec("wget", "-qO-", "http://127.0.0.1/").code == 0, "the server")


def page(node: Node, host: str, port: int) -> bytes:
    """What a client on the node gets."""

    def get() -> bytes:
        with socket.create_connection((host, port), 10) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            found = b""
            while data := connection.recv(4096):
                found += data
            return found

    found: bytes = node.machine.inside(get)
    return found


def test_ports_of_the_node(node: Node) -> None:
    """Spec: runtime should support port mapping with host port and container port."""
    pod = node.pod(port_mappings=[{"container_port": 80, "host_port": 18080}])
    serve(pod)
    assert page(node, gateway(pod), 18080).endswith(b"served\n")
    pod.stop()
    with pytest.raises(OSError, match=r"refused|timed out|unreachable"):
        page(node, gateway(pod), 18080)


def gateway(pod: Pod) -> str:
    """The bridge's address: the first of the pods' network."""
    return "10.88.0.1" if pod.node.machine.engine is None else "10.89.0.1"


def test_ports_of_the_container_alone(node: Node) -> None:
    """Spec: runtime should support port mapping with only container port."""
    pod = node.pod(port_mappings=[{"container_port": 80}])
    serve(pod)
    assert page(node, pod.status().network.ip, 80).endswith(b"served\n")


def test_pods_reach_one_another(node: Node) -> None:
    one, two = node.pod(), node.pod()
    serve(one)
    address = one.status().network.ip
    assert address != two.status().network.ip
    assert two.output(f"wget -qO- http://{address}/") == ["served"]


def test_an_address_is_given_back(node: Node) -> None:
    if node.machine.engine is None:
        pytest.skip("where another engine keeps its addresses is not known")
    kept = node.machine.folder / "ipam/tests"
    pod = node.pod()
    address = pod.status().network.ip
    assert (kept / address).exists()
    pod.stop()
    assert not (kept / address).exists()
