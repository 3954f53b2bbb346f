"""The runtime-spec document: process, root, mounts, namespaces, paths."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from isula_edge.oci import spec
from isula_edge.oci.mounts import Mount
from isula_edge.oci.options import Settings
from isula_edge.oci.spec import Subject, build, process_args
from isula_edge.oci.user import User
from isula_edge.version import OCI_RUNTIME_SPEC

pytestmark = pytest.mark.usefixtures("capable")

NEW = dict.fromkeys(("mount", "pid", "network", "ipc", "uts", "cgroup"), "")
FILTER = {"defaultAction": "SCMP_ACT_ALLOW"}
SUBJECT = Subject(
    id="0123456789abcdef",
    rootfs="/graph/rootfs",
    args=["/bin/sh", "-c", "true"],
    image_env=["A=image", "B=image"],
    workdir="/work",
    user=User(0, 0, (10, 20), "/root"),
    hostname="edge",
    cgroup="isula/0123456789abcdef",
    files={"/etc/hosts": "/run/hosts", "/etc/hostname": "/run/hostname"},
    namespaces=NEW,
    seccomp=FILTER,
)


@pytest.fixture(autouse=True)
def queues(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel with POSIX message queues."""
    monkeypatch.setattr(spec, "_has_queues", lambda: True)


def document(settings: Settings | None = None, **changes: Any) -> dict[str, Any]:
    return build(settings or Settings(), replace(SUBJECT, **changes))


def mounts(settings: Settings | None = None, **changes: Any) -> dict[str, dict[str, Any]]:
    listed = document(settings, **changes)["mounts"]
    found = {mount["destination"]: mount for mount in listed}
    assert len(found) == len(listed)
    return found


def test_the_document_of_a_plain_container() -> None:
    found = document()
    assert found["ociVersion"] == OCI_RUNTIME_SPEC
    assert found["hostname"] == "edge"
    assert found["root"] == {"path": "/graph/rootfs", "readonly": False}
    assert found["annotations"] == {}
    assert "hooks" not in found
    process = found["process"]
    assert process["terminal"] is False
    assert process["args"] == ["/bin/sh", "-c", "true"]
    assert process["cwd"] == "/work"
    assert process["user"] == {"uid": 0, "gid": 0, "additionalGids": [10, 20]}
    assert process["noNewPrivileges"] is False
    assert "rlimits" not in process
    assert "oomScoreAdj" not in process
    assert found["linux"]["cgroupsPath"] == "/isula/0123456789abcdef"
    assert found["linux"]["seccomp"] == FILTER
    assert "sysctl" not in found["linux"]
    assert "devices" not in found["linux"]
    assert "rootfsPropagation" not in found["linux"]


def test_settings_that_go_straight_into_the_document() -> None:
    hooks = {"prestart": [{"path": "/usr/bin/true"}]}
    settings = Settings(
        tty=True,
        read_only=True,
        no_new_privileges=True,
        annotations={"a": "b"},
        sysctls={"net.x": "1"},
        oom_score_adj=0,
        hooks=hooks,
    )
    found = document(settings)
    assert found["root"]["readonly"] is True
    assert found["process"]["terminal"] is True
    assert found["process"]["noNewPrivileges"] is True
    assert found["process"]["oomScoreAdj"] == 0
    assert found["annotations"] == {"a": "b"}
    assert found["linux"]["sysctl"] == {"net.x": "1"}
    assert found["hooks"] == hooks


@pytest.mark.parametrize(
    ("image", "given", "tty", "expected"),
    [
        ([], [], False, {"PATH": spec.DEFAULT_PATH, "HOSTNAME": "edge", "HOME": "/root"}),
        (
            [], [], True,
            {"PATH": spec.DEFAULT_PATH, "HOSTNAME": "edge", "TERM": "xterm", "HOME": "/root"},
        ),
        (
            ["PATH=/image", "A=1", "HOME=/image"], ["A=2", "TERM=vt100"], True,
            {"PATH": "/image", "HOSTNAME": "edge", "TERM": "vt100", "A": "2", "HOME": "/image"},
        ),
        (
            ["A=1"], ["A=x=y", "EMPTY=", "HOSTNAME=mine"], False,
            {"PATH": spec.DEFAULT_PATH, "HOSTNAME": "mine", "A": "x=y", "EMPTY": "",
             "HOME": "/root"},
        ),
    ],
)  # fmt: skip
def test_later_variables_win(
    image: list[str], given: list[str], tty: bool, expected: dict[str, str]
) -> None:
    found = document(Settings(env=given, tty=tty), image_env=image)["process"]["env"]
    assert found == [f"{key}={value}" for key, value in expected.items()]


