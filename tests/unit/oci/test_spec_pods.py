"""The document with settings that only the services of pods give."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from isula_edge.oci.options import Settings
from isula_edge.oci.spec import build
from isula_edge.oci.user import User
from isula_edge.sys import lsm
from tests.unit.oci.test_spec import NEW, SUBJECT

pytestmark = pytest.mark.usefixtures("capable")

LABEL = "system_u:system_r:container_t:s0:c1,c2"


def document(settings: Settings, **changes: Any) -> dict[str, Any]:
    return build(settings, replace(SUBJECT, **changes))


def process(settings: Settings, uid: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = document(settings, user=User(uid, 0, ()))["process"]
    return found


def test_namespaces_that_are_joined() -> None:
    joined = {**NEW, "network": "/pod/net", "uts": "/pod/uts", "user": "/pod/user", "pid": None}
    found = document(Settings(), namespaces=joined)
    assert {entry["type"]: entry.get("path") for entry in found["linux"]["namespaces"]} == {
        "mount": None,
        "network": "/pod/net",
        "ipc": None,
        "uts": "/pod/uts",
        "cgroup": None,
        "user": "/pod/user",
    }
    assert "hostname" not in found


def test_files_and_shared_memory() -> None:
    found = document(Settings(), files={"/etc/hosts": "/pod/hosts"}, shm_path="/pod/shm")
    table = {mount["destination"]: mount for mount in found["mounts"]}
    assert table["/etc/hosts"]["source"] == "/pod/hosts"
    assert table["/dev/shm"]["source"] == "/pod/shm"
    assert "/etc/resolv.conf" not in table


def test_ambient_capabilities_of_a_user() -> None:
    sets = process(Settings(ambient=["SYS_TIME", "kill"], cap_drop=["ALL"]), 1000)["capabilities"]
    names = ["CAP_KILL", "CAP_SYS_TIME"]
    assert sets == dict.fromkeys(
        ("bounding", "effective", "permitted", "inheritable", "ambient"), names
    )


def test_ambient_capabilities_of_root() -> None:
    sets = process(Settings(ambient=["SYS_TIME"], cap_add=["KILL"], cap_drop=["ALL"]))[
        "capabilities"
    ]
    assert sets["effective"] == sets["permitted"] == sets["bounding"]
    assert sets["bounding"] == ["CAP_KILL", "CAP_SYS_TIME"]
    assert sets["inheritable"] == sets["ambient"] == ["CAP_SYS_TIME"]


def test_no_ambient_capabilities() -> None:
    sets = process(Settings(), 1000)["capabilities"]
    assert (sets["effective"], sets["permitted"]) == ([], [])
    assert "ambient" not in sets
    assert "inheritable" not in sets


@pytest.mark.parametrize("umask", [0, 0o27])
def test_umask(umask: int) -> None:
    assert process(Settings(umask=umask))["user"]["umask"] == umask
    assert "umask" not in process(Settings())["user"]


def test_paths() -> None:
    linux = document(Settings())["linux"]
    assert "/proc/kcore" in linux["maskedPaths"]
    assert "/proc/sys" in linux["readonlyPaths"]
    linux = document(Settings(masked_paths=["/a"], readonly_paths=[]))["linux"]
    assert (linux["maskedPaths"], linux["readonlyPaths"]) == (["/a"], [])
    linux = document(Settings(masked_paths=["/a"], readonly_paths=["/b"], privileged=True))["linux"]
    assert "maskedPaths" not in linux
    assert "readonlyPaths" not in linux


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("privileged", [True, False])
def test_security_modules(
    monkeypatch: pytest.MonkeyPatch, there: bool, privileged: bool
) -> None:
    monkeypatch.setattr(lsm, "apparmor_enabled", lambda: there)
    monkeypatch.setattr(lsm, "selinux_enabled", lambda: there)
    found = process(Settings(apparmor="edge", selinux=LABEL, privileged=privileged))
    wanted = there and not privileged
    assert found.get("apparmorProfile") == ("edge" if wanted else None)
    assert found.get("selinuxLabel") == (LABEL if wanted else None)
    plain = process(Settings())
    assert "apparmorProfile" not in plain
    assert "selinuxLabel" not in plain


def test_variables_taken_away() -> None:
    settings = Settings(env=["B=set"], env_removed=["A", "B", "HOME", "NONE"])
    found = document(settings, image_env=["A=1", "B=2", "C=3", "HOME=/image"])["process"]["env"]
    assert {"B=set", "C=3", "HOME=/root"} <= set(found)
    assert not any(pair.startswith("A=") for pair in found)
