"""Case A31g: both versions of the CRI are served, and what is not says so plainly."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import grpc
import pytest

from isula_cri import messages
from tests.cri.client import Cri, refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cri.node import Machine, Node

pytestmark = [pytest.mark.root, pytest.mark.lxc]
_CRICTL = os.environ.get("CRICTL") or shutil.which("crictl")


@pytest.fixture(params=["its own socket", "the client's socket"])
def endpoint(request: pytest.FixtureRequest, machine: Machine) -> str:
    """Where the CRI is: kubelets of iSulad's users know the client's socket."""
    return machine.own.host if request.param == "the client's socket" else machine.endpoint


@pytest.fixture(params=["runtime.v1", "runtime.v1alpha2"])
def cri(request: pytest.FixtureRequest, endpoint: str) -> Iterator[Cri]:
    found = Cri(endpoint, request.param)
    yield found
    found.close()


def test_version_and_status(cri: Cri) -> None:
    version = cri("Version")
    assert version.version == "0.1.0"
    assert version.runtime_name == "isula-edge"
    assert all((version.runtime_version, version.runtime_api_version))
    conditions = {item.type: item.status for item in cri("Status").status.conditions}
    assert conditions["RuntimeReady"]
    assert conditions["NetworkReady"]
    assert cri("ListImages").images


def test_runtime_config(endpoint: str) -> None:
    new, old = Cri(endpoint), Cri(endpoint, "runtime.v1alpha2")
    assert new("RuntimeConfig").linux.cgroup_driver == messages.enum("CgroupDriver")["CGROUPFS"]
    with refused("UNIMPLEMENTED"):
        old("RuntimeConfig")
    new.close()
    old.close()


@pytest.mark.parametrize("package", ["runtime.v2", "runtime.v1alpha1", "runtime.v1beta1"])
def test_other_versions(machine: Machine, package: str) -> None:
    """A client that tries versions one after the other needs this code to go on."""
    other = Cri(machine.endpoint, package)
    for method in ("Version", "ListImages"):
        with refused("UNIMPLEMENTED"):
            other(method)
    other.close()


def test_every_call_of_the_interface_is_answered(plain: Node) -> None:
    """No call is unknown: each gives an answer, or says itself why it does not."""
    channel = grpc.insecure_channel(plain.machine.endpoint)
    for name, service in messages.services().items():
        for method in service.methods:
            make = channel.unary_stream if method.server_streaming else channel.unary_unary
            call = make(f"/runtime.v1.{name}/{method.name}")
            code, details = grpc.StatusCode.OK, ""
            try:
                answer = call(b"", timeout=10)
                if method.server_streaming:
                    answer.cancel()
            except grpc.RpcError as error:
                code, details = error.code(), str(error.details())
            assert "Method not found" not in details, method.name
            assert code != grpc.StatusCode.INTERNAL, (method.name, details)
    channel.close()


@pytest.mark.skipif(not _CRICTL, reason="crictl is not installed")
def test_crictl_version(machine: Machine) -> None:
    words = [str(_CRICTL), "--runtime-endpoint", machine.endpoint, "version"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done
    assert "RuntimeName:  isula-edge" in done.stdout
