"""Devices that are described instead of taken from the host, in the runtime-spec document."""

from __future__ import annotations

from typing import Any

from isula_edge.oci.options import Settings
from isula_edge.oci.spec import Subject, build
from isula_edge.oci.user import User

SUBJECT = Subject(
    id="c", rootfs="/r", args=["sh"], image_env=[], workdir="/", user=User(7, 8, ()),
    hostname="h", cgroup="c", files={}, namespaces={}, seccomp=None,
)  # fmt: skip
NODE = {"path": "/dev/x", "type": "c", "major": 10, "minor": 20, "fileMode": 0o600}


def linux(*nodes: dict[str, Any], **settings: Any) -> dict[str, Any]:
    found: dict[str, Any] = build(Settings(device_nodes=list(nodes), **settings), SUBJECT)["linux"]
    return found


def rules(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that are there for the sake of nodes."""
    usual = linux()["resources"]["devices"]
    return [rule for rule in document["resources"]["devices"] if rule not in usual]


def test_a_node_belongs_to_the_containers_user_unless_it_is_said_whose_it_is() -> None:
    document = linux({**NODE, "access": "rw"}, {**NODE, "path": "/y", "uid": 0, "access": "rw"})
    assert document["devices"] == [
        {**NODE, "uid": 7, "gid": 8},
        {**NODE, "path": "/y", "uid": 0, "gid": 8},
    ]


def test_the_cgroup_lets_it_be_used() -> None:
    block = {**NODE, "type": "b", "access": "r"}
    unbuffered = {**NODE, "type": "u", "access": "rwm"}
    numbers = {"major": 10, "minor": 20}
    assert rules(linux(block, unbuffered)) == [
        {"allow": True, "type": "b", **numbers, "access": "r"},
        {"allow": True, "type": "c", **numbers, "access": "rwm"},
    ]


def test_one_without_access_has_no_rule() -> None:
    pipe = {"path": "/dev/p", "type": "p", "fileMode": 0o666, "access": ""}
    document = linux({**NODE, "access": ""}, pipe)
    assert rules(document) == []
    assert [node["path"] for node in document["devices"]] == ["/dev/x", "/dev/p"]


def test_it_replaces_the_hosts_in_a_privileged_container() -> None:
    document = linux({**NODE, "path": "/dev/loop-control", "access": "rw"}, privileged=True)
    found = [node for node in document["devices"] if node["path"] == "/dev/loop-control"]
    assert found == [{**NODE, "path": "/dev/loop-control", "uid": 7, "gid": 8}]
    assert rules(document) == [{"allow": True, "access": "rwm"}]


def test_what_every_container_has_stays() -> None:
    assert "devices" not in linux({**NODE, "path": "/dev/null", "access": "rw"})
