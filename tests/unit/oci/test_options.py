"""Options of create and run, with values that are good."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge.oci.mounts import Mount
from isula_edge.oci.options import MIN_MEMORY, Settings, from_record, parse, to_record

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.oci.conftest import Parse

MIB = 1 << 20

GOOD: list[tuple[str, Any, str, Any]] = [
    # option, value, field, what is in it
    ("env", ["A=1", "B"], "env", ["A=1", "B"]),
    ("env", ("A=1",), "env", ["A=1"]),
    ("user", "1000:1000", "user", "1000:1000"),
    ("group_add", ["audio"], "group_add", ["audio"]),
    ("cap_add", ["NET_ADMIN"], "cap_add", ["NET_ADMIN"]),
    ("cap_drop", ["ALL"], "cap_drop", ["ALL"]),
    ("dns", ["8.8.8.8"], "dns", ["8.8.8.8"]),
    ("dns_search", ["lan"], "dns_search", ["lan"]),
    ("dns_opt", ["ndots:2"], "dns_opt", ["ndots:2"]),
    ("add_host", ["a:10.0.0.1"], "add_host", ["a:10.0.0.1"]),
    ("cgroup_parent", "/edge", "cgroup_parent", "/edge"),
    ("cgroupns", "host", "cgroupns", "host"),
    ("cgroupns", "private", "cgroupns", ""),
    ("cgroupns", "none", "cgroupns", ""),
    ("cgroupns", "container:web", "cgroupns", "container:web"),
    ("entrypoint", "/init", "entrypoint", "/init"),
    ("entrypoint", "", "entrypoint", ""),
    ("platform", "linux/arm64", "platform", "linux/arm64"),
    ("tty", True, "tty", True),
    ("interactive", "true", "interactive", True),
    ("rm", True, "rm", True),
    ("read_only", "1", "read_only", True),
    ("privileged", True, "privileged", True),
    ("init", False, "init", False),
    ("hostname", "edge-1", "hostname", "edge-1"),
    ("hostname", "a.b.c", "hostname", "a.b.c"),
    ("hostname", "x" * 63, "hostname", "x" * 63),
    ("workdir", "/a/../b/", "workdir", "/b"),
    ("workdir", "//b", "workdir", "/b"),
    ("label", ["a=1", "b"], "labels", {"a": "1", "b": ""}),
    ("annotation", ["org.x=1"], "annotations", {"org.x": "1"}),
    ("stop_signal", "SIGQUIT", "stop_signal", "SIGQUIT"),
    ("stop_timeout", "30", "stop_timeout", 30),
    ("security_opt", ["no-new-privileges"], "no_new_privileges", True),
    ("security_opt", ["no-new-privileges=true"], "no_new_privileges", True),
    ("security_opt", ["no-new-privileges:true"], "no_new_privileges", True),
    ("security_opt", ["seccomp=unconfined"], "seccomp", "unconfined"),
    ("security_opt", ["seccomp:unconfined"], "seccomp", "unconfined"),
    ("security_opt", ['seccomp={"a":"b=c"}'], "seccomp", '{"a":"b=c"}'),
    ("security_opt", ["label=disable"], "seccomp", ""),
    ("security_opt", ["label:disable"], "seccomp", ""),
    ("net", "none", "net", ""),
    ("net", "host", "net", "host"),
    ("network", "host", "net", "host"),
    ("net", "container:web", "net", "container:web"),
    ("pid", "host", "pid", "host"),
    ("pid", "container:web", "pid", "container:web"),
    ("pid", "", "pid", ""),
    ("ipc", "shareable", "ipc", ""),
    ("ipc", "private", "ipc", ""),
    ("ipc", "host", "ipc", "host"),
    ("ipc", "container:web", "ipc", "container:web"),
    ("uts", "host", "uts", "host"),
    ("ulimit", ["nofile=1:2", "core=0"], "ulimits", [("nofile", 1, 2), ("core", 0, 0)]),
    ("ulimit", ["nofile=1", "nofile=2"], "ulimits", [("nofile", 2, 2)]),
    ("sysctl", ["net.ipv4.ip_forward=1"], "sysctls", {"net.ipv4.ip_forward": "1"}),
    ("sysctl", ["kernel.shmmax=5"], "sysctls", {"kernel.shmmax": "5"}),
    ("sysctl", ["kernel.sem=32000 1024 500"], "sysctls", {"kernel.sem": "32000 1024 500"}),
    ("sysctl", ["fs.mqueue.msg_max=5"], "sysctls", {"fs.mqueue.msg_max": "5"}),
    ("sysctl", ["net.a=b=c"], "sysctls", {"net.a": "b=c"}),
    ("device", ["/dev/null"], "devices", [("/dev/null", "/dev/null", "rwm")]),
    ("device", ["/dev/null:r"], "devices", [("/dev/null", "/dev/null", "r")]),
    ("device", ["/dev/null:/dev/x"], "devices", [("/dev/null", "/dev/x", "rwm")]),
    ("device", ["/dev/"], "devices", [("/dev", "/dev", "rwm")]),
    ("device", ["//dev/null:/dev/../dev/x"], "devices", [("/dev/null", "/dev/x", "rwm")]),
    ("device", ["/dev/null:/dev/x:rm"], "devices", [("/dev/null", "/dev/x", "rm")]),
    ("device_cgroup_rule", ["c 1:3 rwm"], "device_rules", ["c 1:3 rwm"]),
    ("device_cgroup_rule", ["b 8:* r", "a *:* rwm"], "device_rules", ["b 8:* r", "a *:* rwm"]),
    ("log_opt", ["max-size=10k"], "log_max_size", 10240),
    ("log_opt", ["max-size=4096", "max-file=3"], "log_max_size", 4096),
    ("memory", "64m", "memory", 64 * MIB),
    ("memory", str(MIN_MEMORY), "memory", MIN_MEMORY),
    ("memory", "0", "memory", 0),
    ("memory_reservation", "32m", "memory_reservation", 32 * MIB),
    ("memory_swap", "-1", "memory_swap", -1),
    ("memory_swappiness", "0", "memory_swappiness", 0),
    ("memory_swappiness", "100", "memory_swappiness", 100),
    ("memory_swappiness", "-1", "memory_swappiness", -1),
    ("shm_size", "1m", "shm_size", MIB),
    # the default, as to Docker, and no tmpfs without limit
    ("shm_size", "0", "shm_size", 64 * MIB),
    ("oom_score_adj", "-1000", "oom_score_adj", -1000),
    ("oom_score_adj", "0", "oom_score_adj", 0),
    ("oom_score_adj", "1000", "oom_score_adj", 1000),
    ("cpu_shares", "512", "cpu_shares", 512),
    ("cpu_period", "1000", "cpu_period", 1000),
    ("cpu_period", "1000000", "cpu_period", 1_000_000),
    ("cpu_quota", "1000", "cpu_quota", 1000),
    ("cpu_quota", "-1", "cpu_quota", -1),
    ("pids_limit", "100", "pids_limit", 100),
    ("pids_limit", "-1", "pids_limit", -1),
    ("cpus", "1.5", "nano_cpus", 1_500_000_000),
    ("cpuset_cpus", "0-3", "cpuset_cpus", "0-3"),
    ("cpuset_mems", "0", "cpuset_mems", "0"),
]


@pytest.mark.parametrize(("option", "value", "field", "expected"), GOOD)
def test_an_option_sets_its_field_and_no_other(
    parse: Parse, option: str, value: Any, field: str, expected: Any
) -> None:
    found = parse(**{option: value})
    assert getattr(found, field) == expected
    setattr(found, field, getattr(Settings(), field))
    assert found == Settings()


def test_nothing_asked_for_is_the_default(parse: Parse) -> None:
    found = parse()
    assert found == Settings()
    assert found.shm_size == 64 * MIB
    assert found.log_max_size == MIB
    assert found.entrypoint is None
    assert found.oom_score_adj is None


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("detach", True), ("name", "x"), ("pull", "always"), ("runtime", "runc"),
        ("quiet", True), ("cidfile", "/x"), ("detach_keys", "ctrl-p"), ("sig_proxy", False),
        ("env_file", ["x"]), ("label_file", ["x"]), ("image", "busybox"),
    ],
)  # fmt: skip
def test_what_the_client_does_itself_is_passed_over(parse: Parse, option: str, value: Any) -> None:
    assert parse(**{option: value}) == Settings()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("restart", "no"), ("log_driver", "json-file"), ("userns", "host"),
        ("no_healthcheck", True), ("health_cmd", ""), ("link", []), ("publish_all", False),
    ],
)  # fmt: skip
def test_a_default_of_what_is_not_served_is_fine(parse: Parse, option: str, value: Any) -> None:
    assert parse(**{option: value}) == Settings()


def test_mounts_of_all_three_options_come_sorted_by_target(parse: Parse, tmp_path: Path) -> None:
    found = parse(
        volume=["/data:/z", "/data:/m:ro"],
        tmpfs=["/a"],
        mount=[f"type=bind,src={tmp_path},dst=/b"],
    )
    assert [(mount.kind, mount.target) for mount in found.mounts] == [
        ("tmpfs", "/a"), ("bind", "/b"), ("bind", "/m"), ("bind", "/z"),
    ]  # fmt: skip


def test_security_options_add_up(parse: Parse) -> None:
    found = parse(security_opt=["seccomp=unconfined", "no-new-privileges", "label=disable"])
    assert (found.seccomp, found.no_new_privileges) == ("unconfined", True)


def test_an_external_rootfs_is_given_by_its_real_path(parse: Parse, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "link").symlink_to("root")
    assert parse(external_rootfs=str(tmp_path / "link")).external_rootfs == str(
        (tmp_path / "root").resolve()
    )


def test_memory_options_that_go_together(parse: Parse) -> None:
    found = parse(memory="64m", memory_swap="64m", memory_reservation="64m")
    assert found.memory == found.memory_swap == found.memory_reservation == 64 * MIB
    assert found.warnings == []


def test_disabling_the_oom_killer_without_a_limit_is_warned_of(parse: Parse) -> None:
    (warning,) = parse(oom_kill_disable=True).warnings
    assert "Disabling the OOM killer" in warning
    assert parse(oom_kill_disable=True, memory="64m").warnings == []


def test_settings_survive_a_record(tmp_path: Path) -> None:
    given = {option: value for option, value, _, _ in GOOD if option not in ("cpu_period",)}
    given |= {"cpu_quota": "0", "memory": "64m", "memory_swap": "-1"}
    given |= {"volume": ["/a:/b:ro"], "tmpfs": ["/t:size=5m"]}
    given |= {"external_rootfs": str(tmp_path)}
    settings = parse(given, cpus=4)
    record = json.loads(json.dumps(to_record(settings)))
    assert from_record(record) == settings
    assert from_record({**record, "of_a_later_version": 1}) == settings
    assert isinstance(from_record(record).mounts[0], Mount)


def test_a_device_rule_of_type_a_is_for_every_device_and_says_so(parse: Parse) -> None:
    settings = parse(device_cgroup_rule=["a 11:22 rmw"])
    assert settings.device_rules == ["a *:* rwm"]
    assert "every device" in settings.warnings[0]
