"""Networks of containers with Debian's CNI plugins, in network namespaces of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from isula_edge import errors
from isula_edge.network import Attach, Network, PortMapping
from isula_edge.sys import syscalls
from isula_edge.sys.process import Reaper, identify
from tests.rig import NetworkNamespace, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

T = TypeVar("T")

PLUGINS = "/usr/lib/cni"
_CLONE_NEWNET = 0x40000000

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not os.path.exists(f"{PLUGINS}/bridge"), reason="no CNI plugins"),
]


@contextlib.contextmanager
def inside(namespace: NetworkNamespace) -> Iterator[None]:
    """This thread, and all that it starts, in ``namespace``."""
    ours = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    theirs = os.open(f"/run/netns/{namespace.name}", os.O_RDONLY)
    try:
        syscalls.setns(theirs, _CLONE_NEWNET)
        yield
    finally:
        syscalls.setns(ours, _CLONE_NEWNET)
        os.close(ours)
        os.close(theirs)


class Host:
    """A machine with a network configuration, whose pods are network namespaces."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf = folder / "net.d"
        self.conf.mkdir()
        self.namespace = NetworkNamespace()
        self.pods: list[NetworkNamespace] = []
        self.bin_dirs = [PLUGINS]
        self.timeout_s = 90.0

    def ipam(self, name: str, *subnets: str) -> dict[str, Any]:
        """Addresses by host-local, which keeps what it gave in our folder."""
        ranges = [[{"subnet": subnet}] for subnet in subnets]
        return {"type": "host-local", "dataDir": str(self.folder / f"ipam-{name}")} | (
            {"ranges": ranges} if ranges else {}
        )

    def given(self, name: str, network: str) -> set[str]:
        """Addresses that host-local holds as given."""
        folder = self.folder / f"ipam-{name}" / network
        return {f.name for f in folder.glob("*") if f.name[0].isdigit() or "::" in f.name}

    def write(self, file: str, name: str, *plugins: dict[str, Any], **more: Any) -> None:
        """A network configuration: a list, or one plugin's without ``plugins``."""
        document = {"cniVersion": "1.0.0", "name": name, **more}
        document |= {"plugins": plugins} if plugins else {}
        (self.conf / file).write_text(json.dumps(document))

    def bridge(self, *subnets: str, **more: Any) -> dict[str, Any]:
        """A bridge plugin's configuration."""
        base = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False}
        return base | {"ipam": self.ipam("cni0", *subnets)} | more

    def pod(self, **more: Any) -> Attach:
        """A pod with a network namespace of its own."""
        namespace = NetworkNamespace()
        self.pods.append(namespace)
        path = f"/run/netns/{namespace.name}"
        return Attach(namespace.name, path, "default", f"pod-{len(self.pods)}", "uid", **more)

    def run(self, work: Callable[[Network], Awaitable[T]]) -> T:
        """``work`` with an engine's network, inside the machine."""

        async def main() -> T:
            reaper = Reaper()
            reaper.install()
            cache = str(self.folder / "cache")
            conf = str(self.conf)
            limit = self.timeout_s
            network = Network(conf, self.bin_dirs, cache, reaper, timeout_s=limit)
            try:
                return await work(network)
            finally:
                network.close()

        with inside(self.namespace):
            return asyncio.run(main())

    def cached(self) -> list[str]:
        """Files of the result cache."""
        return sorted(os.listdir(self.folder / "cache" / "results"))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    for namespace in [*host.pods, host.namespace]:
        namespace.remove()


def addresses(pod: Attach, interface: str) -> list[str]:
    """Addresses that the kernel has in a pod, but the link's own."""
    command = ["nsenter", f"--net={pod.netns}", "ip", "-j", "addr", "show", interface]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    if done.returncode:
        return []
    infos = json.loads(done.stdout)[0]["addr_info"]
    return [f"{i['local']}/{i['prefixlen']}" for i in infos if i["scope"] == "global"]


