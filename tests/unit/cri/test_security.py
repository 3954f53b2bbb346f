"""Security contexts: what becomes a setting, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("google.protobuf")

from isula_cri import messages, security
from isula_edge import errors
from isula_edge.oci.options import Settings
from isula_edge.pod.record import Pod, PodSpec

if TYPE_CHECKING:
    from pathlib import Path

LABEL = "system_u:system_r:pod_t:s0"


def applied(**fields: Any) -> Settings:
    settings = Settings()
    context = messages.LinuxContainerSecurityContext(**fields)
    spec = PodSpec("a", "b", "c", privileged=context.privileged, security={"selinux": LABEL})
    security.apply(settings, context, Pod("p1", 1, "boot", spec))
    return settings


def test_nothing_said() -> None:
    found = applied()
    assert found == Settings(
        masked_paths=[], readonly_paths=[], seccomp="unconfined", selinux=LABEL
    )


def test_all_said() -> None:
    found = applied(
        readonly_rootfs=True,
        no_new_privs=True,
        run_as_user={"value": 5},
        run_as_group={"value": 6},
        supplemental_groups=[7, 8],
        supplemental_groups_policy=1,
        capabilities={
            "add_capabilities": ["CAP_SYS_ADMIN", "net_admin"],
            "drop_capabilities": ["ALL"],
            "add_ambient_capabilities": ["NET_RAW"],
        },
        masked_paths=["/proc/a"],
        readonly_paths=["/proc/b"],
        seccomp={"profile_type": 0},
        apparmor={"profile_type": 2, "localhost_ref": "localhost/mine"},
        selinux_options={"user": "u", "role": "r", "type": "t", "level": "s0:c1,c2"},
    )
    assert found == Settings(
        read_only=True,
        no_new_privileges=True,
        user="5:6",
        group_add=["7", "8"],
        groups_strict=True,
        cap_add=["CAP_SYS_ADMIN", "net_admin"],
        cap_drop=["ALL"],
        ambient=["NET_RAW"],
        masked_paths=["/proc/a"],
        readonly_paths=["/proc/b"],
        apparmor="mine",
        selinux="u:r:t:s0:c1,c2",
    )


def test_a_privileged_container_is_confined_by_nothing() -> None:
    found = applied(
        privileged=True,
        no_new_privs=True,
        seccomp={"profile_type": 0},
        apparmor={"profile_type": 0},
        selinux_options={"type": "x_t"},
    )
    assert found.privileged
    assert not found.no_new_privileges
    assert (found.seccomp, found.apparmor, found.selinux) == ("unconfined", "unconfined", "")


@pytest.mark.parametrize(
    ("fields", "user"),
    [
        ({}, ""),
        ({"run_as_user": {"value": 0}}, "0"),
        ({"run_as_user": {"value": 2**32 - 2}}, "4294967294"),
        ({"run_as_username": "www"}, "www"),
        ({"run_as_username": "www", "run_as_user": {"value": 5}}, "www"),
        ({"run_as_username": "www", "run_as_group": {"value": 0}}, "www:0"),
        ({"run_as_user": {"value": 5}, "run_as_group": {"value": 0}}, "5:0"),
    ],
)
def test_users(fields: dict[str, Any], user: str) -> None:
    assert applied(**fields).user == user


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"run_as_group": {"value": 5}}, "runAsGroup without runAsUser"),
        ({"run_as_user": {"value": -1}}, "run_as_user -1"),
        ({"run_as_user": {"value": 2**32 - 1}}, "run_as_user 4294967295"),
        ({"run_as_user": {"value": 1}, "run_as_group": {"value": 2**40}}, "run_as_group"),
        ({"supplemental_groups": [1, -2]}, "supplemental_groups -2"),
        ({"capabilities": {"add_capabilities": ["FLY"]}}, "capability to add: 'FLY'"),
        ({"capabilities": {"drop_capabilities": ["FLY"]}}, "capability to drop: 'FLY'"),
        ({"capabilities": {"add_ambient_capabilities": ["FLY"]}}, "'FLY'"),
        ({"seccomp_profile_path": "mine"}, "unknown seccomp profile option: mine"),
        ({"seccomp_profile_path": "localhost/rel"}, "must be absolute, it is rel"),
        ({"seccomp_profile_path": "localhost/"}, "must be absolute, it is empty"),
        ({"seccomp": {"profile_type": 2}}, "must be absolute, it is empty"),
        ({"seccomp": {"profile_type": 2, "localhost_ref": "/nowhere/x"}}, "/nowhere/x cannot"),
        ({"seccomp": {"profile_type": 2, "localhost_ref": "/dev"}}, "/dev is no file"),
        ({"seccomp": {"profile_type": 9}}, "seccomp.profile_type has the unknown value 9"),
        ({"apparmor": {"profile_type": 9}}, "apparmor.profile_type has the unknown value 9"),
        ({"apparmor": {"profile_type": 2}}, "needs a name"),
        ({"apparmor_profile": "localhost/"}, "needs a name"),
        ({"apparmor_profile": "mine"}, "unknown AppArmor profile option: mine"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        applied(**fields)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"seccomp": {"profile_type": 0}}, ""),
        ({"seccomp": {"profile_type": 1}}, "unconfined"),
        ({"seccomp_profile_path": ""}, "unconfined"),
        ({"seccomp_profile_path": "unconfined"}, "unconfined"),
        ({"seccomp_profile_path": "runtime/default"}, ""),
        ({"seccomp_profile_path": "docker/default"}, ""),
        # the newer field wins
        ({"seccomp": {"profile_type": 0}, "seccomp_profile_path": "unconfined"}, ""),
    ],
)
def test_seccomp(fields: dict[str, Any], expected: str) -> None:
    assert applied(**fields).seccomp == expected


def test_a_seccomp_profile_is_read_at_once(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    for fields in (
        {"seccomp": {"profile_type": 2, "localhost_ref": str(file)}},
        {"seccomp_profile_path": f"localhost/{file}"},
    ):
        assert applied(**fields).seccomp == '{"defaultAction": "SCMP_ACT_ALLOW"}'
    for damaged in (b"\xff\xfe", b"", b"{", b"[" * 100_000):
        file.write_bytes(damaged)
        with pytest.raises(errors.InvalidArgument, match="cannot be read"):
            applied(seccomp_profile_path=f"localhost/{file}")
    with file.open("wb") as opened:
        opened.truncate((4 << 20) + 1)
    with pytest.raises(errors.InvalidArgument, match="too large"):
        applied(seccomp_profile_path=f"localhost/{file}")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ""),
        ({"apparmor": {"profile_type": 0}}, ""),
        ({"apparmor": {"profile_type": 1}}, "unconfined"),
        ({"apparmor": {"profile_type": 2, "localhost_ref": "mine"}}, "mine"),
        ({"apparmor_profile": "runtime/default"}, ""),
        ({"apparmor_profile": "unconfined"}, "unconfined"),
        ({"apparmor_profile": "localhost/mine"}, "mine"),
    ],
)
def test_apparmor(fields: dict[str, Any], expected: str) -> None:
    assert applied(**fields).apparmor == expected


@pytest.mark.parametrize(
    ("fields", "label"),
    [
        ({}, ""),
        ({"type": "x_t"}, "system_u:system_r:x_t:s0"),
        ({"level": "s0:c0.c1023"}, "system_u:system_r:container_t:s0:c0.c1023"),
        ({"user": "a", "role": "b", "type": "c", "level": "s0-s1:c1,c2"}, "a:b:c:s0-s1:c1,c2"),
    ],
)
def test_selinux_labels(fields: dict[str, str], label: str) -> None:
    assert security.selinux_label(messages.SELinuxOption(**fields)) == label


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "a:b"},
        {"role": "a b"},
        {"type": "ä"},
        {"type": "a\n"},
        {"level": "0"},
        {"level": "s0:c1,"},
        {"level": "s0:c12345"},
        {"level": "s0:c1;c2"},
        {"level": "s0\n"},
    ],
)
def test_selinux_options_that_are_none(fields: dict[str, str]) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"[Tt]he format of"):
        security.selinux_label(messages.SELinuxOption(**fields))
