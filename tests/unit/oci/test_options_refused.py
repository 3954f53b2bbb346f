"""Options of create and run that are refused, in the words that users see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors

if TYPE_CHECKING:
    from tests.unit.oci.conftest import Parse

INVALID = 'Invalid value "{}" for flag --{}: Invalid argument'
RANGE = 'Invalid value "{}" for flag --{}: Numerical result out of range'
HOSTNAME = "Invalid container hostname ({}), less than 64 bytes and RFC 1123 labels only"
WORKDIR = "The working directory '{}' is invalid. It needs to be an absolute path."

BAD: list[tuple[str, Any, str]] = [
    ("tty", "perhaps", 'Invalid boolean value "perhaps" for flag --tty'),
    ("read_only", "x", 'Invalid boolean value "x" for flag --read-only'),
    *(
        ("hostname", name, HOSTNAME.format(name))
        for name in ("", "-a", "a-", "a_b", "a..b", ".a", "a.", "ä", "a b", "a\n", "x" * 64)
    ),
    ("workdir", "relative", WORKDIR.format("relative")),
    ("workdir", "", WORKDIR.format("")),
    ("label", ["=x"], "Invalid label '=x': empty name"),
    ("annotation", [""], "Invalid annotation '': empty name"),
    ("stop_signal", "SIGNOTHING", "Invalid signal: SIGNOTHING"),
    ("stop_timeout", "-1", RANGE.format("-1", "stop-timeout")),
    ("stop_timeout", "soon", INVALID.format("soon", "stop-timeout")),
    ("security_opt", ["seccomp="], "Invalid --security-opt: seccomp="),
    ("security_opt", ["seccomp"], "Invalid --security-opt: seccomp"),
    ("security_opt", ["label=user:x"], "Invalid --security-opt: label=user:x"),
    ("security_opt", [""], "Invalid --security-opt: "),
    ("security_opt", ["x" * 100], "Invalid --security-opt: " + "x" * 80),
    ("pid", "web", INVALID.format("web", "pid")),
    ("pid", "shareable", INVALID.format("shareable", "pid")),
    ("pid", "container:", INVALID.format("container:", "pid")),
    ("ipc", "Host", INVALID.format("Host", "ipc")),
    ("cgroupns", "hots", INVALID.format("hots", "cgroupns")),
    ("uts", "x", INVALID.format("x", "uts")),
    ("volume", [""], "Invalid volume specification ''"),
    ("ulimit", ["files=1"], 'Invalid ulimit "files=1": Invalid ulimit type'),
    ("sysctl", ["net.x"], "Invalid sysctl option 'net.x'"),
    ("sysctl", ["=1"], "Invalid sysctl option '=1'"),
    ("sysctl", ["kernel.panic=1"], "Sysctl 'kernel.panic' is not whitelist"),
    ("sysctl", ["kernel.shmmaxx=1"], "Sysctl 'kernel.shmmaxx' is not whitelist"),
    ("sysctl", ["vm.swappiness=1"], "Sysctl 'vm.swappiness' is not whitelist"),
    ("sysctl", ["netx=1"], "Sysctl 'netx' is not whitelist"),
    ("device", ["/dev/no-such-device"], "device /dev/no-such-device not found"),
    (
        "device", ["/proc/self/status"],
        "/proc/self/status is neither a device nor a directory of devices",
    ),
    ("device", ["null"], "Invalid device specification: null"),
    *(
        ("device", [text], f"Invalid device specification: {text}")
        for text in (
            "/dev/null:", "/dev/null:rr", "/dev/null:x", "/dev/null:/a:x", "/dev/null:/a:",
            "/dev/null:a:r", "/dev/null:/a:r:w", "/dev/null:rwmr", "", "/dev/null:/",
            "/dev/null:/dev/..",
        )
    ),
    *(
        ("device_cgroup_rule", [text], f'Invalid value "{text}" for flag --device-cgroup-rule')
        for text in ("", "c 1:3", "d 1:3 r", "c 1 r", "c x:3 r", "c 1:3 x", "c 1:3 rwmr",
                     "c  1:3 r", "c 1:3 r\n", "c 1:\u0663 r", "a 1:3")
    ),
    ("log_opt", ["max-size=4095"], "max-size must be at least 4KB"),
    ("log_opt", ["max-size=0"], "max-size must be at least 4KB"),
    ("log_opt", ["max-size=x"], INVALID.format("x", "log-opt")),
    ("log_opt", ["max-size"], INVALID.format("", "log-opt")),
    ("log_opt", ["compress=true"], "Invalid option: compress=true"),
    ("hook_spec", "/no/such/file", "hook-spec /no/such/file cannot be read: "),
    ("external_rootfs", "relative", "external rootfs relative is no directory"),
    ("external_rootfs", "/dev/null", "external rootfs /dev/null is no directory"),
    ("memory", "x", INVALID.format("x", "memory")),
    ("memory", "-1", INVALID.format("-1", "memory")),
    ("memory", "4095k", "Minimum memory limit allowed is 4MB"),
    ("memory_reservation", "1m", "Minimum memory limit allowed is 4MB"),
    ("memory_swap", "-2", INVALID.format("-2", "memory-swap")),
    ("memory_swappiness", "101", RANGE.format("101", "memory-swappiness")),
    ("memory_swappiness", "-2", RANGE.format("-2", "memory-swappiness")),
    ("shm_size", "-1", INVALID.format("-1", "shm-size")),
    ("oom_score_adj", "1001", RANGE.format("1001", "oom-score-adj")),
    ("oom_score_adj", "-1001", RANGE.format("-1001", "oom-score-adj")),
    ("cpu_shares", "-1", RANGE.format("-1", "cpu-shares")),
    ("cpu_period", "-1", RANGE.format("-1", "cpu-period")),
    ("cpu_period", "999", "CPU cfs period can not be less than 1ms (i.e. 1000)"),
    ("cpu_period", "1000001", "CPU cfs period can not be more than 1s (i.e. 1000000)"),
    ("cpu_quota", "999", "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
    ("cpu_quota", "-2", RANGE.format("-2", "cpu-quota")),
    ("pids_limit", "-2", RANGE.format("-2", "pids-limit")),
    ("pids_limit", "many", INVALID.format("many", "pids-limit")),
    ("cpus", "x", INVALID.format("x", "cpus")),
    ("cpus", "5", "Range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs available"),
    ("cpuset_cpus", "4", "Requested CPUs are not available - requested 4, available: 0-3."),
    ("cpuset_cpus", "x", "Checking cpuset.cpus got invalid format: x."),
    ("cpuset_mems", "1", "Requested memory nodes are not available - requested 1, available: 0."),
]  # fmt: skip


@pytest.mark.parametrize(("option", "value", "message"), BAD)
def test_a_bad_value_is_refused(parse: Parse, option: str, value: Any, message: str) -> None:
    with pytest.raises(errors.InvalidArgument) as found:
        parse(**{option: value})
    if message.endswith(": "):
        assert str(found.value).startswith(message)
    else:
        assert str(found.value) == message


TOGETHER = [
    (
        {"cpus": "1", "cpu_period": "1000"},
        "Conflicting options: Nano CPUs and CPU Period cannot both be set.",
    ),
    (
        {"cpus": "1", "cpu_quota": "1000"},
        "Conflicting options: Nano CPUs and CPU Quota cannot both be set.",
    ),
    (
        {"memory_swap": "64m"},
        "You should set the memory limit when using memoryswap limit",
    ),
    (
        {"memory": "64m", "memory_swap": "63m"},
        "Minimum memoryswap limit should be larger than memory limit",
    ),
    (
        {"memory": "64m", "memory_reservation": "65m"},
        "Minimum memory limit should be larger than memory reservation limit",
    ),
    ({"volume": ["/a:/x"], "tmpfs": ["/x"]}, "Duplicate mount point: /x"),
    ({"volume": ["/a:/x", "/b:/x/"]}, "Duplicate mount point: /x"),
]


@pytest.mark.parametrize(("options", "message"), TOGETHER)
def test_options_that_contradict_each_other(
    parse: Parse, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(errors.InvalidArgument) as found:
        parse(**options)
    assert str(found.value) == message


@pytest.mark.parametrize(
    ("option", "value", "flag"),
    [
        ("restart", "always", "--restart"),
        ("health_cmd", "true", "--health-cmd"),
        ("userns", "keep-id", "--userns"),
        ("log_driver", "syslog", "--log-driver"),
        ("publish", ["80:80"], "--publish"),
        ("init", True, "--init"),
        ("no_such_option", 5, "--no-such-option"),
    ],
)
def test_what_is_not_served_is_named(parse: Parse, option: str, value: Any, flag: str) -> None:
    with pytest.raises(errors.Unimplemented) as found:
        parse(**{option: value})
    assert str(found.value) == f"{flag} is not served by this engine yet"
    assert found.value.ref == flag


@pytest.mark.parametrize("option", ["net", "network"])
@pytest.mark.parametrize("name", ["bridge", "edge", "container:"])
def test_named_networks_are_not_served(parse: Parse, option: str, name: str) -> None:
    with pytest.raises(errors.Unimplemented) as found:
        parse(**{option: name})
    assert str(found.value) == f"network {name}: named networks are not served yet"
    assert "--net none, host or container:NAME" in found.value.hint


def test_a_device_is_given_by_an_absolute_path(
    parse: Parse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/dev")
    with pytest.raises(errors.InvalidArgument, match="Invalid device specification"):
        parse(device=["null:/dev/x"])


@pytest.mark.parametrize("text", ["a\0b", "a\udcff", "\ud800"])
@pytest.mark.parametrize(
    "flag",
    ["env", "label", "annotation", "volume", "tmpfs", "device", "sysctl", "group_add", "add_host",
     "hostname", "user", "workdir", "cgroup_parent", "entrypoint"],
)  # fmt: skip
def test_a_text_that_no_record_can_hold_is_refused_by_its_flag(
    parse: Parse, flag: str, text: str
) -> None:
    alone = flag in ("hostname", "user", "workdir", "cgroup_parent", "entrypoint")
    with pytest.raises(errors.InvalidArgument, match="no UTF-8, or a NUL") as found:
        parse(**{flag: text if alone else [text]})
    assert str(found.value).startswith(f"--{flag.replace('_', '-')}: {text!r}")
