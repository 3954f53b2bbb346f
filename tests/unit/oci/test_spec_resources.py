"""The runtime-spec document: limits and devices."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isula_edge import errors
from isula_edge.oci import capabilities, spec
from isula_edge.oci.options import Settings
from isula_edge.oci.spec import build, hard_limits
from tests.unit.oci.test_spec import SUBJECT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MIB = 1 << 20
NULL = os.makedev(1, 3)


def resources(settings: Settings) -> dict[str, Any]:
    found = build(settings, SUBJECT)["linux"]["resources"]
    assert isinstance(found, dict)
    return found


def test_nothing_limited_is_nothing_said_but_devices() -> None:
    assert list(resources(Settings())) == ["devices"]


MEMORY: list[tuple[dict[str, Any], dict[str, Any]]] = [
    # swap in the runtime-spec is memory and swap together; twice the memory unless given
    ({"memory": 64 * MIB}, {"limit": 64 * MIB, "swap": 128 * MIB}),
    ({"memory": 64 * MIB, "memory_swap": 80 * MIB}, {"limit": 64 * MIB, "swap": 80 * MIB}),
    # no limit is what a new cgroup has, and not every kernel counts swap
    ({"memory": 64 * MIB, "memory_swap": -1}, {"limit": 64 * MIB}),
    ({"memory": -1}, {"limit": -1}),
    ({"memory": 64 * MIB, "no_swap": True}, {"limit": 64 * MIB, "swap": 64 * MIB}),
    ({"memory_reservation": 32 * MIB}, {"reservation": 32 * MIB}),
    ({"memory_swappiness": 0}, {"swappiness": 0}),
    ({"oom_kill_disable": True}, {"disableOOMKiller": True}),
]


@pytest.mark.parametrize(("settings", "expected"), MEMORY)
def test_memory(settings: dict[str, Any], expected: dict[str, Any]) -> None:
    assert resources(Settings(**settings))["memory"] == expected


CPU: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"nano_cpus": 1_500_000_000}, {"period": 100_000, "quota": 150_000}),
    ({"nano_cpus": 10_000_000}, {"period": 100_000, "quota": 1000}),
    ({"cpu_shares": 512}, {"shares": 512}),
    ({"cpu_period": 50_000, "cpu_quota": 25_000}, {"period": 50_000, "quota": 25_000}),
    ({"cpu_quota": -1}, {"quota": -1}),
    ({"cpuset_cpus": "0-1", "cpuset_mems": "0"}, {"cpus": "0-1", "mems": "0"}),
]


@pytest.mark.parametrize(("settings", "expected"), CPU)
def test_cpu(settings: dict[str, Any], expected: dict[str, Any]) -> None:
    assert resources(Settings(**settings))["cpu"] == expected


@given(st.integers(10**7, 64 * 10**9))
def test_cpus_become_the_same_share_of_a_period(nano: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(capabilities, "bounding_set", lambda: frozenset(capabilities.ALL))
        found = resources(Settings(nano_cpus=nano))["cpu"]
    # the kernel takes no quota below 1 ms
    assert found["quota"] >= 1000
    assert abs(found["quota"] * 10**9 - nano * found["period"]) < 10**9


@pytest.mark.parametrize("limit", [100, -1])
def test_pids(limit: int) -> None:
    assert resources(Settings(pids_limit=limit))["pids"] == {"limit": limit}


def allows(rules: list[dict[str, Any]], kind: str, major: int, minor: int, access: str) -> bool:
    """What the devices controller makes of rules: the last one that fits decides."""
    answer = True
    for rule in rules:
        fits = (
            rule.get("type", "a") in ("a", kind)
            and rule.get("major", major) == major
            and rule.get("minor", minor) == minor
            and access in rule["access"]
        )
        if fits:
            answer = bool(rule["allow"])
    return answer


@pytest.mark.parametrize(
    ("kind", "major", "minor", "access", "allowed"),
    [
        ("c", 1, 3, "r", True),  # null
        ("c", 1, 5, "w", True),  # zero
        ("c", 1, 9, "r", True),  # urandom
        ("c", 5, 0, "w", True),  # tty
        ("c", 5, 2, "r", True),  # ptmx
        ("c", 136, 7, "w", True),  # pts
        ("c", 1, 1, "r", False),  # mem
        ("c", 1, 11, "r", False),  # kmsg
        ("b", 8, 0, "r", False),  # sda
        ("b", 8, 0, "w", False),
        ("b", 8, 0, "m", True),
        ("c", 10, 229, "m", True),  # fuse may be made, and not be opened
        ("c", 10, 229, "w", False),
    ],
)
def test_devices_of_every_container(
    kind: str, major: int, minor: int, access: str, allowed: bool
) -> None:
    assert allows(resources(Settings())["devices"], kind, major, minor, access) is allowed


RULES: Mapping[str, dict[str, Any]] = {
    "c 10:229 rwm": {"type": "c", "major": 10, "minor": 229, "access": "rwm"},
    "b 8:* r": {"type": "b", "major": 8, "access": "r"},
    "c *:1 w": {"type": "c", "minor": 1, "access": "w"},
    "a *:* rwm": {"type": "a", "access": "rwm"},
}


@pytest.mark.parametrize(("text", "rule"), RULES.items())
def test_a_rule_of_the_user_comes_last(text: str, rule: dict[str, Any]) -> None:
    found = resources(Settings(device_rules=[text]))["devices"]
    assert found[:-1] == resources(Settings())["devices"]
    assert found[-1] == {"allow": True, **rule}


def test_a_device_is_allowed_and_made() -> None:
    settings = Settings(devices=[("/dev/null", "/dev/nothing", "rm")])
    found = build(settings, SUBJECT)["linux"]
    assert found["resources"]["devices"][-1] == {
        "allow": True, "type": "c", "major": 1, "minor": 3, "access": "rm",
    }  # fmt: skip
    (device,) = found["devices"]
    status = os.stat("/dev/null")
    assert device == {
        "path": "/dev/nothing",
        "type": "c",
        "major": 1,
        "minor": 3,
        "fileMode": status.st_mode & 0o7777,
        "uid": status.st_uid,
        "gid": status.st_gid,
    }


def test_a_device_that_every_container_has_is_not_made_again() -> None:
    settings = Settings(devices=[("/dev/null", "/dev/null", "rwm")])
    assert "devices" not in build(settings, SUBJECT)["linux"]


def test_devices_below_a_directory(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "first").symlink_to("/dev/null")
    (tmp_path / "sub/second").symlink_to("/dev/zero")
    (tmp_path / "plain").write_text("")
    found = build(Settings(devices=[(str(tmp_path), "/dev/many", "rw")]), SUBJECT)["linux"]
    assert {(item["path"], item["minor"]) for item in found["devices"]} == {
        ("/dev/many/first", 3), ("/dev/many/sub/second", 5),
    }  # fmt: skip
    assert sorted(rule["minor"] for rule in found["resources"]["devices"][-2:]) == [3, 5]


def test_a_dangling_link_among_devices_is_passed_over(tmp_path: Path) -> None:
    """As /dev/log is where no journal runs: a privileged container takes all of /dev."""
    (tmp_path / "device").symlink_to("/dev/null")
    (tmp_path / "log").symlink_to("/run/no/such/socket")
    found = build(Settings(devices=[(str(tmp_path), "/dev/many", "rw")]), SUBJECT)["linux"]
    assert [item["path"] for item in found["devices"]] == ["/dev/many/device"]


def test_a_device_that_is_gone_is_named() -> None:
    settings = Settings(devices=[("/dev/no-such-device", "/dev/x", "rwm")])
    with pytest.raises(errors.FailedPrecondition, match="device /dev/no-such-device not found"):
        build(settings, SUBJECT)


def test_a_plain_file_gets_no_rule(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    settings = Settings(devices=[(str(tmp_path / "plain"), "/dev/x", "rwm")])
    assert resources(settings)["devices"] == resources(Settings())["devices"]


def test_a_privileged_container_has_the_hosts_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fuse").symlink_to("/dev/null")
    fuse, mine = str(tmp_path / "fuse"), str(tmp_path / "mine")
    (tmp_path / "mine").symlink_to("/dev/zero")
    listed = ["/dev/null", "/dev/tty", "/dev/pts/0", "/dev/shm/x", "/dev/console", fuse, mine]
    monkeypatch.setattr(spec, "_nodes", lambda path: listed if path == "/dev" else [path])
    settings = Settings(privileged=True, devices=[("/dev/full", mine, "r")])
    found = build(settings, SUBJECT)["linux"]["devices"]
    # what was asked for by name goes before the host's device of that name
    assert {(item["path"], item["minor"]) for item in found} == {(mine, 7), (fuse, 3)}


def test_an_engine_that_may_raise_limits_has_none(capable: None) -> None:
    assert hard_limits() == {}


def test_an_engine_that_may_not_gives_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(capabilities, "bounding_set", lambda: frozenset({"KILL"}))
    found = hard_limits()
    assert found["nofile"] == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert found["core"] == resource.getrlimit(resource.RLIMIT_CORE)[1]
    assert "locks" not in found