@pytest.mark.parametrize(
    ("image", "entrypoint", "command", "expected"),
    [
        ({"Entrypoint": ["/e", "x"], "Cmd": ["c"]}, None, [], ["/e", "x", "c"]),
        ({"Entrypoint": ["/e"], "Cmd": ["c"]}, None, ["mine"], ["/e", "mine"]),
        ({"Entrypoint": None, "Cmd": ["c"]}, None, [], ["c"]),
        ({"Cmd": ["c"]}, None, ["mine", "too"], ["mine", "too"]),
        ({"Entrypoint": ["/e"], "Cmd": ["c"]}, "/mine", [], ["/mine"]),
        ({"Entrypoint": ["/e"], "Cmd": ["c"]}, "/mine", ["arg"], ["/mine", "arg"]),
        ({"Entrypoint": ["/e"], "Cmd": ["c"]}, "", ["mine"], ["mine"]),
        ({"Entrypoint": ["/e"], "Cmd": ["c"]}, "", [], []),
        ({}, None, [], []),
    ],
)
def test_what_is_executed(
    image: dict[str, Any], entrypoint: str | None, command: list[str], expected: list[str]
) -> None:
    assert process_args(image, entrypoint, command) == expected


def test_an_images_own_lists_are_not_changed() -> None:
    image = {"Entrypoint": ["/e"], "Cmd": ["c"]}
    process_args(image, None, []).append("x")
    assert image == {"Entrypoint": ["/e"], "Cmd": ["c"]}


def test_root_has_its_capabilities_in_every_set() -> None:
    found = document()["process"]["capabilities"]
    assert len(found["bounding"]) == 14
    assert found["effective"] == found["permitted"] == found["bounding"]
    assert not found.get("inheritable")
    assert not found.get("ambient")


def test_another_user_has_them_only_to_get_by_setuid() -> None:
    found = document(user=User(1000, 1000, ()))["process"]["capabilities"]
    assert len(found["bounding"]) == 14
    assert found["effective"] == found["permitted"] == []


def test_capabilities_are_added_dropped_and_all_given() -> None:
    added = document(Settings(cap_add=["SYS_TIME"], cap_drop=["KILL"]))["process"]["capabilities"]
    assert "CAP_SYS_TIME" in added["effective"]
    assert "CAP_KILL" not in added["bounding"]
    everything = document(Settings(privileged=True))["process"]["capabilities"]
    assert len(everything["bounding"]) == 41


UNLIMITED = 2**64 - 1


@pytest.mark.parametrize(
    ("limit", "top", "soft", "hard"),
    [
        (("nofile", 1024, 2048), {}, 1024, 2048),
        (("nofile", -1, -1), {}, UNLIMITED, UNLIMITED),
        (("nofile", 5, -1), {}, 5, UNLIMITED),
        # an engine that may not raise limits gives what it has itself
        (("nofile", 1024, 2048), {"nofile": 1500}, 1024, 1500),
        (("nofile", -1, -1), {"nofile": 1500}, 1500, 1500),
        (("nofile", 1024, 2048), {"nofile": -1}, 1024, 2048),
        (("nofile", 1024, 2048), {"core": 0}, 1024, 2048),
    ],
)
def test_limits(limit: tuple[str, int, int], top: dict[str, int], soft: int, hard: int) -> None:
    (found,) = document(Settings(ulimits=[limit]), hard_limits=top)["process"]["rlimits"]
    assert found == {"type": "RLIMIT_NOFILE", "soft": soft, "hard": hard}


