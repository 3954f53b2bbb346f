"""What the runtime says of itself."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.cri.client import refused

if TYPE_CHECKING:
    from tests.cri.node import Machine, Node

pytestmark = [pytest.mark.root, pytest.mark.lxc]


def test_version(plain: Node) -> None:
    """Spec: runtime should return version info."""
    found = plain.call("Version", version="v1")
    assert found.version == "0.1.0"
    assert found.runtime_name
    assert re.match(r"v?\d+\.\d+", found.runtime_version)
    assert found.runtime_api_version


def test_conditions(plain: Node) -> None:
    """Spec: runtime should return runtime conditions."""
    found = {item.type: item.status for item in plain.call("Status").status.conditions}
    assert found["RuntimeReady"]
    assert found["NetworkReady"]


def test_information_is_given_when_asked_for(plain: Node) -> None:
    assert not plain.call("Status").info
    info = plain.call("Status", verbose=True).info
    assert json.loads(info["config"])


def test_every_handler_is_listed_once(plain: Node) -> None:
    names = [item.name for item in plain.call("Status").runtime_handlers]
    assert len(set(names)) == len(names)
    assert {"", "runc"} <= set(names)


def test_groups_of_the_image_may_be_left_out(plain: Node) -> None:
    assert plain.call("Status").features.supplemental_groups_policy


def test_cgroup_driver(plain: Node) -> None:
    assert plain.call("RuntimeConfig").linux.cgroup_driver == 1


def test_no_pod_cidr_changes_nothing(plain: Node) -> None:
    plain.call("UpdateRuntimeConfig", runtime_config={"network_config": {"pod_cidr": ""}})
    plain.call("UpdateRuntimeConfig")


def test_a_call_that_nobody_knows(machine: Machine) -> None:
    channel = grpc.insecure_channel(machine.endpoint)
    call = channel.unary_unary("/runtime.v1.RuntimeService/NoSuchCall")
    with refused("UNIMPLEMENTED"):
        call(b"", timeout=30)
    channel.close()