def reaches(server: NetworkNamespace, client: NetworkNamespace, to: str, ports: list[int]) -> bool:
    """Whether a connection from ``client`` to ``to`` ends at ``server``: ports there and here."""
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    listener = server.make(lambda: socket.create_server(("", ports[-1]), family=family))
    with listener:
        listener.settimeout(10)
        try:
            caller = client.make(lambda: socket.create_connection((to, ports[0]), 5))
        except OSError:
            return False
        with caller, listener.accept()[0] as accepted:
            accepted.sendall(b"here")
            return caller.recv(4) == b"here"


def test_pods_reach_each_other_and_their_addresses_are_given_back(host: Host) -> None:
    host.write("10-cni.conflist", "pods", host.bridge("10.61.0.0/24"))
    one, two = host.pod(), host.pod()

    async def up(network: Network) -> list[list[str]]:
        assert await network.status() == ""
        return [(await network.attach(pod)).ips for pod in (one, two)]

    async def down(network: Network) -> None:
        for pod in (one, two):
            await network.check(pod)
            await network.detach(pod)

    ips = host.run(up)
    assert addresses(one, "eth0") == [f"{ips[0][0]}/24"]
    assert reaches(host.pods[1], host.pods[0], ips[1][0], [8080])
    assert reaches(host.pods[0], host.namespace, ips[0][0], [8080])
    assert host.given("cni0", "pods") == {ips[0][0], ips[1][0]}
    host.run(down)
    assert addresses(one, "eth0") == []
    assert host.given("cni0", "pods") == set()
    assert host.cached() == []


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_a_port_of_the_host_leads_to_the_pod(host: Host, version: str) -> None:
    ports = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
    plugins = [host.bridge("10.62.0.0/24"), ports]
    host.write("10-cni.conflist", "pods", *plugins, cniVersion=version)
    mappings = [PortMapping("tcp", 80, 8080), PortMapping("udp", 53, 0)]
    pod = host.pod(port_mappings=mappings)
    assert host.run(lambda network: network.attach(pod)).ips == ["10.62.0.2"]
    assert reaches(host.pods[0], host.namespace, "10.62.0.1", [8080, 80])
    assert not reaches(host.pods[0], host.namespace, "10.62.0.1", [5353, 53])
    # the ports of its making are taken away, though the request names none now
    host.run(lambda network: network.detach(replace(pod, port_mappings=())))
    assert not reaches(host.pods[0], host.namespace, "10.62.0.1", [8080, 80])
    rules = ["nsenter", f"--net=/run/netns/{host.namespace.name}", "iptables-save", "-t", "nat"]
    assert "10.62.0.2" not in subprocess.run(rules, capture_output=True, text=True).stdout


def test_addresses_of_both_kinds_from_the_pod_cidr(host: Host) -> None:
    ipam = host.ipam("cni0")
    plugin = host.bridge(ipam=ipam, capabilities={"ipRanges": True})
    host.write("10-cni.conflist", "pods", plugin)
    pod = host.pod()

    async def up(network: Network) -> list[str]:
        network.set_pod_cidr(["10.63.0.0/24", "fd00:63::/64"])
        network.set_pod_cidr(["10.99.0.0/24"])
        return (await network.attach(pod)).ips

    ips = host.run(up)
    assert ips == ["10.63.0.2", "fd00:63::2"]
    assert sorted(addresses(pod, "eth0")) == ["10.63.0.2/24", "fd00:63::2/64"]
    # the bridge's own address is tentative at first
    until(lambda: reaches(host.pods[0], host.namespace, ips[1], [8080]), "a connection")
    host.run(lambda network: network.detach(pod))
    assert host.given("cni0", "pods") == set()


