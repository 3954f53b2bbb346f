"""What of a pod outlives the engine, and what a reboot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from isula_edge.network import Dns, PortMapping
from isula_edge.pod.record import Pod, PodSpec
from isula_edge.store.records import read_record, write_record
from isula_edge.sys.process import Identity

if TYPE_CHECKING:
    from pathlib import Path

FULL = PodSpec(
    "web",
    "u1",
    "shop",
    3,
    {"a": "b"},
    {"c": "d"},
    "box",
    "fast",
    "runc",
    {"network": "pod", "ipc": "node", "pid": "container"},
    Dns(("10.0.0.1",), ("a.b",), ("ndots:5",)),
    (PortMapping("udp", 53, 1053, "127.0.0.1"), PortMapping("tcp", 80, 0)),
    "/kubepods/pod1",
    {"net.ipv4.ip_forward": "1"},
    ((0, 100000, 65536),),
    ((0, 100000, 65536),),
    "/var/log/pods/x",
    True,
    {"selinux": "u:r:t:s0"},
    {"cpu_shares": 2},
    {"unified": {"memory.high": "5"}},
)


def test_every_field_has_a_value_here() -> None:
    plain = PodSpec("", "", "")
    for name in PodSpec.__slots__:
        assert getattr(FULL, name) != getattr(plain, name), name


@pytest.mark.parametrize("spec", [FULL, PodSpec("a", "b", "c")])
def test_a_record_is_the_pod_again(tmp_path: Path, spec: PodSpec) -> None:
    path = str(tmp_path / "p.cbor")
    write_record(path, "pod", Pod("p1", 5, "boot", spec).to_record(), durable=False)
    found = Pod.from_record(read_record(path, "pod"))
    assert found.spec == spec
    assert (found.id, found.created_ns, found.boot) == ("p1", 5, "boot")
    # nothing of its state
    assert not found.ready
    assert found.namespaces == {}


@pytest.mark.parametrize("pause", [None, Identity(7, 99, "boot")])
def test_a_state_is_the_state_again(tmp_path: Path, pause: Identity | None) -> None:
    pod = Pod("p1", 5, "boot", FULL, ready=True, network=True)
    pod.namespaces = {"network": "/n", "ipc": None}
    pod.ips = ["1.1.1.1", "::1"]
    pod.pause = pause
    pod.exited_ns = 9
    pod.groups = ["/sys/fs/cgroup/a"]
    path = str(tmp_path / "s.cbor")
    write_record(path, "pod-state", pod.to_state(), durable=False)
    other = Pod.from_record(pod.to_record())
    other.take_state(read_record(path, "pod-state"))
    for name in ("ready", "network", "namespaces", "ips", "pause", "exited_ns", "groups"):
        assert getattr(other, name) == getattr(pod, name)
    assert other.to_state() == pod.to_state()


def test_a_newer_engines_fields_are_left_out() -> None:
    record = Pod("p1", 5, "boot", FULL).to_record()
    record["spec"]["flavour"] = "sweet"
    assert Pod.from_record(record).spec == FULL


@pytest.mark.parametrize("name", ["labels", "hostname", "security", "resources", "dns"])
def test_an_older_engines_record_has_defaults(name: str) -> None:
    record = Pod("p1", 5, "boot", FULL).to_record()
    del record["spec"][name]
    found = Pod.from_record(record).spec
    assert getattr(found, name) == getattr(PodSpec("", "", ""), name)


DAMAGED: list[dict[str, Any]] = [
    {},
    {"id": "p1", "created_ns": 1, "boot": "b"},
    {"id": "p1", "created_ns": 1, "boot": "b", "spec": {}},
    {"id": "p1", "created_ns": 1, "boot": "b", "spec": {"name": "a"}},
    {
        "id": "p1",
        "created_ns": 1,
        "boot": "b",
        "spec": {**Pod("", 0, "", FULL).to_record()["spec"], "dns": {"servers": 5}},
    },
    {
        "id": "p1",
        "created_ns": 1,
        "boot": "b",
        "spec": {**Pod("", 0, "", FULL).to_record()["spec"], "port_mappings": [{"x": 1}]},
    },
]


@pytest.mark.parametrize("record", DAMAGED)
def test_what_is_no_pod_is_one_of_the_errors_that_are_put_aside(record: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        Pod.from_record(record)


def test_names_that_differ_are_different_pods() -> None:
    keys = {
        PodSpec("a", "u", "n").key,
        PodSpec("a", "u", "n", 1).key,
        PodSpec("a", "v", "n").key,
        PodSpec("a", "u", "m").key,
        PodSpec("b", "u", "n").key,
    }
    assert len(keys) == 5
    assert "k8s_POD_a_n_u_0" in keys
