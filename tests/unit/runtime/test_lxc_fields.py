"""Every field of the runtime-spec is honoured by the lxc driver or refused by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from isula_edge import errors
from isula_edge.runtime import lxc_fields
from isula_edge.runtime.lxc_fields import TABLE, check

HERE = Path(__file__)
DOCS = HERE.parents[3] / "docs" / "runtimes.md"
ROW = re.compile(r"\| `(?P<field>[^`]+)` \| (?P<lxc>\w+) \| (?P<runc>[^|]+) \| [^|]+ \|.*\|")
VALUES: dict[str, Any] = {
    "any": {"x": 1}, "text": "x", "flag": True, "number": 1, "numbers": [1], "texts": ["x"],
    "map": {"x": "y"},
}  # fmt: skip
OTHERS: dict[str, Any] = {
    "text": 1, "flag": "yes", "number": "1", "numbers": ["1"], "texts": "x", "map": {"x": 1},
}  # fmt: skip


def specified() -> list[str]:
    lines = (HERE.parent / "runtime_spec_fields.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def document(path: str, value: Any) -> dict[str, Any]:
    """A document in which a field of the table has this value."""
    found = value
    for part in reversed(path.split(".")):
        found = {part.removesuffix("[]").replace("*", "any"): [found] if "[]" in part else found}
    assert isinstance(found, dict)
    return found


# what is needed beside a field
BESIDE = {
    "mounts": {"destination": "/t"},
    "hooks": {"path": "/x"},
    "linux.personality": {"domain": "LINUX"},
}


def asking_nothing(path: str, value: Any) -> dict[str, Any]:
    found = document(path, value)
    for start, fields in BESIDE.items():
        if path.startswith(start):
            inner: Any = found
            for part in path.split(".")[: -1 if start != "mounts" else 1]:
                inner = inner[part.removesuffix("[]")]
                inner = inner[0] if isinstance(inner, list) else inner
            inner.update(fields)
    return found


def place(path: str) -> str:
    return path.replace("[]", "[0]").replace("*", "any")


def test_the_table_has_every_field_of_the_specification() -> None:
    assert sorted(TABLE) == sorted(specified())


def test_the_documentation_shows_the_table() -> None:
    rows = [ROW.fullmatch(line) for line in DOCS.read_text().splitlines()]
    shown = [(row["field"], row["lxc"]) for row in rows if row]
    wanted = [(path, "honoured" if ours else "refused") for path, (ours, _) in TABLE.items()]
    assert shown == wanted


@pytest.mark.parametrize("path", [path for path, (honoured, _) in TABLE.items() if not honoured])
def test_what_has_no_effect_is_refused_by_name(path: str) -> None:
    kind = TABLE[path][1]
    with pytest.raises(errors.Unimplemented) as found:
        check(document(path, VALUES[kind]), "1")
    assert str(found.value).startswith(f"runtime lxc cannot do {place(path)}")
    assert found.value.hint == "use --runtime runc"
    # what asks for nothing is let through
    nothings: tuple[Any, ...] = (None, "", [], {}, False, 0)
    for nothing in nothings:
        check(asking_nothing(path, nothing), "1")


@pytest.mark.parametrize("path", [path for path, (honoured, _) in TABLE.items() if honoured])
def test_a_value_of_another_type_is_refused_by_name(path: str) -> None:
    with pytest.raises(errors.InvalidArgument) as found:
        check(document(path, OTHERS[TABLE[path][1]]), "1")
    assert str(found.value).startswith(place(path))


def objects() -> list[str]:
    return sorted(path for path in lxc_fields._INNER if not path.endswith("*"))


@pytest.mark.parametrize("path", objects())
def test_an_unknown_field_is_refused_wherever_it_is(path: str) -> None:
    if f"{path}[]" in lxc_fields._INNER or f"{path}.*" in lxc_fields._INNER:
        return
    where = f"{path}.future".lstrip(".")
    with pytest.raises(errors.Unimplemented, match="lxc does not know") as found:
        check(document(where, 1), "1")
    assert place(where) in str(found.value)


@pytest.mark.parametrize("path", [path for path in objects() if path])
def test_an_object_that_is_none_is_refused(path: str) -> None:
    wrong: Any = "text" if path.endswith("[]") else 5
    with pytest.raises(errors.InvalidArgument, match=r"it is no (list|object)"):
        check(document(path, wrong), "1")


MOUNT = {"destination": "/t", "type": "tmpfs", "source": "x"}
BIND = {"destination": "/t", "type": "bind", "source": "/usr"}


def mounts(base: dict[str, Any], *options: str, **changes: Any) -> dict[str, Any]:
    return {"mounts": [{**base, "options": list(options), **changes}]}


def resources(**limits: Any) -> dict[str, Any]:
    return {"linux": {"resources": limits}}


def process(**fields: Any) -> dict[str, Any]:
    return {"process": {"args": ["x"], **fields}}


LIMIT = {"type": "RLIMIT_CORE", "soft": 1, "hard": 1}
DEVICE = {"type": "c", "path": "/dev/x", "major": 1, "minor": 3}

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"ociVersion": "2.0.0"}, "ociVersion"),
    ({"root": {"path": "rootfs"}}, "root.path: it is not absolute"),
    ({"hostname": "x"}, "hostname"),
    ({"linux": {"namespaces": [{"type": "uts"}]}, "hostname": "x" * 65}, "longer than 64"),
    ({"linux": {"namespaces": [{"type": "uts"}]}, "domainname": "x\ny"}, "domainname"),
    ({"linux": {"namespaces": [{"type": "uts"}, {"type": "uts"}]}}, "two uts namespaces"),
    ({"linux": {"namespaces": [{"type": "moon"}]}}, "'moon' is none of"),
    ({"linux": {"namespaces": [{"type": "ipc", "path": "x"}]}}, "namespaces[0].path"),
    ({"linux": {"timeOffsets": {"boottime": {"secs": 1}}}}, "no new time namespace"),
    ({"linux": {"namespaces": [{"type": "time"}],
                "timeOffsets": {"boottime": {"secs": 1, "nanosecs": 1}}}}, "either secs or"),
    ({"linux": {"namespaces": [{"type": "time"}], "timeOffsets": {"tai": {}}}}, "'tai' is none"),
    ({"linux": {"personality": {"domain": "BSD"}}}, "linux.personality.domain"),
    ({"linux": {"rootfsPropagation": "private"}}, "linux.rootfsPropagation"),
    ({"linux": {"rootfsPropagation": "wild"}}, "linux.rootfsPropagation"),
    ({"linux": {"uidMappings": [{"containerID": 0, "hostID": 0}]}}, "uidMappings[0].size"),
    ({"linux": {"maskedPaths": ["proc"]}}, "linux.maskedPaths"),
    ({"linux": {"readonlyPaths": ["//"]}}, "linux.readonlyPaths: the root itself"),
    ({"linux": {"cgroupsPath": "/a/../../b"}}, "linux.cgroupsPath"),
    ({"linux": {"sysctl": {"net/../../etc/x": "1"}}}, "linux.sysctl"),
    ({"linux": {"sysctl": {"net.a": "1\n2"}}}, "linux.sysctl.net.a"),
    ({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}}},
     "linux.seccomp: SCMP_ACT_ALLOW gives no error number"),
    ({"linux": {"devices": [{**DEVICE, "path": "dev/x"}]}}, "devices[0].path"),
    ({"linux": {"devices": [{**DEVICE, "path": "/../"}]}}, "devices[0].path"),
    ({"linux": {"devices": [{**DEVICE, "type": "d"}]}}, "devices[0].type"),
    ({"linux": {"devices": [{"type": "c", "path": "/dev/x"}]}}, "devices[0].major"),
    ({"linux": {"devices": [{**DEVICE, "fileMode": 0o17777}]}}, "devices[0].fileMode"),
    (mounts(MOUNT, destination="/a/.."), "a mount over the root"),
    (mounts(MOUNT, destination=""), "mounts[0].destination"),
    (mounts(MOUNT, "size=1,dev"), "'size=1,dev' is no option"),
    (mounts(MOUNT, ""), "'' is no option"),
    (mounts(MOUNT, "optional"), "'optional' is no option"),
    (mounts(MOUNT, "create=dir"), "'create=dir' is no option"),
    (mounts(MOUNT, "rro"), "rro of the mount on /t"),
    (mounts(MOUNT, "idmap"), "idmap of the mount on /t"),
    (mounts(MOUNT, "nosymfollow"), "nosymfollow of the mount on /t"),
    (mounts(BIND, "bind", "size=5"), "size=5 has no effect on the mount on /t"),
    (mounts(BIND, "bind", "sync"), "sync has no effect on the mount on /t"),
    (mounts(BIND, "bind", source="usr"), "mounts[0].source"),
    (mounts({**MOUNT, "destination": "/dev"}, "ro"), "ro has no effect on the mount on /dev"),
    (mounts({**MOUNT, "destination": "/dev/pts", "type": "devpts"}, "gid=7"), "gid=7 has no"),
    (mounts({**MOUNT, "destination": "/sys/fs/cgroup", "type": "cgroup"}, "xattr"), "xattr has no"),
    (process(args=[]), "process.args: there is nothing to execute"),
    (process(args=["a\0b"]), "process.args"),
    (process(args=["x" * (1 << 17)]), "process.args[0]: it is longer than"),
    (process(env=["WORD"]), "process.env[0]"),
    (process(env=["=1"]), "process.env[0]"),
    (process(env=["A=\ud800"]), "process.env"),
    (process(cwd="tmp"), "process.cwd"),
    (process(user={"uid": -1}), "process.user.uid"),
    (process(user={"additionalGids": [2**32]}), "process.user.additionalGids"),
    (process(user={"umask": 0o1000}), "process.user.umask"),
    (process(oomScoreAdj=1001), "process.oomScoreAdj"),
    (process(consoleSize={"height": 1 << 16}), "process.consoleSize.height"),
    (process(capabilities={"bounding": ["CAP_KILL CAP_SYS_ADMIN"]}), "capabilities.bounding"),
    (process(rlimits=[LIMIT, LIMIT]), "there are two of RLIMIT_CORE"),
    (process(rlimits=[{**LIMIT, "type": "RLIMIT_X"}]), "process.rlimits[0].type"),
    (process(rlimits=[{"type": "RLIMIT_CORE"}]), "process.rlimits[0]"),
    (process(scheduler={"policy": "SCHED_ISO"}), "process.scheduler.policy"),
    (process(scheduler={"policy": "X"}), "process.scheduler.policy"),
    (process(scheduler={"policy": "SCHED_RR", "priority": 100}), "process.scheduler.priority"),
    (process(scheduler={"policy": "SCHED_RR", "flags": ["X"]}), "process.scheduler.flags"),
    (process(ioPriority={"class": "X"}), "process.ioPriority.class"),
    (process(ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 8}), "ioPriority.priority"),
    (resources(devices=[{"allow": True, "type": "d"}]), "resources.devices[0].type"),
    (resources(devices=[{"allow": True, "access": "rx"}]), "resources.devices[0].access"),
    (resources(cpu={"cpus": "0 1"}), "resources.cpu.cpus"),
    (resources(hugepageLimits=[{"pageSize": "x", "limit": 1}]), "hugepageLimits[0].pageSize"),
    (resources(rdma={"a b": {"hcaHandles": 1}}), "linux.resources.rdma"),
    (resources(network={"priorities": [{"name": "a b"}]}), "network.priorities[0].name"),
    (resources(unified={"memory.high": "1"}), "linux.resources.unified.memory.high"),
    ({"hooks": {"prestart": [{"path": "x"}]}}, "hooks.prestart[0].path"),
    ({"hooks": {"poststop": [{"path": "/x", "timeout": -1}]}}, "hooks.poststop[0].timeout"),
    ({"hooks": {"prestart": [{"path": "/x", "env": ["X"]}]}}, "hooks.prestart[0].env"),
]  # fmt: skip


@pytest.mark.parametrize(("document", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_a_value_without_effect_is_refused(document: dict[str, Any], words: str) -> None:
    with pytest.raises((errors.InvalidArgument, errors.Unimplemented)) as found:
        check(document, "1")
    assert words in str(found.value)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"memory": {"kernel": 1}}, "memory.kernel"),
        ({"memory": {"swappiness": 1}}, "memory.swappiness"),
        ({"memory": {"disableOOMKiller": True}}, "memory.disableOOMKiller"),
        ({"cpu": {"realtimeRuntime": 1}}, "cpu.realtimeRuntime"),
        ({"blockIO": {"weightDevice": [{"major": 1, "minor": 1, "weight": 9}]}}, "weightDevice"),
        ({"network": {"classID": 1}}, "network.classID"),
        ({"unified": {"a b": "1"}}, "unified.a b"),
        ({"unified": {"memory.high": "1\n2"}}, "unified.memory.high"),
    ],
)
def test_what_version_2_of_cgroups_lacks(limits: dict[str, Any], words: str) -> None:
    with pytest.raises((errors.InvalidArgument, errors.Unimplemented)) as found:
        check(resources(**limits), "2")
    assert words in str(found.value)


@pytest.mark.parametrize("key", ["apparmorProfile", "selinuxLabel"])
def test_labels_need_their_module(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    for name in ("apparmor_enabled", "selinux_enabled"):
        monkeypatch.setattr(f"isula_edge.sys.lsm.{name}", lambda: False)
    with pytest.raises(errors.Unimplemented, match=rf"cannot do process\.{key}: the kernel has no"):
        check(process(**{key: "edge"}), "1")


@pytest.mark.parametrize("profile", ["generated", "unchanged"])
def test_words_of_lxc_are_no_profiles(monkeypatch: pytest.MonkeyPatch, profile: str) -> None:
    monkeypatch.setattr("isula_edge.sys.lsm.apparmor_enabled", lambda: True)
    with pytest.raises(errors.Unimplemented, match="LXC means something else"):
        check(process(apparmorProfile=profile), "1")