def test_addresses_are_given_back_when_the_namespace_is_gone(host: Host) -> None:
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    host.write("10-cni.conflist", "pods", host.bridge("10.64.0.0/24"), ports)
    pod = host.pod(port_mappings=[PortMapping("tcp", 80, 8080)])
    host.run(lambda network: network.attach(pod))
    host.pods[0].remove()
    assert host.given("cni0", "pods")
    host.run(lambda network: network.detach(pod))
    assert host.given("cni0", "pods") == set()
    assert host.cached() == []


def test_the_configuration_of_the_making_is_used_when_the_file_is_gone(host: Host) -> None:
    host.write("10-cni.conflist", "pods", host.bridge("10.65.0.0/24"))
    pod = host.pod()
    host.run(lambda network: network.attach(pod))
    os.unlink(host.conf / "10-cni.conflist")

    async def down(network: Network) -> str:
        await network.detach(pod)
        return await network.status()

    assert host.run(down) == "cni config uninitialized"
    assert host.given("cni0", "pods") == set()
    assert addresses(pod, "eth0") == []


def test_after_a_crash_what_no_container_needs_is_given_back(host: Host) -> None:
    host.write("10-cni.conflist", "pods", host.bridge("10.66.0.0/24"))
    kept, lost = host.pod(), host.pod()

    async def up(network: Network) -> list[str]:
        return [(await network.attach(pod)).ips[0] for pod in (kept, lost)]

    ips = host.run(up)
    host.pods[1].remove()
    assert host.run(lambda network: network.collect([kept.id])) == []
    assert host.given("cni0", "pods") == {ips[0]}
    assert [name for name in host.cached() if kept.id in name] == host.cached() != []
    assert reaches(host.pods[0], host.namespace, ips[0], [8080])


def test_two_networks(host: Host) -> None:
    host.write("10-cni.conflist", "pods", host.bridge("10.67.0.0/24"))
    other = host.bridge(bridge="cni1", ipam=host.ipam("cni1", "10.68.0.0/24"), isGateway=False)
    host.write("20-other.conf", "other", **other)
    wanted = json.dumps([{"name": "other", "interface": "net1"}])
    pod = host.pod(annotations={"network.alpha.kubernetes.io/network": wanted})
    result = host.run(lambda network: network.attach(pod))
    assert [(i.name, i.network, i.addresses) for i in result.interfaces] == [
        ("net1", "other", ("10.68.0.2/24",)),
        ("eth0", "pods", ("10.67.0.2/24",)),
    ]
    assert result.ips == ["10.67.0.2"]
    assert addresses(pod, "net1") == ["10.68.0.2/24"]
    host.run(lambda network: network.detach(pod))
    assert addresses(pod, "net1") == addresses(pod, "eth0") == []
    assert host.given("cni1", "other") == host.given("cni0", "pods") == set()


def test_twenty_pods_at_once(host: Host) -> None:
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    host.write("10-cni.conflist", "pods", host.bridge("10.69.0.0/24"), ports)
    pods = [host.pod(port_mappings=[PortMapping("tcp", 80, 9000 + n)]) for n in range(20)]

    async def work(network: Network) -> list[str]:
        results = await asyncio.gather(*(network.attach(pod) for pod in pods))
        ips = [result.ips[0] for result in results]
        await asyncio.gather(*(network.detach(pod) for pod in pods))
        return ips

    assert len(set(host.run(work))) == 20
    assert host.given("cni0", "pods") == set()
    assert host.cached() == []