def test_usual_mounts() -> None:
    found = mounts()
    assert list(found) == [
        "/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm",
        "/etc/hosts", "/etc/hostname",
    ]  # fmt: skip
    assert found["/proc"]["type"] == "proc"
    assert found["/dev"]["type"] == "tmpfs"
    assert {"newinstance", "ptmxmode=0666", "gid=5"} <= set(found["/dev/pts"]["options"])
    assert "ro" in found["/sys"]["options"]
    assert "ro" in found["/sys/fs/cgroup"]["options"]
    assert found["/dev/mqueue"]["type"] == "mqueue"
    assert {"mode=1777", f"size={64 << 20}"} <= set(found["/dev/shm"]["options"])
    for target in ("/proc", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm"):
        assert {"nosuid", "noexec", "nodev"} <= set(found[target]["options"]), target
    assert found["/etc/hosts"] == {
        "destination": "/etc/hosts",
        "type": "bind",
        "source": "/run/hosts",
        "options": ["rbind", "rprivate", "rw"],
    }


def test_the_engines_files_are_read_only_with_the_root() -> None:
    assert mounts(Settings(read_only=True))["/etc/hosts"]["options"][-1] == "ro"


def test_shm_has_its_size_or_is_another_one() -> None:
    assert "size=1024" in mounts(Settings(shm_size=1024))["/dev/shm"]["options"]
    found = mounts(shm_path="/run/shm")["/dev/shm"]
    assert (found["type"], found["source"]) == ("bind", "/run/shm")
    assert not any(option.startswith("size=") for option in found["options"])


def test_message_queues_need_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spec, "_has_queues", lambda: False)
    assert "/dev/mqueue" not in mounts()


@pytest.mark.parametrize("there", [True, False])
def test_message_queues_of_the_host(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr("os.path.isdir", lambda path: there and path == "/dev/mqueue")
    found = mounts(namespaces={**NEW, "ipc": None})
    if there:
        assert found["/dev/mqueue"]["type"] == "bind"
        assert "rbind" in found["/dev/mqueue"]["options"]
    else:
        assert "/dev/mqueue" not in found


def test_mounts_of_the_user_come_last_and_replace_the_usual_ones() -> None:
    mine = [Mount("bind", "/a", "/data"), Mount("tmpfs", "", "/dev/shm", options=("size=5",)),
            Mount("bind", "/h", "/etc/hosts", read_only=True)]  # fmt: skip
    found = mounts(Settings(mounts=mine))
    assert list(found)[-3:] == ["/data", "/dev/shm", "/etc/hosts"]
    assert found["/dev/shm"]["options"] == ["rw", "size=5"]
    assert found["/etc/hosts"]["source"] == "/h"


@pytest.mark.parametrize(
    ("propagations", "expected"),
    [
        (["rprivate"], None),
        (["private"], None),
        (["rslave"], "slave"),
        (["slave", "rprivate"], "slave"),
        (["rshared"], "shared"),
        (["slave", "shared"], "shared"),
    ],
)
def test_the_root_propagates_when_a_mount_does(
    propagations: list[str], expected: str | None
) -> None:
    mine = [Mount("bind", "/a", f"/{word}", propagation=word) for word in propagations]
    assert document(Settings(mounts=mine))["linux"].get("rootfsPropagation") == expected


def test_new_namespaces() -> None:
    assert document()["linux"]["namespaces"] == [
        {"type": kind} for kind in ("mount", "pid", "network", "ipc", "uts", "cgroup")
    ]


def test_namespaces_of_others_and_of_the_host() -> None:
    wanted = {**NEW, "network": "/proc/5/ns/net", "pid": None, "cgroup": None}
    del wanted["uts"]
    assert document(namespaces=wanted)["linux"]["namespaces"] == [
        {"type": "mount"},
        {"type": "network", "path": "/proc/5/ns/net"},
        {"type": "ipc"},
    ]


def test_kernel_files_are_hidden_or_read_only() -> None:
    found = document()["linux"]
    for path in ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/proc/scsi"):
        assert path in found["maskedPaths"]
    assert set(found["readonlyPaths"]) == {
        "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
    }  # fmt: skip


def test_a_privileged_container_sees_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spec, "_nodes", lambda path: [path] if path != "/dev" else [])
    found = document(Settings(privileged=True))
    assert "maskedPaths" not in found["linux"]
    assert "readonlyPaths" not in found["linux"]
    assert "seccomp" not in found["linux"]
    assert found["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    for mount in found["mounts"]:
        if mount["destination"] in ("/sys", "/sys/fs/cgroup"):
            assert "rw" in mount["options"]
            assert "ro" not in mount["options"]


def test_without_a_filter_there_is_none() -> None:
    assert "seccomp" not in document(seccomp=None)["linux"]
