"""Adjustments and updates of several plugins in one, and conflicts that name both."""

from __future__ import annotations

from typing import Any

import pytest

from isula_cri.nri import ContainerInfo, Resources, messages
from isula_cri.nri.info import container_message
from isula_cri.nri.merge import Creation, Owners, Updates
from isula_edge import errors

CONTAINER = ContainerInfo(
    "c1",
    "pod1",
    "web",
    annotations={"own": "1", "gone": "2"},
    args=["old"],
    env=["A=1", "B=2"],
    mounts=[{"destination": "/data", "type": "bind", "source": "/srv", "options": ["ro"]}],
    sysctls={"net.a": "1"},
    rlimits=[("nofile", 10, -1)],
    resources=Resources(cpu_shares=5),
)


def creation() -> Creation:
    return Creation(messages.CreateContainerRequest(container=container_message(CONTAINER)))


def take(made: Creation, plugin: str, **adjust: Any) -> None:
    made.take(plugin, messages.CreateContainerResponse(adjust=adjust))


def optional(value: int) -> dict[str, int]:
    return {"value": value}


PARTS: dict[str, dict[str, Any]] = {
    "Annotations key": {"annotations": {"key": "1"}},
    "Mounts /m": {"mounts": [{"destination": "/m"}]},
    "Env KEY": {"env": [{"key": "KEY", "value": "1"}]},
    "Args": {"args": ["sh"]},
    "Rlimits RLIMIT_CORE": {"rlimits": [{"type": "RLIMIT_CORE"}]},
    "CdiDevices v/c=d": {"CDI_devices": [{"name": "v/c=d"}]},
    "Devices /dev/x": {"linux": {"devices": [{"path": "/dev/x"}]}},
    "Namespace network": {"linux": {"namespaces": [{"type": "network"}]}},
    "Sysctl net.b": {"linux": {"sysctl": {"net.b": "1"}}},
    "CgroupsPath": {"linux": {"cgroups_path": "/a"}},
    "OomScoreAdj": {"linux": {"oom_score_adj": optional(0)}},
    "SeccompPolicy": {"linux": {"seccomp_policy": {"default_action": "SCMP_ACT_ALLOW"}}},
    "MemLimit": {"linux": {"resources": {"memory": {"limit": optional(0)}}}},
    "MemSwappiness": {"linux": {"resources": {"memory": {"swappiness": optional(1)}}}},
    "CPUQuota": {"linux": {"resources": {"cpu": {"quota": optional(-1)}}}},
    "CPUSetCPUs": {"linux": {"resources": {"cpu": {"cpus": "0"}}}},
    "PidsLimit": {"linux": {"resources": {"pids": {"limit": 0}}}},
    "HugepageLimits 2MB": {"linux": {"resources": {"hugepage_limits": [{"page_size": "2MB"}]}}},
    "CgroupsUnified cpu.weight": {"linux": {"resources": {"unified": {"cpu.weight": "5"}}}},
}


@pytest.mark.parametrize("what", PARTS)
def test_two_plugins_cannot_set_the_same(what: str) -> None:
    made = creation()
    take(made, "10-a", **PARTS[what])
    take(made, "10-a", **PARTS[what])
    with pytest.raises(errors.FailedPrecondition) as caught:
        take(made, "20-b", **PARTS[what])
    assert str(caught.value) == f'plugins "10-a" and "20-b" both tried to set {what}'


@pytest.mark.parametrize("what", PARTS)
def test_what_one_plugin_sets_is_in_the_result_and_for_the_next(what: str) -> None:
    made = creation()
    take(made, "10-a", **PARTS[what])
    assert made.adjust == messages.ContainerAdjustment(**PARTS[what])
    owners = made.owners.message().owners["c1"]
    field, _, key = what.partition(" ")
    number = messages.FIELDS[field]
    found = owners.compound[number].owners[key] if key else owners.simple[number]
    assert found == "10-a"
    if field == "CdiDevices":
        return  # not told to the next plugin
    assert made.request.container != container_message(CONTAINER)


def test_different_things_of_two_plugins() -> None:
    made = creation()
    take(made, "10-a", env=[{"key": "C", "value": "3"}], annotations={"a": "1"})
    take(made, "20-b", env=[{"key": "D", "value": "4"}], annotations={"b": "2"})
    assert list(made.request.container.env) == ["A=1", "B=2", "C=3", "D=4"]
    assert dict(made.adjust.annotations) == {"a": "1", "b": "2"}
    assert dict(made.request.container.annotations) == {"own": "1", "gone": "2", "a": "1", "b": "2"}