def test_a_chain_of_bandwidth_and_firewall(host: Host) -> None:
    shaper = {"type": "bandwidth", "capabilities": {"bandwidth": True}}
    host.write(
        "10-cni.conflist", "pods", host.bridge("10.70.0.0/24"), shaper, {"type": "firewall"}
    )
    limit = {"kubernetes.io/ingress-bandwidth": "10M", "kubernetes.io/engress-bandwidth": "2M"}
    pod = host.pod(annotations=limit)
    result = host.run(lambda network: network.attach(pod))
    command = ["nsenter", f"--net=/run/netns/{host.namespace.name}", "tc", "qdisc"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "rate 10Mbit" in shown
    assert "rate 2Mbit" in shown
    assert result.ips == ["10.70.0.2"]
    host.run(lambda network: network.check(pod))
    host.run(lambda network: network.detach(pod))
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "tbf" not in shown


@pytest.mark.parametrize("kind", ["ptp", "macvlan"])
def test_other_plugins(host: Host, kind: str) -> None:
    link = ["ip", "-n", host.namespace.name, "link"]
    subprocess.run([*link, "add", "uplink", "type", "veth", "peer", "other"], check=True)
    subprocess.run([*link, "set", "uplink", "up"], check=True)
    plugin = {"type": kind, "ipam": host.ipam(kind, "10.71.0.0/24")}
    plugin |= {} if kind == "ptp" else {"master": "uplink"}
    host.write("10-cni.conf", "pods", **plugin)
    pod = host.pod()
    result = host.run(lambda network: network.attach(pod))
    assert addresses(pod, "eth0") == [f"{result.ips[0]}/24"]
    host.run(lambda network: network.check(pod))
    host.run(lambda network: network.detach(pod))
    assert host.given(kind, "pods") == set()
    assert addresses(pod, "eth0") == []


def test_a_fixed_address_and_mac(host: Host) -> None:
    plugin = host.bridge("10.72.0.0/24", capabilities={"mac": True, "ips": True})
    host.write("10-cni.conflist", "pods", plugin)
    pod = host.pod(mac="02:11:22:33:44:55", ips=("10.72.0.77",))
    result = host.run(lambda network: network.attach(pod))
    assert result.ips == ["10.72.0.77"]
    assert result.interfaces[0].mac == "02:11:22:33:44:55"


def test_the_check_finds_what_is_missing(host: Host) -> None:
    host.write("10-cni.conflist", "pods", host.bridge("10.73.0.0/24"))
    pod = host.pod()
    host.run(lambda network: network.attach(pod))
    subprocess.run(["ip", "-n", host.pods[0].name, "link", "del", "eth0"], check=True)
    with pytest.raises(errors.Unavailable, match="plugin bridge failed"):
        host.run(lambda network: network.check(pod))


def ended(pid: int) -> bool:
    process = identify(pid)
    return process is None or not process.alive()


def test_a_plugin_that_hangs_is_killed_and_all_is_undone(host: Host) -> None:
    programs = host.folder / "bin"
    programs.mkdir()
    pids = host.folder / "pids"
    hang = f'#!/bin/sh\n[ "$CNI_COMMAND" = ADD ] || exit 0\nsleep 1000 & echo $! $$ >{pids}; wait\n'
    (programs / "hang").write_text(hang)
    (programs / "hang").chmod(0o755)
    host.bin_dirs = [PLUGINS, str(programs)]
    # long enough for the plugins that work
    host.timeout_s = 5.0
    host.write("10-cni.conflist", "pods", host.bridge("10.74.0.0/24"), {"type": "hang"})
    pod = host.pod()
    with pytest.raises(errors.DeadlineExceeded, match=r"network pods on eth0: plugin hang \(ADD\)"):
        host.run(lambda network: network.attach(pod))
    for pid in pids.read_text().split():
        until(partial(ended, int(pid)), f"the end of process {pid}")
    assert addresses(pod, "eth0") == []
    assert host.given("cni0", "pods") == set()
    assert host.cached() == []


def test_a_plugin_of_an_older_version_says_what_it_speaks(host: Host) -> None:
    host.write("10-cni.conflist", "pods", host.bridge("10.75.0.0/24"), cniVersion="1.1.0")
    pod = host.pod()
    with pytest.raises(errors.Unavailable) as caught:
        host.run(lambda network: network.attach(pod))
    assert "1.0.0" in caught.value.hint
    host.write(
        "10-cni.conflist", "pods", host.bridge("10.75.0.0/24"), cniVersions=["0.4.0", "1.1.0"]
    )
    assert host.run(lambda network: network.attach(pod)).ips == ["10.75.0.2"]
