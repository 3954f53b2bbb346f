"""Rates between samples, and sums over an engine of fakes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from isula_edge import errors
from isula_edge.cgroup.stats import Details, GroupStats
from isula_edge.container.record import Container, State, Status
from isula_edge.oci.options import Settings
from isula_edge.pod.record import Pod, PodSpec
from isula_edge.service import stats
from isula_edge.service.stats import Stats, _Rates
from isula_edge.sys import netdev
from isula_edge.sys.netdev import Interface
from isula_edge.sys.usage import TreeUsage
from isula_edge.types import ContainerId, ImageId

if TYPE_CHECKING:
    import pytest

    from isula_edge.service.engine import Engine

SECOND = 10**9


def test_a_rate_needs_a_sample_before() -> None:
    rates = _Rates()
    assert rates.add("a", 5 * SECOND, 100 * SECOND) is None
    assert rates.add("b", 0, 101 * SECOND) is None
    # half a CPU, over two seconds
    assert rates.add("a", 6 * SECOND, 102 * SECOND) == SECOND // 2
    assert rates.add("b", 0, 102 * SECOND) == 0


def test_a_moment_later_the_rate_is_the_same() -> None:
    rates = _Rates()
    rates.add("a", 0, 0)
    assert rates.add("a", SECOND, SECOND) == SECOND
    assert rates.add("a", SECOND + 1, SECOND + 1) == SECOND
    # the sample that counts is still the one before
    assert rates.add("a", SECOND, 2 * SECOND) == 0


def test_another_life_begins_anew() -> None:
    rates = _Rates()
    rates.add("a", 9 * SECOND, 0)
    assert rates.add("a", SECOND, SECOND) is None
    assert rates.add("a", 2 * SECOND, 2 * SECOND) == SECOND


def test_what_nobody_asks_for_is_forgotten() -> None:
    rates = _Rates()
    rates.add("a", 0, 0)
    rates.add("b", 0, 5 * SECOND)
    rates.forget(5 * SECOND)
    assert rates.add("a", SECOND, 6 * SECOND) is None
    assert rates.add("b", SECOND, 6 * SECOND) == SECOND


# an engine of fakes

GROUPS = {"/c1": GroupStats(taken_ns=1, cpu_ns=10, memory_usage=100, pids=1)}


def container(own_id: str, status: Status = Status.RUNNING) -> Container:
    return Container(
        *(ContainerId(own_id), own_id, 1, "busybox", ImageId(""), {}, [], "lxc", ["true"]),
        Settings(),
        State(status, pid=7),
    )


def engine(paths: dict[str, dict[str, str]], guest: object = None) -> Engine:
    tasks: set[asyncio.Future[Any]] = set()
    fake = SimpleNamespace(
        life=SimpleNamespace(
            rootfs_data=lambda item: paths.get(item.id, {}),
            machine=lambda _: guest,
        ),
        background=lambda work: tasks.add(asyncio.ensure_future(work)),
        layers=SimpleNamespace(driver=SimpleNamespace(home="/graph")),
        cgroups=SimpleNamespace(pids=lambda _: [7]),
        bundles=SimpleNamespace(
            cgroup=lambda item: f"/{item.id}", load=lambda item: SimpleNamespace(id=item.id)
        ),
        config=SimpleNamespace(systemd_cgroup=False),
    )
    return cast("Engine", fake)


def use(monkeypatch: pytest.MonkeyPatch, groups: dict[str, GroupStats], *networks: str) -> None:
    def read(_cgroups: object, group: str, *, detailed: bool) -> GroupStats | None:
        del detailed
        return groups.get(group)

    monkeypatch.setattr(stats, "read_stats", read)
    monkeypatch.setattr(stats, "tree_usage", lambda path: TreeUsage(len(path), 1))
    monkeypatch.setattr(
        netdev, "interfaces", lambda _: {path: [Interface("eth0")] for path in networks}
    )


def test_one_that_does_not_run_uses_nothing_but_its_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, GROUPS)
    paths = {"c1": {"UpperDir": "/up"}, "c2": {"MergedDir": "/merged"}}

    async def work() -> None:
        running, created, other = await Stats(engine(paths)).containers(
            [container("c1"), container("c2", Status.CREATED), container("c3")]
        )
        assert running.group == GROUPS["/c1"]
        assert running.layer is not None
        assert (running.layer.size, running.layer.mountpoint) == (TreeUsage(3, 1), "/graph")
        assert running.nano_cores is None
        assert created.layer is not None
        assert created.layer.size == TreeUsage(7, 1)
        # its cgroup is gone, and it has no layer of its own
        assert other.layer is None
        for item in (created, other):
            assert (item.group.cpu_ns, item.group.memory_usage) == (0, 0)
            assert item.group.taken_ns > 0
            assert item.open is None

    asyncio.run(work())


def test_what_a_virtual_machine_uses_is_its_runtimes_to_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(monkeypatch, GROUPS)
    told = GroupStats(taken_ns=3, cpu_ns=40, memory_usage=400, pids=4, details=Details())

    async def tell(bundle: Any) -> GroupStats | None:
        if bundle.id == "c3":
            raise errors.Unavailable("the shim is gone")
        return told if bundle.id == "c1" else None

    async def work() -> None:
        found = Stats(engine({}, SimpleNamespace(vm=True, stats=tell)))
        names = [container("c1"), container("c2"), container("c3")]
        first, *others = await found.containers(names)
        assert first.group == replace(told, details=None)
        assert [item.group.cpu_ns for item in others] == [0, 0]
        assert (await found.container(names[0], detailed=True)).group == told

    asyncio.run(work())


def test_a_pod_without_a_cgroup_is_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = {**GROUPS, "/c2": GroupStats(taken_ns=2, cpu_ns=5, memory_usage=50, pids=2)}
    use(monkeypatch, groups, "/n")
    pod = Pod("p1", 1, "boot", PodSpec("a", "b", "c"), namespaces={"network": "/n"})

    async def work() -> None:
        found = await Stats(engine({})).pod(pod, [container("c1"), container("c2")])
        assert (found.group.cpu_ns, found.group.memory_usage, found.group.pids) == (15, 150, 3)
        assert found.nano_cores is None
        assert found.network == (Interface("eth0"),)
        assert [item.id for item in found.containers] == ["c1", "c2"]

    asyncio.run(work())


def test_a_pods_own_cgroup_counts_and_the_hosts_network_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = GroupStats(taken_ns=1, cpu_ns=99, memory_usage=999)
    use(monkeypatch, {**GROUPS, "kubepods/p1": own})
    pod = Pod(
        *("p1", 1, "boot", PodSpec("a", "b", "c", cgroup_parent="/kubepods/p1")),
        namespaces={"network": None},
    )

    async def work() -> None:
        found = await Stats(engine({})).pod(pod, [container("c1")])
        assert found.group == own
        assert found.network is None

    asyncio.run(work())
