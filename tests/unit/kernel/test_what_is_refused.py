"""What a user asks of an old kernel: refused with the feature's name, or let through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.oci.options import Settings
from isula_edge.service import asked
from tests.unit.kernel.test_booted_kernels import load

if TYPE_CHECKING:
    from pathlib import Path

WANTED: list[tuple[dict[str, Any], str]] = [
    ({"seccomp": '{"defaultAction": "SCMP_ACT_ALLOW"}'}, "seccomp-filter"),
    ({"no_new_privileges": True}, "no-new-privs"),
    ({"pid": "container:other"}, "join-namespaces"),
    ({"join": {"pid": "/proc/1/ns/pid"}}, "join-namespaces"),
]
FINE: list[dict[str, Any]] = [
    {},
    {"seccomp": "unconfined"},
    # a privileged container has no profile whatever was asked
    {"seccomp": "{}", "privileged": True},
    {"pid": "host"},
    # what setns(2) could do from its beginning
    {"net": "container:other", "ipc": "container:other", "uts": "container:other"},
    {"join": {"network": "/run/netns/pod", "ipc": "/run/ipc", "pid": "", "uts": None}},
]


@pytest.mark.parametrize(("settings", "feature"), WANTED)
def test_what_linux_3_4_lacks(kernels: Path, settings: dict[str, Any], feature: str) -> None:
    with pytest.raises(errors.Unimplemented, match="this kernel cannot do") as caught:
        asked.check_settings(load(kernels, "x86_64-3.4.111"), Settings(**settings))
    assert caught.value.ref == feature
    assert caught.value.hint


@pytest.mark.parametrize("settings", FINE)
def test_what_linux_3_4_can_do(kernels: Path, settings: dict[str, Any]) -> None:
    asked.check_settings(load(kernels, "x86_64-3.4.111"), Settings(**settings))


@pytest.mark.parametrize(("settings", "feature"), WANTED)
def test_linux_3_10_has_all_of_it(kernels: Path, settings: dict[str, Any], feature: str) -> None:
    features = load(kernels, "x86_64-3.10.105")
    asked.check_settings(features, Settings(**settings))
    assert features.usable(feature)


def test_exec(kernels: Path) -> None:
    asked.check_exec(load(kernels, "x86_64-3.10.105"), "lxc")
    old = load(kernels, "x86_64-3.4.111")
    with pytest.raises(errors.Unimplemented) as caught:
        asked.check_exec(old, "lxc")
    assert str(caught.value) == (
        "this kernel cannot do exec: /proc/PID/ns has no link of mnt, pid, net "
        "(Linux 3.8 has links of all namespaces in /proc/PID/ns, and setns(2) to them)"
    )
    # those with a kernel of their own
    asked.check_exec(old, "kata")
