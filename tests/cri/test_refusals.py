"""Values that no pod and no container can have: refused at once, by name, and nothing is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from isula_cri import messages
from tests.cri.client import Cri, refused

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cri.node import Machine, Node


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"hostname": "a\nb"}, "hosts"),
        ({"hostname": "a" * 65}, "longer"),
        ({"hostname": "a\0b"}, "config.hostname has a NUL"),
        ({"dns_config": {"servers": ["1.1.1.1\noptions x"]}}, "resolv.conf"),
        ({"labels": {"a": "\0"}}, "config.labels has a NUL"),
        ({"port_mappings": [{"container_port": 80, "host_ip": "nowhere"}]}, "host_ip"),
        ({"linux": {"cgroup_parent": "/../../var/tmp/x"}}, "cgroup_parent"),
        ({"linux": {"cgroup_parent": "/a\nb"}}, "cgroup_parent"),
        ({"linux": {"sysctls": {"net/../kernel/x": "1"}}}, "sysctl"),
        (
            {"linux": {"security_context": {"seccomp": {
                "profile_type": "Localhost", "localhost_ref": "/no/such/profile"}}}},
            "/no/such/profile",
        ),
    ],
)  # fmt: skip
def test_pods(plain: Node, fields: dict[str, Any], word: str) -> None:
    before = len(plain.call("ListPodSandbox").items)
    with refused("INVALID_ARGUMENT") as caught:
        plain.pod(**fields)
    assert word in caught.value.details()
    assert len(plain.call("ListPodSandbox").items) == before


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"mounts": [{"host_path": "/tmp\0", "container_path": "/x"}]}, "mounts.host_path"),
        ({"args": ["a\0"]}, "args has a NUL"),
        ({"security": {"privileged": True}}, "privileged"),
        ({"resources": {"oom_score_adj": 5000}}, "oom_score_adj"),
    ],
)
def test_containers(plain: Node, fields: dict[str, Any], word: str) -> None:
    pod = plain.pod()
    with refused("INVALID_ARGUMENT") as caught:
        pod.create("true", **fields)
    assert word in caught.value.details()
    assert not plain.call("ListContainers", filter={"pod_sandbox_id": pod.id}).containers


def test_a_seccomp_profile_that_is_none(plain: Node, tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text("no JSON")
    seccomp = {"profile_type": "Localhost", "localhost_ref": str(profile)}
    pod = plain.pod()
    with refused("INVALID_ARGUMENT") as caught:
        pod.create("true", security={"seccomp": seccomp})
    assert str(profile) in caught.value.details()


def test_the_version_of_the_api_is_that_of_the_call(machine: Machine) -> None:
    for package in (messages.PACKAGE, "runtime.v1alpha2"):
        cri = Cri(machine.endpoint, package)
        assert cri("Version").runtime_api_version == package.removeprefix("runtime.")
        cri.close()
