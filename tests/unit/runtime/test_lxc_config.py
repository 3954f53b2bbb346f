"""LXC's configuration of a runtime-spec document: everything but mounts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isula_edge import errors
from isula_edge.cgroup import Host
from isula_edge.runtime import lxc_config
from isula_edge.runtime.lxc_config import item
from tests.unit.runtime.conftest import ID

if TYPE_CHECKING:
    from tests.unit.runtime.conftest import MakeBundle


class Lines(Protocol):
    """Gives the lines of a configuration."""

    def __call__(self, *, version: str = "1", terminal: bool = False, **spec: Any) -> list[str]:
        """``spec`` are keys of the runtime-spec document; ``root`` has a default."""


@pytest.fixture
def lines(make_bundle: MakeBundle) -> Lines:
    def make(*, version: str = "1", terminal: bool = False, **spec: Any) -> list[str]:
        bundle = make_bundle({"root": {"path": "/rootfs"}, **spec}, terminal=terminal)
        found = lxc_config.build(
            bundle, version=version, monitor_cgroup="isula-monitor", seccomp_path="/run/seccomp"
        )
        assert found.text.endswith("\n")
        return found.text.splitlines()

    return make


def values(lines: list[str], key: str) -> list[str]:
    """Values of a key as LXC reads them: blanks trimmed, one pair of quotes stripped."""
    found = []
    for line in lines:
        name, _, value = line.partition("=")
        if name.strip() == key:
            value = value.strip()
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
            found.append(value[1:-1] if quoted else value)
    return found


@pytest.mark.parametrize("value", ["", "a", " a ", '"', 'a "b" c', "'", "#x", "a=b", "ä", "\t"])
def test_a_value_is_read_as_it_was_written(value: str) -> None:
    line = item("lxc.key", value)
    assert values([line], "lxc.key") == [value]


@pytest.mark.parametrize("char", ["\n", "\r", "\0"])
def test_what_does_not_fit_on_a_line_is_refused(char: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="line break or NUL") as found:
        item("lxc.key", f"a{char}lxc.hook.pre-start = /evil")
    assert "--runtime runc" in found.value.hint


@pytest.mark.parametrize("char", ["\n", "\r", "\0", " ", "=", "#", '"', "\t", "é"])
def test_a_key_is_a_key(char: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="is no key of"):
        item(f"lxc.cgroup2.a{char}b", "value")


@given(st.text())
def test_an_item_is_one_line_or_refused(value: str) -> None:
    try:
        line = item("lxc.key", value)
    except errors.InvalidArgument:
        assert set("\n\r\0") & set(value)
        return
    # LXC splits there
    assert not set("\n\r\0") & set(line)
    assert line == f'lxc.key = "{value}"'


def test_the_smallest_document(lines: Lines) -> None:
    found = lines()
    assert values(found, "lxc.rootfs.path") == ["dir:/rootfs"]
    assert values(found, "lxc.namespace.clone") == ["mnt"]
    assert values(found, "lxc.net.0.type") == ["none"]
    assert values(found, "lxc.init.uid") == ["0"]
    assert values(found, "lxc.init.gid") == ["0"]
    assert values(found, "lxc.init.cwd") == ["/"]
    assert values(found, "lxc.cap.keep") == ["none"]
    assert values(found, "lxc.autodev") == ["1"]
    assert values(found, "lxc.tty.max") == ["0"]
    assert values(found, "lxc.console.path") == ["none"]
    for key in (
        "lxc.rootfs.options",
        "lxc.uts.name",
        "lxc.seccomp.profile",
        "lxc.init.groups",
        "lxc.no_new_privs",
        "lxc.environment",
        "lxc.mount.entry",
    ):
        assert values(found, key) == [], key  # fmt: skip


def test_the_root(lines: Lines) -> None:
    found = lines(root={"path": "/a b", "readonly": True})
    assert values(found, "lxc.rootfs.path") == ["dir:/a b"]
    assert values(found, "lxc.rootfs.options") == ["ro"]
    with pytest.raises(errors.InvalidArgument, match=r"lxc\.rootfs\.path"):
        lines(root={"path": "/a\nlxc.cap.keep = sys_admin"})


def test_with_a_terminal_lxc_keeps_its_console(lines: Lines) -> None:
    found = lines(terminal=True)
    assert values(found, "lxc.console.path") == []
    assert values(found, "lxc.pty.max") == ["1024"]


def test_new_namespaces_and_those_of_others(lines: Lines) -> None:
    found = lines(
        hostname="edge",
        linux={
            "namespaces": [
                {"type": "mount"},
                {"type": "pid"},
                {"type": "network", "path": "/proc/5/ns/net"},
                {"type": "ipc", "path": "/proc/5/ns/ipc"},
                {"type": "uts"},
                {"type": "cgroup"},
            ]
        },
    )
    assert values(found, "lxc.namespace.clone") == ["mnt pid uts cgroup"]
    assert values(found, "lxc.namespace.share.net") == ["/proc/5/ns/net"]
    assert values(found, "lxc.namespace.share.ipc") == ["/proc/5/ns/ipc"]
    assert values(found, "lxc.namespace.share.pid") == []
    assert values(found, "lxc.net.0.type") == ["none"]
    assert values(found, "lxc.uts.name") == ["edge"]


def test_a_network_namespace_of_its_own_is_empty(lines: Lines) -> None:
    found = lines(linux={"namespaces": [{"type": "network"}]})
    assert values(found, "lxc.net.0.type") == ["empty"]
    assert values(found, "lxc.namespace.clone") == ["mnt net"]


@pytest.mark.parametrize(
    "namespaces", [[], [{"type": "uts", "path": "/proc/5/ns/uts"}]], ids=["host", "other"]
)
@pytest.mark.parametrize("key", ["hostname", "domainname"])
def test_the_name_of_a_foreign_host_is_not_set(
    lines: Lines, namespaces: list[Any], key: str
) -> None:
    names: dict[str, Any] = {key: "edge"}
    with pytest.raises(errors.Unimplemented, match=f"cannot do {key}: there is no new uts"):
        lines(linux={"namespaces": namespaces}, **names)


@pytest.mark.parametrize(
    "namespace",
    [{"type": "time", "path": "/proc/5/ns/time"}, {"type": "mount", "path": "/proc/5/ns/mnt"}],
    ids=["time", "mount"],
)
def test_a_namespace_that_is_not_served_is_refused(lines: Lines, namespace: dict[str, str]) -> None:
    with pytest.raises(errors.Unimplemented, match=f"joining a {namespace['type']} namespace"):
        lines(linux={"namespaces": [namespace]})


def test_the_groups_of_container_and_monitor(lines: Lines) -> None:
    found = lines(linux={"cgroupsPath": "/edge/box/"})
    assert values(found, "lxc.cgroup.dir.container") == ["edge/box"]
    assert values(found, "lxc.cgroup.dir.monitor") == [f"isula-monitor/{ID}"]
    assert values(found, "lxc.cgroup.dir.monitor.pivot") == ["isula-monitor/pivot"]
    assert values(lines(), "lxc.cgroup.dir.container") == [f"isula/{ID}"]


def test_the_groups_where_they_cannot_be_nested(make_bundle: MakeBundle) -> None:
    """LXC would make its own part below a pivot of ours."""
    place = Host("1", {}, flat=True).group
    found = lxc_config.build(
        make_bundle({"root": {"path": "/rootfs"}}),
        version="1",
        monitor_cgroup="isula-monitor",
        seccomp_path="/s",
        place=place,
    ).text.splitlines()
    assert values(found, "lxc.cgroup.dir.monitor") == [f"isula-monitor-{ID}"]
    assert values(found, "lxc.cgroup.dir.monitor.pivot") == []


@pytest.mark.parametrize(
    ("terminal", "console", "own"),
    [(True, True, True), (True, False, False), (False, True, False), (False, False, False)],
)
def test_lxcs_own_terminal(
    make_bundle: MakeBundle, terminal: bool, console: bool, own: bool
) -> None:
    found = lxc_config.build(
        make_bundle({"root": {"path": "/rootfs"}}, terminal=terminal),
        version="1",
        monitor_cgroup="m",
        seccomp_path="/s",
        console=console,
    ).text.splitlines()
    assert values(found, "lxc.console.path") == ([] if own else ["none"])


RESOURCES = {
    "memory": {"limit": 5},
    "cpu": {"shares": 2},
    "devices": [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"},
    ],
}


@pytest.mark.parametrize("version", ["1", "hybrid"])
def test_limits_of_version_1(lines: Lines, version: str) -> None:
    found = lines(version=version, linux={"resources": RESOURCES})
    assert values(found, "lxc.cgroup.memory.limit_in_bytes") == ["5"]
    assert values(found, "lxc.cgroup.cpu.shares") == ["2"]
    assert values(found, "lxc.cgroup.devices.deny") == ["a"]
    assert values(found, "lxc.cgroup.devices.allow") == ["c 1:3 r"]
    assert not any("cgroup2" in line for line in found)


def test_limits_of_version_2(lines: Lines) -> None:
    found = lines(version="2", linux={"resources": RESOURCES})
    assert values(found, "lxc.cgroup2.memory.max") == ["5"]
    assert values(found, "lxc.cgroup2.cpu.weight") == ["1"]
    assert values(found, "lxc.cgroup2.devices.deny") == ["a"]
    assert values(found, "lxc.cgroup2.devices.allow") == ["c 1:3 r"]


def test_who_the_process_is(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isula_edge.sys.lsm.apparmor_enabled", lambda: True)
    monkeypatch.setattr("isula_edge.sys.lsm.selinux_enabled", lambda: True)
    found = lines(
        process={
            "user": {"uid": 5, "gid": 6, "additionalGids": [7, 8]},
            "cwd": "/a b",
            "capabilities": {"bounding": ["CAP_KILL", "CAP_SYS_ADMIN"], "effective": []},
            "noNewPrivileges": True,
            "oomScoreAdj": -5,
            "apparmorProfile": "edge",
            "selinuxLabel": "a:b:c",
        }
    )
    assert values(found, "lxc.init.uid") == ["5"]
    assert values(found, "lxc.init.gid") == ["6"]
    assert values(found, "lxc.init.groups") == ["7,8"]
    assert values(found, "lxc.init.cwd") == ["/a b"]
    assert values(found, "lxc.cap.keep") == ["kill sys_admin"]
    assert values(found, "lxc.no_new_privs") == ["1"]
    assert values(found, "lxc.proc.oom_score_adj") == ["-5"]
    assert values(found, "lxc.apparmor.profile") == ["edge"]
    assert values(found, "lxc.selinux.context") == ["a:b:c"]


def test_an_oom_score_of_0_is_set(lines: Lines) -> None:
    assert values(lines(process={"oomScoreAdj": 0}), "lxc.proc.oom_score_adj") == ["0"]


def test_no_capabilities_at_all(lines: Lines) -> None:
    """An empty list would mean all of them to LXC."""
    nothing: tuple[dict[str, list[str]], ...] = ({}, {"bounding": []})
    for capabilities in nothing:
        found = lines(process={"capabilities": capabilities})
        assert values(found, "lxc.cap.keep") == ["none"]


@pytest.mark.parametrize("there", [True, False])
def test_lxc_applies_no_apparmor_profile_of_its_own(
    lines: Lines, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    monkeypatch.setattr("isula_edge.runtime.lxc_config.apparmor_enabled", lambda: there)
    found = values(lines(), "lxc.apparmor.profile")
    assert found == (["unconfined"] if there else [])


@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [
        (5, 6, "5:6"),
        (0, 0, "0:0"),
        (5, 2**64 - 1, "5:unlimited"),
        (-1, -1, "unlimited:unlimited"),
        (2**63 - 1, 2**63, f"{2**63 - 1}:unlimited"),
    ],
)
def test_limits_of_the_process(lines: Lines, soft: int, hard: int, expected: str) -> None:
    rlimits = [{"type": "RLIMIT_NOFILE", "soft": soft, "hard": hard}]
    assert values(lines(process={"rlimits": rlimits}), "lxc.prlimit.nofile") == [expected]


def test_a_filter_is_named_and_given_back(make_bundle: MakeBundle) -> None:
    seccomp = {"defaultAction": "SCMP_ACT_ALLOW"}
    bundle = make_bundle({"root": {"path": "/r"}, "linux": {"seccomp": seccomp}})
    found = lxc_config.build(bundle, version="1", monitor_cgroup="m", seccomp_path="/run/s p")
    assert values(found.text.splitlines(), "lxc.seccomp.profile") == ["/run/s p"]
    assert found.seccomp == seccomp


def test_maps_of_a_user_namespace(lines: Lines) -> None:
    found = lines(
        linux={
            "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 5}],
            "gidMappings": [{"containerID": 1, "hostID": 2000, "size": 6}],
        }
    )
    assert values(found, "lxc.idmap") == ["u 0 1000 5", "g 1 2000 6"]


@pytest.mark.parametrize(
    ("uid", "ambient", "expected"),
    [
        (0, [], ("0", "net_raw")),
        (1000, [], ("1000", "net_raw")),
        (0, ["CAP_NET_RAW"], ("0", "net_raw")),
        # changed by a program of ours, which takes the others away
        (1000, ["CAP_NET_RAW"], ("0", "net_raw chown setuid setpcap")),
    ],
)
def test_ambient_capabilities(
    lines: Lines, uid: int, ambient: list[str], expected: tuple[str, str]
) -> None:
    capabilities = {"bounding": ["CAP_NET_RAW"], "ambient": ambient}
    found = lines(process={"user": {"uid": uid, "umask": 7}, "capabilities": capabilities})
    assert (values(found, "lxc.init.uid"), values(found, "lxc.cap.keep")) == (
        [expected[0]],
        [expected[1]],
    )


def test_variables_are_given_one_by_one(lines: Lines) -> None:
    pairs = ["A=1", "EMPTY=", "Q=\"x\" 'y'", "E=a=b", "S= blank ", "#=#"]
    assert values(lines(process={"env": pairs}), "lxc.environment") == pairs


@pytest.mark.parametrize("value", ["one\ntwo", "\n", "a\rb", "-----BEGIN\nKEY-----\n"])
def test_a_value_of_several_lines_is_left_to_the_program(lines: Lines, value: str) -> None:
    assert values(lines(process={"env": ["A=1", f"KEY={value}"]}), "lxc.environment") == []


def test_an_environment_is_kept_from_hooks(lines: Lines) -> None:
    found = lines(process={"env": ["PATH=/evil"]}, linux={"sysctl": {"net.ipv4.tcp_mem": "1"}})
    assert values(found, "lxc.environment") == []


def test_personality_and_clocks(lines: Lines) -> None:
    found = lines(
        linux={
            "namespaces": [{"type": "time"}],
            "personality": {"domain": "LINUX32"},
            "timeOffsets": {
                "monotonic": {"secs": -5, "nanosecs": 0},
                "boottime": {"nanosecs": 7},
            },
        }
    )
    assert values(found, "lxc.arch") == ["linux32"]
    assert values(found, "lxc.namespace.clone") == ["mnt time"]
    assert values(found, "lxc.time.offset.monotonic") == ["-5s"]
    assert values(found, "lxc.time.offset.boot") == ["7ns"]
    assert values(lines(), "lxc.arch") == []
