"""What an adjustment makes of a container's settings, and what plugins are told of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from isula_cri.nri import Adjustment, Resources, apply, from_settings, messages
from isula_cri.nri.info import container_message
from isula_edge import errors
from isula_edge.oci.mounts import Mount
from isula_edge.oci.options import Settings
from isula_edge.profile.seccomp import from_json

if TYPE_CHECKING:
    from pathlib import Path

FULL = Resources(
    memory_limit=1,
    memory_reservation=2,
    memory_swap=-1,
    memory_kernel=3,
    memory_kernel_tcp=4,
    memory_swappiness=0,
    oom_kill_disable=False,
    cpu_shares=0,
    cpu_quota=-1,
    cpu_period=1000,
    cpu_rt_runtime=5,
    cpu_rt_period=6,
    cpuset_cpus="0",
    cpuset_mems="0-1",
    pids_limit=0,
    blockio_class="b",
    rdt_class="",
    hugepages=(("2MB", 1 << 21),),
    unified={"memory.high": "max"},
    devices=("c 1:3 rwm", "b *:* r", "a *:* rwm"),
)


def adjust(settings: Settings, **asked: Any) -> Settings:
    return apply(Adjustment(messages.ContainerAdjustment(**asked)), settings)


def limited(settings: Settings, resources: Resources) -> Settings:
    return adjust(settings, linux={"resources": resources.message()})


@pytest.mark.parametrize("resources", [FULL, Resources(), Resources(cpu_shares=0)])
def test_resources_come_back(resources: Resources) -> None:
    sent = resources.message().SerializeToString()
    assert Resources.of(messages.LinuxResources.FromString(sent)) == resources


def test_an_empty_adjustment_changes_nothing() -> None:
    settings = Settings(
        env=["A=1"], mounts=[Mount("tmpfs", "", "/t")], nano_cpus=5, hooks={"prestart": []}
    )
    before = replace(settings)
    assert adjust(settings) == before


def test_the_settings_given_stay_as_they_were() -> None:
    settings = Settings(annotations={"a": "1"}, env=["A=1"], ulimits=[("core", 0, 0)])
    before = json.dumps([settings.annotations, settings.env, settings.ulimits])
    adjust(
        settings,
        annotations={"b": "2", "-a": ""},
        env=[{"key": "-A"}],
        rlimits=[{"type": "RLIMIT_CORE", "soft": 1, "hard": 1}],
    )
    assert json.dumps([settings.annotations, settings.env, settings.ulimits]) == before


def test_annotations_sysctls_and_variables() -> None:
    settings = Settings(
        annotations={"a": "1", "b": "2"}, sysctls={"net.a": "1"}, env=["A=1", "B=2=2", "C"]
    )
    found = adjust(
        settings,
        annotations={"-a": "", "b": "3", "c": "4"},
        env=[{"key": "-C"}, {"key": "A", "value": "x=y"}, {"key": "IMAGE"}, {"key": "-HOME"}],
        linux={"sysctl": {"-net.a": "", "net.b": "2"}},
    )
    assert found.annotations == {"b": "3", "c": "4"}
    assert found.env == ["B=2=2", "A=x=y", "IMAGE="]
    assert found.sysctls == {"net.b": "2"}


def test_what_the_caller_does_itself() -> None:
    adjustment = Adjustment(
        messages.ContainerAdjustment(
            args=["sh", "-c"],
            CDI_devices=[{"name": "v/c=d"}],
            env=[{"key": "-HOME"}, {"key": "A", "value": "1"}],
        )
    )
    assert adjustment.args == ["sh", "-c"]
    assert adjustment.cdi_devices == ["v/c=d"]
    assert adjustment.env_removed == {"HOME"}


def test_mounts(tmp_path: Path) -> None:
    own = [Mount("bind", "/srv", "/data"), Mount("tmpfs", "", "/gone"), Mount("tmpfs", "", "/kept")]
    found = adjust(
        Settings(mounts=own),
        mounts=[
            {"destination": "-/gone"},
            {
                "destination": "/data/",
                "type": "bind",
                "source": str(tmp_path),
                "options": ["rbind", "rro", "rslave", "nosuid"],
            },
            {"destination": "/new", "type": "tmpfs", "options": ["size=1m", "rw"]},
        ],
    ).mounts
    assert [mount.target for mount in found] == ["/data", "/kept", "/new"]
    assert found[0] == Mount(
        "bind", str(tmp_path), "/data", True, "rslave", ("nosuid",), recursive_read_only=True
    )
    assert found[2] == Mount("tmpfs", "", "/new", False, "", ("size=1m",))


@pytest.mark.parametrize(
    ("mount", "kind"),
    [
        ({"destination": "/a", "type": "nfs", "source": "x"}, errors.Unimplemented),
        ({"destination": "a", "type": "tmpfs"}, errors.InvalidArgument),
        ({"destination": "/", "type": "tmpfs"}, errors.InvalidArgument),
        ({"destination": "/a", "source": "/no/such/place"}, errors.InvalidArgument),
    ],
)
def test_mounts_that_cannot_be(mount: dict[str, Any], kind: type[errors.EngineError]) -> None:
    with pytest.raises(kind):
        adjust(Settings(), mounts=[mount])


def test_devices_are_found_by_their_numbers() -> None:
    settings = Settings(devices=[("/dev/zero", "/dev/gone", "rwm"), ("/dev/zero", "/dev/z", "r")])
    found = adjust(
        settings,
        linux={
            "devices": [
                {"path": "-/dev/gone"},
                {"path": "/dev/mine", "type": "c", "major": 1, "minor": 3},
                {
                    "path": "/dev/zero",
                    "type": "c",
                    "major": 1,
                    "minor": 5,
                    "file_mode": {"value": 0o444},
                },
            ]
        },
    )
    assert found.devices == [
        ("/dev/zero", "/dev/z", "r"),
        ("/dev/null", "/dev/mine", "rwm"),
        ("/dev/zero", "/dev/zero", "rm"),
    ]


@pytest.mark.parametrize(
    ("device", "kind"),
    [
        ({"path": "/dev/x", "type": "c", "major": 4095, "minor": 77}, errors.InvalidArgument),
        ({"path": "/dev/null", "type": "b", "major": 1, "minor": 3}, errors.InvalidArgument),
        ({"path": "/dev/fifo", "type": "p"}, errors.Unimplemented),
    ],
)
def test_devices_that_are_not_there(
    device: dict[str, Any], kind: type[errors.EngineError]
) -> None:
    with pytest.raises(kind):
        adjust(Settings(), linux={"devices": [device]})


def test_hooks_are_added_to_those_of_the_engine() -> None:
    found = adjust(
        Settings(hooks={"prestart": [{"path": "/bin/sh"}], "poststop": None}),
        hooks={
            "prestart": [
                {"path": "/bin/true", "args": ["true"], "env": ["A=1"], "timeout": {"value": 3}}
            ],
            "create_runtime": [{"path": "/bin/true"}],
        },
    )
    assert found.hooks == {
        "prestart": [
            {"path": "/bin/sh"},
            {"path": "/bin/true", "args": ["true"], "env": ["A=1"], "timeout": 3},
        ],
        "poststop": [],
        "createRuntime": [{"path": "/bin/true"}],
    }
    with pytest.raises(errors.InvalidArgument, match="/no/such/hook"):
        adjust(Settings(), hooks={"poststop": [{"path": "/no/such/hook"}]})


def test_limits() -> None:
    settings = Settings(
        nano_cpus=5,
        memory_swap=9,
        hugepages=[("1GB", 0), ("2MB", 0)],
        unified={"a": "1"},
        device_rules=["c 5:5 r"],
    )
    asked = replace(
        FULL, cpu_rt_runtime=None, cpu_rt_period=None, blockio_class=None, rdt_class=None
    )
    found = limited(settings, asked)
    assert (found.memory, found.memory_reservation, found.memory_swap) == (1, 2, -1)
    assert (found.memory_swappiness, found.oom_kill_disable) == (0, False)
    assert (found.nano_cpus, found.cpu_shares) == (0, 0)
    assert (found.cpu_quota, found.cpu_period) == (-1, 1000)
    assert (found.cpuset_cpus, found.cpuset_mems, found.pids_limit) == ("0", "0-1", 0)
    assert found.hugepages == [("1GB", 0), ("2MB", 1 << 21)]
    assert found.unified == {"a": "1", "memory.high": "max"}
    assert found.device_rules == ["c 5:5 r", *FULL.devices]


@pytest.mark.parametrize(
    "asked",
    [{"cpu_rt_runtime": 1}, {"cpu_rt_period": 1}, {"blockio_class": "x"}, {"rdt_class": "x"}],
)
def test_limits_that_the_engine_has_not(asked: dict[str, Any]) -> None:
    with pytest.raises(errors.Unimplemented, match=next(iter(asked))):
        limited(Settings(), Resources(**asked))


def test_a_device_cannot_be_denied() -> None:
    with pytest.raises(errors.Unimplemented, match="denied"):
        adjust(Settings(), linux={"resources": {"devices": [{"allow": False, "type": "a"}]}})


def test_the_rest() -> None:
    found = adjust(
        Settings(ulimits=[("nofile", 1, 1), ("core", 0, 0)], join={"ipc": "", "pid": "/p"}),
        rlimits=[{"type": "RLIMIT_NOFILE", "soft": 5, "hard": 2**64 - 1}],
        linux={
            "oom_score_adj": {"value": 0},
            "cgroups_path": "/kubepods/x",
            "namespaces": [{"type": "network", "path": "/n"}, {"type": "-pid"}],
        },
    )
    assert found.ulimits == [("nofile", 5, -1), ("core", 0, 0)]
    assert found.oom_score_adj == 0
    assert found.cgroup_parent == "/kubepods/x"
    assert found.join == {"ipc": "", "pid": None, "network": "/n"}


def test_a_seccomp_policy_is_a_profile_that_the_engine_reads() -> None:
    policy = {
        "default_action": "SCMP_ACT_ALLOW",
        "syscalls": [
            {
                "names": ["reboot"],
                "action": "SCMP_ACT_ERRNO",
                "errno_ret": {"value": 1},
                "args": [{"index": 0, "value": 7, "op": "SCMP_CMP_EQ"}],
            }
        ],
    }
    found = from_json(adjust(Settings(), linux={"seccomp_policy": policy}).seccomp, [])
    assert found["defaultAction"] == "SCMP_ACT_ALLOW"
    rule = found["syscalls"][0]
    assert (rule["names"], rule["action"], rule["errnoRet"]) == (["reboot"], "SCMP_ACT_ERRNO", 1)
    assert rule["args"][0]["value"] == 7
    with pytest.raises(errors.Unimplemented, match="listener"):
        adjust(Settings(), linux={"seccomp_policy": {"listener_path": "/run/x"}})


def test_plugins_are_told_what_the_settings_say() -> None:
    settings = Settings(
        labels={"l": "1"},
        annotations={"a": "2"},
        env=["A=1"],
        mounts=[Mount("bind", "/srv", "/data", read_only=True)],
        hooks={"poststop": [{"path": "/bin/true", "timeout": 3}]},
        ulimits=[("nofile", 5, -1)],
        sysctls={"net.a": "1"},
        join={"network": "/n", "pid": None},
        memory=1 << 30,
        nano_cpus=1_500_000_000,
        oom_score_adj=0,
    )
    container = replace(
        from_settings(settings),
        id="c",
        state="running",
        exit_code=3,
        devices=[{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "uid": 0}],
        cdi_devices=["v/c=d"],
        image="busybox",
    )
    made = container_message(container)
    assert (made.id, made.state, made.exit_code, dict(made.labels)) == ("c", 3, 3, {"l": "1"})
    mount = made.mounts[0]
    assert (mount.destination, mount.type, mount.source) == ("/data", "bind", "/srv")
    assert "ro" in mount.options
    hook = made.hooks.poststop[0]
    assert (hook.path, hook.timeout.value) == ("/bin/true", 3)
    limit = made.rlimits[0]
    assert (limit.type, limit.soft, limit.hard) == ("RLIMIT_NOFILE", 5, 2**64 - 1)
    resources = Resources.of(made.linux.resources)
    assert resources == Resources(memory_limit=1 << 30, cpu_quota=150_000, cpu_period=100_000)
    assert made.linux.HasField("oom_score_adj")
    assert [(item.type, item.path) for item in made.linux.namespaces] == [("network", "/n")]
    assert made.linux.devices[0].HasField("uid")
    assert not made.linux.devices[0].HasField("gid")
    assert (made.image.name, made.CDI_devices[0].name) == ("busybox", "v/c=d")
