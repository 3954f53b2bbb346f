"""What a pod's annotations and settings mean for its networks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from isula_edge import errors
from isula_edge.network.request import (
    Attach,
    Choice,
    Dns,
    PortMapping,
    capability_values,
    check_interface,
    cni_args,
    pod_choices,
)

KNOWN = ["pods", "net1", "net2"]
MAIN = Choice("pods", "eth0", primary=True)


def pod(networks: object = None, **annotations: str) -> Attach:
    if networks is not None:
        text = networks if isinstance(networks, str) else json.dumps(networks)
        annotations["network.alpha.kubernetes.io/network"] = text
    return Attach("id", "/ns", "space", "name", "uid", annotations)


def choices(networks: object) -> list[tuple[str, str, bool]]:
    found = pod_choices(pod(networks), "pods", KNOWN)
    return [(choice.network, choice.interface, choice.primary) for choice in found]


def test_a_pod_has_the_default_network() -> None:
    assert choices(None) == choices("") == choices([]) == [("pods", "eth0", True)]


def test_further_networks_come_first_in_their_order() -> None:
    wanted = [{"name": "net2", "interface": "eth2"}, {"name": "net1", "interface": "eth1"}]
    assert choices(wanted) == [
        ("net2", "eth2", False),
        ("net1", "eth1", False),
        ("pods", "eth0", True),
    ]


def test_a_network_on_eth0_replaces_the_default_one_and_comes_last() -> None:
    wanted = [{"name": "net2", "interface": "eth0"}, {"name": "net1", "interface": "eth1"}]
    assert choices(wanted) == [("net1", "eth1", False), ("net2", "eth0", True)]


def test_a_network_without_interface_gets_the_next_free_one() -> None:
    wanted = [{"name": "net1"}, {"name": "net2", "interface": "eth1"}, {"name": "net2"}]
    assert [name for _, name, _ in choices(wanted)] == ["eth2", "eth1", "eth3", "eth0"]


@pytest.mark.parametrize("name", ["pods", "nothing"])
def test_a_network_that_is_the_default_or_unknown_is_refused(name: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=f"conflict with default network: {name}"):
        choices([{"name": name, "interface": "eth1"}])


@pytest.mark.parametrize(
    "networks",
    [
        "nonsense",
        "[" * 100_000,
        {},
        [1],
        [{}],
        [{"name": ""}],
        [{"name": 1}],
        [{"name": "net1", "interface": 1}],
        [{"name": "net1", "interface": "a/b"}],
        [{"name": "net1", "interface": "lo"}],
        [{"name": "net1", "interface": "x" * 16}],
        [{"name": "net1", "ips": "10.0.0.1"}],
        [{"name": "net1", "mac": []}],
        [{"name": "net1", "interface": "eth1"}, {"name": "net2", "interface": "eth1"}],
        [{"name": "net1"}] * 65,
    ],
)
def test_annotations_that_are_refused(networks: object) -> None:
    with pytest.raises(errors.InvalidArgument):
        choices(networks)


@pytest.mark.parametrize("name", ["", ".", "..", "lo", "a b", "a:b", "a/b", "a\0b", "x" * 16])
def test_interface_names_that_are_refused(name: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        check_interface(name)


def test_the_arguments_of_a_pod() -> None:
    request = pod(
        **{
            "extension.network.kubernetes.io/cni": "ext",
            "extension.network.kubernetes.io/cniargs/a": "ONE=1",
            "extension.network.kubernetes.io/cniargs/b": "ONE=2",
            "extension.network.kubernetes.io/cniargs/c": "K8S_POD_NAME=other",
            "extension.network.kubernetes.io/cniargs/d": "none",
            "extension.network.kubernetes.io/cniargs/e": "A=B=C",
            "extension.network.kubernetes.io/cniargs/f": "A=B;C",
            "extension.network.kubernetes.io/cniargs/g": "=B",
        }
    )
    assert dict(cni_args(request, MAIN, set())) == {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": "space",
        "K8S_POD_NAME": "name",
        "K8S_POD_INFRA_CONTAINER_ID": "id",
        "K8S_POD_UID": "uid",
        "CNI_MUTLINET_EXTENSION": "ext",
        "ONE": "1",
    }


def test_an_extension_with_a_semicolon_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    request = pod(**{"extension.network.kubernetes.io/cni": "a;b"})
    assert "CNI_MUTLINET_EXTENSION" not in dict(cni_args(request, MAIN, set()))
    assert "is ignored" in caplog.text


@pytest.mark.parametrize("name", ["a;K8S_POD_UID=x", "a\0", "\udc80"])
def test_a_name_that_would_change_the_arguments_is_refused(name: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        cni_args(Attach("id", name=name), MAIN, set())


def test_a_fixed_address_is_an_argument_unless_a_capability_has_it() -> None:
    choice = Choice("net", "eth0", mac="02:00:00:00:00:01", ips=("10.0.0.9/24",))
    request = Attach("id")
    assert dict(cni_args(request, choice, set())) == {
        "IgnoreUnknown": "1",
        "MAC": "02:00:00:00:00:01",
        "IP": "10.0.0.9/24",
    }
    assert dict(cni_args(request, choice, {"mac", "ips"})) == {"IgnoreUnknown": "1"}


def values(request: Attach, choice: Choice = MAIN, *cidrs: str) -> dict[str, Any]:
    return capability_values(request, choice, cidrs)


def test_the_values_of_capabilities() -> None:
    ports = [
        PortMapping("TCP", 80, 8080, "127.0.0.1"),
        PortMapping("sctp", 81, 8081),
        PortMapping("udp", 82, 0),
    ]
    request = Attach(
        "id",
        annotations={
            "kubernetes.io/ingress-bandwidth": "1M",
            "kubernetes.io/egress-bandwidth": "2M",
            "kubernetes.io/engress-bandwidth": "3M",
        },
        port_mappings=ports,
        dns=Dns(("10.0.0.10",), ("a.b",)),
        cgroup_parent="/kubepods/pod1",
    )
    choice = Choice("n", "eth0", "02:00:00:00:00:01", ("10.0.0.9",), ("alias",), "guid", True)
    assert values(request, choice, "10.1.0.0/24", "fd00::/64") == {
        "portMappings": [
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1"},
            {"hostPort": 8081, "containerPort": 81, "protocol": "sctp"},
        ],
        "bandwidth": {
            "ingressRate": 1_000_000,
            "ingressBurst": 2147483647,
            "egressRate": 2_000_000,
            "egressBurst": 2147483647,
        },
        "ipRanges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]],
        "dns": {"servers": ["10.0.0.10"], "searches": ["a.b"]},
        "cgroupPath": "/kubepods/pod1",
        "mac": "02:00:00:00:00:01",
        "ips": ["10.0.0.9"],
        "aliases": ["alias"],
        "infinibandGUID": "guid",
    }
    # other networks than the primary one get only what is theirs
    assert set(values(request, Choice("n", "eth1", "02:00:00:00:00:01"), "10.1.0.0/24")) == {"mac"}


def test_iSulads_spelling_of_egress() -> None:  # noqa: N802
    request = pod(**{"kubernetes.io/engress-bandwidth": "3M"})
    assert values(request)["bandwidth"] == {"egressRate": 3_000_000, "egressBurst": 2147483647}


def test_a_bandwidth_that_is_no_quantity_is_refused() -> None:
    with pytest.raises(errors.InvalidArgument):
        values(pod(**{"kubernetes.io/ingress-bandwidth": "fast"}))


@pytest.mark.parametrize(
    "mapping", [PortMapping("icmp", 1, 1), PortMapping("tcp", 0, 1), PortMapping("tcp", 1, 65536)]
)
def test_port_mappings_that_are_refused(mapping: PortMapping) -> None:
    with pytest.raises(errors.InvalidArgument):
        values(Attach("id", port_mappings=[mapping]))