def test_removal_and_replacement() -> None:
    made = creation()
    take(
        made,
        "10-a",
        annotations={"-gone": ""},
        env=[{"key": "-A"}, {"key": "B", "value": "3"}],
        mounts=[{"destination": "-/data"}, {"destination": "/data", "type": "tmpfs"}],
        args=["new"],
        linux={"sysctl": {"-net.a": ""}},
    )
    container = made.request.container
    assert dict(container.annotations) == {"own": "1"}
    assert list(container.env) == ["B=3"]
    assert [(mount.destination, mount.type) for mount in container.mounts] == [("/data", "tmpfs")]
    assert list(container.args) == ["new"]
    assert dict(container.linux.sysctl) == {}
    assert [mount.destination for mount in made.adjust.mounts] == ["-/data", "/data"]


def test_a_plugin_may_replace_what_it_removes_of_another() -> None:
    made = creation()
    take(made, "10-a", env=[{"key": "C", "value": "1"}], args=["a"], annotations={"x": "1"})
    take(
        made,
        "20-b",
        env=[{"key": "-C"}, {"key": "C", "value": "2"}],
        args=["", "b"],
        annotations={"-x": "", "x": "2"},
    )
    assert [item.value for item in made.adjust.env if item.key == "C"] == ["2"]
    assert list(made.adjust.args) == ["b"]
    assert dict(made.adjust.annotations) == {"-x": "", "x": "2"}
    with pytest.raises(errors.FailedPrecondition, match='"20-b" and "30-c"'):
        take(made, "30-c", env=[{"key": "C", "value": "3"}])


def test_hooks_of_all_plugins_add_up() -> None:
    made = creation()
    take(made, "10-a", hooks={"prestart": [{"path": "/a"}]})
    take(made, "20-b", hooks={"prestart": [{"path": "/b"}], "poststop": [{"path": "/c"}]})
    assert [hook.path for hook in made.adjust.hooks.prestart] == ["/a", "/b"]
    assert [hook.path for hook in made.request.container.hooks.poststop] == ["/c"]
    owners = made.owners.message().owners["c1"]
    assert owners.simple[messages.FIELDS["OciHooks"]] == "10-a,20-b"


@pytest.mark.parametrize(
    ("linux", "what"),
    [
        ({"io_priority": {}}, "io_priority"),
        ({"scheduler": {"nice": 1}}, "scheduler"),
        ({"rdt": {}}, "rdt"),
        ({"memory_policy": {}}, "memory_policy"),
        ({"net_devices": {"eth0": {"name": "eth1"}}}, "net_devices"),
        ({"resources": {"blockio_class": {"value": "x"}}}, "blockio_class"),
        ({"resources": {"rdt_class": {"value": ""}}}, "rdt_class"),
    ],
)
def test_what_the_engine_cannot_set_is_refused(linux: dict[str, Any], what: str) -> None:
    with pytest.raises(errors.Unimplemented, match=rf'"10-a" asked for {what}'):
        take(creation(), "10-a", linux=linux)


def test_the_container_that_is_created_cannot_be_updated() -> None:
    with pytest.raises(errors.FailedPrecondition, match="being created"):
        creation().take(
            "10-a", messages.CreateContainerResponse(update=[{"container_id": "c1"}])
        )


def update(name: str, *, ignore_failure: bool = False, **memory: int) -> Any:
    return messages.ContainerUpdate(
        container_id=name,
        ignore_failure=ignore_failure,
        linux={"resources": {"memory": {key: {"value": n} for key, n in memory.items()}}},
    )


def limits(updates: Updates, name: str) -> Resources:
    return Resources.of(updates.by_id[name].linux.resources)


def test_updates_of_one_container_are_merged() -> None:
    updates = Updates(Owners())
    updates.take("10-a", [update("c2", limit=1, ignore_failure=True)])
    assert updates.by_id["c2"].ignore_failure
    updates.take("20-b", [update("c2", swap=2), update("c3", limit=3)])
    assert limits(updates, "c2") == Resources(memory_limit=1, memory_swap=2)
    assert not updates.by_id["c2"].ignore_failure
    assert limits(updates, "c3") == Resources(memory_limit=3)


def test_an_update_in_conflict() -> None:
    updates = Updates(Owners())
    updates.take("10-a", [update("c2", limit=1)])
    updates.take("20-b", [update("c2", limit=2, swap=9, ignore_failure=True)])
    assert limits(updates, "c2") == Resources(memory_limit=1)
    with pytest.raises(errors.FailedPrecondition, match='"10-a" and "20-b"'):
        updates.take("20-b", [update("c2", limit=2)])
