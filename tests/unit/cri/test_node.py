"""How pods and containers are found for the CRI, and limits both ways."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

pytest.importorskip("google.protobuf")

from isula_cri import messages
from isula_cri.node import Node, limit_change, limit_resources, limits_of
from isula_cri.nri import Resources
from isula_edge import errors
from isula_edge.container.record import Container
from isula_edge.oci.options import Settings
from isula_edge.oci.resources import ResourceChange
from isula_edge.pod.record import Pod, PodSpec
from isula_edge.service.events import Events
from isula_edge.types import ContainerId, ImageId
from tests.fakes.table import Table

if TYPE_CHECKING:
    from isula_edge.service.engine import Engine


def container(own_id: str, pod: str = "p1", created_ns: int = 1) -> Container:
    return Container(
        *(ContainerId(own_id), f"name-{own_id}", created_ns, "busybox", ImageId(""), {}, []),
        *("lxc", ["true"], Settings()),
        pod=pod,
        cri={"name": "main", "annotations": {"a": "b"}},
    )


def node(*containers: Container, pods: tuple[Pod, ...] = ()) -> Node:
    fake = SimpleNamespace(
        table=Table(*containers), pods=Table(*pods), events=Events(), background=None
    )
    return Node(cast("Engine", fake))


def test_containers_are_found_by_id_and_its_beginning_only() -> None:
    found = node(container("c1ff"), container("d2ff", pod=""))
    assert found.container("c1ff").id == "c1ff"
    assert found.container("c1").id == "c1ff"
    # names, containers without a pod, and nothing
    for ref in ("name-c1ff", "d2ff", "d2", "", "e3"):
        with pytest.raises(errors.NotFound, match=f"No such.*{ref}"):
            found.container(ref)
        assert found.find_container(ref) is None


def test_the_oldest_come_first() -> None:
    pods = tuple(Pod(f"p{age}", age, "boot", PodSpec("a", "b", "c")) for age in (3, 1, 2))
    found = node(
        container("b", created_ns=9), container("a", created_ns=5), container("c", "", 1), pods=pods
    )
    assert [item.id for item in found.all_containers()] == ["a", "b"]
    assert [item.id for item in found.all_pods()] == ["p1", "p2", "p3"]


CHANGE = ResourceChange(
    cpu_shares=2,
    cpu_period=1000,
    cpu_quota=500,
    cpuset_cpus="0",
    cpuset_mems="1",
    memory=64,
    memory_swap=128,
    pids_limit=9,
    hugepages=(("2MB", 0),),
    unified={"memory.high": "1"},
)


def test_limits_come_back_as_they_were() -> None:
    assert limit_change(limit_resources(CHANGE)) == CHANGE
    assert limit_change(limit_resources(ResourceChange())) == ResourceChange()
    assert limit_resources(ResourceChange()) == Resources()


@pytest.mark.parametrize(
    "fields",
    [
        {"blockio_class": "slow"},
        {"rdt_class": "gold"},
        {"cpu_rt_runtime": 5},
        {"cpu_rt_period": 5},
    ],
)
def test_limits_that_cannot_be_changed_are_refused_by_name(fields: dict[str, Any]) -> None:
    (name,) = fields
    with pytest.raises(errors.Unimplemented, match=name):
        limit_change(Resources(**fields))


def test_limits_of_a_kubelet_as_plugins_see_them() -> None:
    message = messages.LinuxContainerResources(cpu_shares=2, memory_limit_in_bytes=64)
    assert limits_of(message) == Resources(cpu_shares=2, memory_limit=64)


def test_a_pod_as_plugins_see_it() -> None:
    pod = Pod("p1", 1, "boot", PodSpec("a", "u", "ns", resources={"cpu_shares": 2}))
    pod.namespaces = {"network": "/n", "ipc": None}
    pod.ips = ["1.1.1.1"]
    info = node(pods=(pod,)).pod_info(pod)
    assert (info.id, info.name, info.uid, info.namespace) == ("p1", "a", "u", "ns")
    assert info.namespaces == {"network": "/n"}
    assert info.ips == ["1.1.1.1"]
    assert info.resources == Resources(cpu_shares=2)
    assert info.overhead is None


def test_a_container_as_plugins_see_it() -> None:
    found = container("c1")
    info = node(found).container_info(found)
    assert (info.id, info.pod_id, info.name, info.state) == ("c1", "p1", "main", "created")
    assert list(info.args) == ["true"]
    assert info.annotations == {"a": "b"}


def test_without_plugins_nobody_is_told() -> None:
    found = node()
    assert found.told is None

    async def work() -> None:
        async with found.making():
            pass

    asyncio.run(work())
