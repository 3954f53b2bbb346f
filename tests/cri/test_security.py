"""Users, groups, capabilities, and what a container may not see or change."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.cri.client import refused

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cri.node import Node, Pod

pytestmark = [pytest.mark.root, pytest.mark.lxc]


@pytest.fixture
def pod(node: Node) -> Pod:
    return node.pod()


def test_user_id(pod: Pod) -> None:
    """Spec: runtime should support RunAsUser."""
    assert pod.output("id -u; id -g", security={"run_as_user": {"value": 1001}}) == ["1001", "0"]


def test_user_name(pod: Pod) -> None:
    """Spec: runtime should support RunAsUserName."""
    assert pod.output("id -u; id -g", security={"run_as_username": "nobody"}) == ["65534", "65534"]
    with refused():
        pod.run("true", security={"run_as_username": "no-such-user"})


def test_group_id(pod: Pod) -> None:
    """Spec: runtime should support RunAsGroup."""
    group = {"run_as_group": {"value": 1002}}
    security: dict[str, Any] = {"run_as_user": {"value": 1001}, **group}
    assert pod.output("id -u; id -g", security=security) == ["1001", "1002"]
    security = {"run_as_username": "nobody", **group}
    assert pod.output("id -u; id -g", security=security) == ["65534", "1002"]


def test_a_group_needs_a_user(node: Node, pod: Pod) -> None:
    """Spec: runtime should return error if RunAsGroup is set without RunAsUser."""
    with refused():
        pod.create("true", security={"run_as_group": {"value": 1002}})
    with refused():
        node.pod(linux={"security_context": {"run_as_group": {"value": 1002}}})


def test_supplementary_groups(pod: Pod) -> None:
    """Spec: runtime should support SupplementalGroups."""
    security = {"run_as_user": {"value": 1001}, "supplemental_groups": [1234, 5678]}
    assert pod.output("id -G", security=security) == ["0 1234 5678"]


@pytest.mark.parametrize(
    ("policy", "groups"), [("Merge", [1000, 1234, 50000]), ("Strict", [1000, 1234])]
)
def test_groups_of_the_image(pod: Pod, policy: str, groups: list[int]) -> None:
    """Specs: SupplementalGroupsPolicy=Merge, SupplementalGroupsPolicy=Strict."""
    node = pod.node
    image = node.machine.images.users
    node.pull(image)
    security = {"supplemental_groups": [1234], "supplemental_groups_policy": policy}
    container = pod.run("sh", "-c", "id -G; exec sleep 1000", image=image, security=security)
    assert sorted(map(int, container.output("id", "-G").split())) == groups
    user = container.status().user.linux
    assert (user.uid, user.gid, sorted(user.supplemental_groups)) == (1000, 1000, groups)
    container.stop()
    ((_, _, text),) = container.log_lines()
    assert sorted(map(int, text.split())) == groups


def effective(pod: Pod, **security: Any) -> int:
    (line,) = pod.output("grep CapEff /proc/self/status", security=security)
    return int(line.split()[1], 16)


NET_RAW, NET_ADMIN, SYS_ADMIN, CHOWN = 1 << 13, 1 << 12, 1 << 21, 1


def test_a_capability_is_added(pod: Pod) -> None:
    """Spec: runtime should support adding capability."""
    assert not effective(pod) & NET_ADMIN
    assert effective(pod, capabilities={"add_capabilities": ["NET_ADMIN"]}) & NET_ADMIN
    script = "ip address add 10.9.9.9/32 dev lo"
    container = pod.run(*script.split())
    assert container.wait().exit_code != 0
    pod.output(script, security={"capabilities": {"add_capabilities": ["NET_ADMIN"]}})


def test_a_capability_is_dropped(pod: Pod) -> None:
    """Spec: runtime should support dropping capability."""
    assert effective(pod) & CHOWN
    assert not effective(pod, capabilities={"drop_capabilities": ["CHOWN"]}) & CHOWN
    security = {"capabilities": {"drop_capabilities": ["CHOWN"]}}
    container = pod.run("sh", "-c", "touch /tmp/x && chown 1 /tmp/x", security=security)
    assert container.wait().exit_code != 0


def test_all_capabilities_are_added(pod: Pod) -> None:
    """Spec: runtime should support adding ALL capabilities."""
    found = effective(pod, capabilities={"add_capabilities": ["ALL"]})
    assert found & NET_ADMIN
    assert found & SYS_ADMIN


def test_all_capabilities_are_dropped(pod: Pod) -> None:
    """Spec: runtime should support dropping ALL capabilities."""
    assert effective(pod, capabilities={"drop_capabilities": ["ALL"]}) == 0
    both = {"drop_capabilities": ["ALL"], "add_capabilities": ["NET_ADMIN"]}
    assert effective(pod, capabilities=both) == NET_ADMIN


def test_ambient_capabilities(pod: Pod) -> None:
    capabilities = {
        "add_capabilities": ["NET_ADMIN"],
        "add_ambient_capabilities": ["NET_ADMIN"],
    }
    found = effective(pod, capabilities=capabilities, run_as_user={"value": 1001})
    assert found & NET_ADMIN


@pytest.mark.parametrize("privileged", [True, False])
def test_privileged(node: Node, privileged: bool) -> None:
    """Specs: runtime should support Privileged is true, Privileged is false."""
    pod = node.pod(linux={"security_context": {"privileged": privileged}})
    security = {"privileged": privileged}
    container = pod.run("sh", "-c", "mount -t tmpfs none /tmp", security=security)
    assert (container.wait().exit_code == 0) is privileged
    lines = pod.output("ls /dev/kmsg 2>/dev/null; true", security=security)
    assert (lines == ["/dev/kmsg"]) is privileged
    assert bool(effective(pod, privileged=privileged) & SYS_ADMIN) is privileged


@pytest.mark.parametrize("readonly", [True, False])
def test_root_file_system(pod: Pod, readonly: bool) -> None:
    """Specs: runtime should support that ReadOnlyRootfs is true, ReadOnlyRootfs is false."""
    container = pod.run("touch", "/file", security={"readonly_rootfs": readonly})
    assert (container.wait().exit_code != 0) is readonly


def test_masked_paths(pod: Pod) -> None:
    """Spec: runtime should support MaskedPaths."""
    masked = {"masked_paths": ["/etc/passwd", "/home", "/no/such/path"]}
    pod.output("test -s /etc/passwd")
    assert pod.output("wc -c < /etc/passwd; ls /home | wc -l", security=masked) == ["0", "0"]


def test_no_paths_are_masked_when_none_are_given(pod: Pod) -> None:
    # an empty list is what is sent for an unmasked /proc
    lines = pod.output("ls /proc/acpi /sys/firmware 2>/dev/null | wc -l; cat /proc/mounts")
    assert not any(" /proc/kcore " in line for line in lines)


def test_readonly_paths(pod: Pod) -> None:
    """Spec: runtime should support ReadonlyPaths."""
    pod.output("touch /tmp/file")
    container = pod.run("touch", "/tmp/file", security={"readonly_paths": ["/tmp"]})
    assert container.wait().exit_code != 0
    pod.output("touch /home/file", security={"readonly_paths": ["/tmp", "/no/such/path"]})


@pytest.mark.parametrize("on", [True, False])
def test_no_new_privileges(pod: Pod, on: bool) -> None:
    """Specs: NoNewPrivs: privilege escalation allowed when false, not when true."""
    lines = pod.output("grep NoNewPrivs /proc/self/status", security={"no_new_privs": on})
    assert lines[0].split()[1] == str(int(on))


def seccomp_mode(pod: Pod, **security: Any) -> int:
    (line,) = pod.output("grep Seccomp: /proc/self/status", security=security)
    return int(line.split()[1])


def test_seccomp_kinds(pod: Pod) -> None:
    """Specs: seccomp default, seccomp unconfined, nil profile, which is unconfined."""
    assert seccomp_mode(pod, seccomp={"profile_type": "RuntimeDefault"}) == 2
    assert seccomp_mode(pod, seccomp={"profile_type": "Unconfined"}) == 0
    assert seccomp_mode(pod) == 0


def test_seccomp_paths_of_old(pod: Pod) -> None:
    assert seccomp_mode(pod, seccomp_profile_path="runtime/default") == 2
    assert seccomp_mode(pod, seccomp_profile_path="docker/default") == 2
    assert seccomp_mode(pod, seccomp_profile_path="unconfined") == 0
    with refused():
        pod.run("true", security={"seccomp_profile_path": "/no/kind"})


@pytest.fixture
def no_hostname(tmp_path: Path) -> dict[str, object]:
    """A profile that forbids to set the host name."""
    path = tmp_path / "seccomp.json"
    rule = {"names": ["sethostname"], "action": "SCMP_ACT_ERRNO"}
    path.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    return {"profile_type": "Localhost", "localhost_ref": str(path)}


def test_a_profile_of_the_node(pod: Pod, no_hostname: dict[str, object]) -> None:
    """Specs: seccomp localhost profile, profile that blocks setting hostname with SYS_ADMIN."""
    capable = {"capabilities": {"add_capabilities": ["SYS_ADMIN"]}}
    assert seccomp_mode(pod, seccomp=no_hostname) == 2
    container = pod.run("hostname", "other", security={**capable, "seccomp": no_hostname})
    assert container.wait().exit_code != 0
    # spec: should not block setting host name with unconfined seccomp and SYS_ADMIN
    pod.output("hostname other", security={**capable, "seccomp": {"profile_type": "Unconfined"}})


def test_privileged_ignores_the_profile(node: Node, no_hostname: dict[str, object]) -> None:
    """Spec: should ignore a seccomp profile that blocks setting hostname when privileged."""
    pod = node.pod(linux={"security_context": {"privileged": True}})
    pod.output("hostname other", security={"privileged": True, "seccomp": no_hostname})


def test_a_profile_that_cannot_be_read(pod: Pod, tmp_path: Path) -> None:
    profile = {"profile_type": "Localhost", "localhost_ref": str(tmp_path / "none.json")}
    with refused():
        pod.run("true", security={"seccomp": profile})


def test_apparmor_where_there_is_none(pod: Pod) -> None:
    pod.output("true", security={"apparmor": {"profile_type": "RuntimeDefault"}})
    pod.output("true", security={"apparmor_profile": "unconfined"})
    profile = {"profile_type": "Localhost", "localhost_ref": "no-such-profile"}
    with refused():
        pod.run("true", security={"apparmor": profile})
