"""Every kernel that was booted: the verdict and the features against what ran there."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

import pytest

from isula_edge import kernel
from isula_edge.kernel import Need, State, Status

if TYPE_CHECKING:
    from pathlib import Path


class Seen(NamedTuple):
    """What was seen on a kernel: containers of both runtimes, overlay, seccomp with
    no_new_privs, a user namespace with an id map."""

    directory: str
    status: Status
    lxc: bool
    runc: bool
    overlay: bool
    seccomp: bool
    userns: bool
    cgroups: str


OK, DEGRADED, CANNOT = Status.OK, Status.DEGRADED, Status.CANNOT_RUN
YES, NO = True, False
CLOUD = "cloud-amd64"

SEEN = [
    Seen("x86_64-3.0.1-v1", CANNOT, NO, NO, NO, NO, NO, "v1"),
    Seen("x86_64-3.4.111-v1", DEGRADED, YES, NO, NO, NO, NO, "v1"),
    Seen("x86_64-3.10.105-v1", DEGRADED, YES, YES, NO, YES, YES, "v1"),
    Seen("x86_64-3.19.8-v1", DEGRADED, YES, YES, YES, YES, YES, "v1"),
    Seen("x86_64-4.4.155-v1", DEGRADED, YES, YES, YES, YES, YES, "v1"),
    Seen("x86_64-4.9.115-v1", OK, YES, YES, YES, YES, YES, "v1"),
    Seen("x86_64-4.9.115-hybrid", OK, YES, YES, YES, YES, YES, "hybrid"),
    Seen("x86_64-4.9.115-v2", DEGRADED, YES, YES, YES, YES, YES, "v2"),
    Seen("x86_64-4.19.72-v1", OK, YES, YES, YES, YES, YES, "v1"),
    Seen("x86_64-4.19.72-hybrid", OK, YES, YES, YES, YES, YES, "hybrid"),
    Seen("x86_64-4.19.72-v2", DEGRADED, YES, YES, YES, YES, YES, "v2"),
    Seen(f"x86_64-5.10.0-32-{CLOUD}-v1", OK, YES, YES, YES, YES, YES, "v1"),
    Seen(f"x86_64-5.10.0-32-{CLOUD}-hybrid", OK, YES, YES, YES, YES, YES, "hybrid"),
    Seen(f"x86_64-5.10.0-32-{CLOUD}-v2", OK, YES, YES, YES, YES, YES, "v2"),
    Seen(f"x86_64-6.1.0-50-{CLOUD}-hybrid", OK, YES, YES, YES, YES, YES, "hybrid"),
    Seen(f"x86_64-6.1.0-50-{CLOUD}-v2", OK, YES, YES, YES, YES, YES, "v2"),
    # Debian 13 does not build memory and cpuset for version 1
    Seen(f"x86_64-6.12.117+deb13-{CLOUD}-hybrid", DEGRADED, YES, YES, YES, YES, YES, "hybrid"),
    Seen(f"x86_64-6.12.117+deb13-{CLOUD}-v2", OK, YES, YES, YES, YES, YES, "v2"),
    Seen(f"x86_64-7.2.13+deb14-{CLOUD}-hybrid", DEGRADED, YES, YES, YES, YES, YES, "hybrid"),
    Seen(f"x86_64-7.2.13+deb14-{CLOUD}-v2", OK, YES, YES, YES, YES, YES, "v2"),
    Seen("aarch64-6.1.0-50-cloud-arm64-hybrid", OK, YES, YES, YES, YES, YES, "hybrid"),
    Seen("aarch64-6.12.117+deb13-cloud-arm64-v2", OK, YES, YES, YES, YES, YES, "v2"),
    # a machine without CAP_SYS_RESOURCE; v2view is its unified hierarchy mounted alone, to
    # which nothing but hugetlb is left: no container was run in that layout
    Seen("x86_64-6.18.44-host-hybrid", DEGRADED, YES, YES, YES, YES, YES, "hybrid"),
    Seen("x86_64-6.18.44-host-v2view", DEGRADED, YES, YES, YES, YES, YES, "v2"),
]
BY_NAME = {seen.directory: seen for seen in SEEN}


def load(kernels: Path, name: str) -> kernel.Features:
    """Features of the one real kernel whose directory starts with ``name``."""
    found = [entry for entry in os.listdir(kernels) if entry.startswith(name)]
    return kernel.probe(kernel.Saved(str(kernels / min(found, key=len))))


def test_every_kernel_of_the_archive_has_a_row(kernels: Path) -> None:
    assert set(os.listdir(kernels)) == set(BY_NAME)


@pytest.mark.parametrize("seen", SEEN, ids=lambda seen: seen.directory)
def test_verdict_is_what_ran(kernels: Path, seen: Seen) -> None:
    features = kernel.probe(kernel.Saved(str(kernels / seen.directory)))
    verdict = features.verdict()
    assert verdict.status is seen.status, verdict.summary
    assert verdict.unknown == ()
    assert (not verdict.runtimes["lxc"], not verdict.runtimes["runc"]) == (seen.lxc, seen.runc)
    assert features.overlay_type() == ("overlay" if seen.overlay else None)
    assert features.usable("seccomp-filter") is seen.seccomp
    assert features.usable("no-new-privs") is seen.seccomp
    assert features.usable("user-namespace") is seen.userns
    assert features.cgroups().version == seen.cgroups
    # crun and runc run, and fail, on the same ones
    assert (not verdict.runtimes["crun"]) is seen.runc
    # nft and iptables-nft from 4.4, iptables-legacy everywhere
    assert features.usable("nf-tables") is not seen.directory.startswith("x86_64-3.")
    assert features.usable("iptables-legacy")
    assert features.usable("packet-filter")


PRESENT, ABSENT, UNUSABLE = State.PRESENT, State.ABSENT, State.UNUSABLE

KEY = [
    # unshare(2) of pid and user is EINVAL before 3.8, clone(2) works: lxc runs, runc not
    ("x86_64-3.4.111", "pid-namespace", PRESENT, "clone(2)"),
    ("x86_64-3.4.111", "unshare-pid", ABSENT, "EINVAL"),
    ("x86_64-3.4.111", "user-namespace", UNUSABLE, "uid_map"),
    ("x86_64-3.4.111", "mnt-namespace", PRESENT, "clone(2)"),
    ("x86_64-3.4.111", "uts-namespace", PRESENT, "/proc/self/ns/uts"),
    # /proc/self/ns has plain files of ipc, net and uts only
    ("x86_64-3.4.111", "join-namespaces", ABSENT, "mnt, pid, net"),
    ("x86_64-3.10.105", "join-namespaces", PRESENT, ""),
    # the fd of LXC's pivot_root
    ("x86_64-3.0.1", "o-path-fchdir", ABSENT, "EBADF"),
    ("x86_64-3.0.1", "child-subreaper", ABSENT, "EINVAL"),
    ("x86_64-3.4.111", "child-subreaper", PRESENT, ""),
    ("x86_64-3.0.1", "tiocgptpeer", ABSENT, "EINVAL"),
    ("x86_64-3.10.105", "tiocgptpeer", ABSENT, "ENOTTY"),
    # prctl: EFAULT is supported, EINVAL is not; seccomp(2) came later
    ("x86_64-3.4.111", "seccomp-filter", ABSENT, "EINVAL"),
    ("x86_64-3.10.105", "seccomp-filter", PRESENT, "EFAULT"),
    ("x86_64-3.10.105", "seccomp-syscall", ABSENT, "ENOSYS"),
    ("x86_64-3.10.105", "seccomp-errno", PRESENT, "as old as the filter"),
    # GET_ACTION_AVAIL EINVAL: cannot be asked
    ("x86_64-4.4.155", "seccomp-errno", PRESENT, "EINVAL"),
    ("x86_64-4.9.115-v1", "seccomp-notify", ABSENT, "EINVAL"),
    ("x86_64-4.19.72-v1", "seccomp-notify", ABSENT, "EOPNOTSUPP"),
    ("x86_64-4.19.72-v1", "seccomp-log", PRESENT, ""),
    ("x86_64-5.10.0-32-cloud-amd64-v1", "seccomp-notify", PRESENT, ""),
    # overlay from 3.19 here, with one lower directory only
    ("x86_64-3.10.105", "overlay", ABSENT, "ENODEV"),
    ("x86_64-3.19.8", "overlay", PRESENT, ""),
    ("x86_64-3.19.8", "overlay-multilower", ABSENT, "EINVAL"),
    ("x86_64-4.4.155", "overlay-multilower", PRESENT, ""),
    ("x86_64-3.10.105", "o-tmpfile", ABSENT, "EISDIR"),
    ("x86_64-3.19.8", "o-tmpfile", PRESENT, ""),
    ("x86_64-3.10.105", "memfd", ABSENT, "ENOSYS"),
    ("x86_64-3.19.8", "memfd", PRESENT, ""),
    ("x86_64-3.19.8", "getrandom", PRESENT, "EAGAIN"),
    ("x86_64-3.19.8", "entropy", UNUSABLE, "not seeded"),
    ("x86_64-3.19.8", "ambient-caps", ABSENT, ""),
    ("x86_64-4.4.155", "ambient-caps", PRESENT, ""),
    # nf_tables answers on 3.19, but nft does not get through
    ("x86_64-3.10.105", "nf-tables", ABSENT, "EINVAL"),
    ("x86_64-3.19.8", "nf-tables", UNUSABLE, "refused"),
    ("x86_64-4.4.155", "nf-tables", PRESENT, ""),
    ("x86_64-3.0.1", "packet-filter", PRESENT, "iptables-legacy"),
    ("x86_64-3.10.105", "ipvlan", ABSENT, "EOPNOTSUPP"),
    ("x86_64-3.19.8", "ipvlan", PRESENT, "EINVAL"),
    ("x86_64-3.0.1", "veth", PRESENT, ""),
    # close_range exists in 5.10, its flag does not
    ("x86_64-5.10.0-32-cloud-amd64-v2", "close-range", PRESENT, ""),
    ("x86_64-5.10.0-32-cloud-amd64-v2", "close-range-cloexec", ABSENT, "EINVAL"),
    ("x86_64-5.10.0-32-cloud-amd64-v2", "mount-setattr", ABSENT, "ENOSYS"),
    ("x86_64-6.1.0-50-cloud-amd64-v2", "mount-setattr", PRESENT, "EINVAL"),
    ("x86_64-6.1.0-50-cloud-amd64-v2", "idmapped-mounts", PRESENT, ""),
    ("x86_64-4.19.72-v1", "pidfd", ABSENT, "ENOSYS"),
    ("x86_64-5.10.0-32-cloud-amd64-v2", "pidfd", PRESENT, ""),
    ("x86_64-5.10.0-32-cloud-amd64-v2", "openat2", PRESENT, ""),
    ("x86_64-5.10.0-32-cloud-amd64-v2", "cgroup-kill", ABSENT, ""),
    ("x86_64-6.1.0-50-cloud-amd64-v2", "cgroup-kill", PRESENT, ""),
    ("x86_64-4.4.155", "cgroup-namespace", ABSENT, ""),
    ("x86_64-4.9.115-v1", "cgroup-namespace", PRESENT, ""),
    ("x86_64-4.19.72-v1", "time-namespace", ABSENT, ""),
    ("x86_64-6.1.0-50-cloud-amd64-v2", "time-namespace", PRESENT, ""),
    # controllers
    ("x86_64-3.19.8", "cgroup-pids", ABSENT, "/proc/cgroups"),
    ("x86_64-4.4.155", "cgroup-pids", PRESENT, ""),
    ("x86_64-3.4.111", "cgroup-hugetlb", ABSENT, ""),
    ("x86_64-3.0.1", "cgroup-net_prio", ABSENT, ""),
    ("x86_64-4.9.115-v2", "cgroup-cpu", ABSENT, "cgroup.controllers"),
    ("x86_64-4.9.115-v2", "cgroup-memory", PRESENT, ""),
    ("x86_64-4.9.115-v2", "cgroup-blkio", PRESENT, ""),
    ("x86_64-4.9.115-v2", "cgroup-devices", ABSENT, "EINVAL"),
    ("x86_64-4.19.72-v2", "cgroup-devices", PRESENT, ""),
    ("x86_64-4.19.72-v2", "cgroup-freezer", ABSENT, ""),
    ("x86_64-5.10.0-32-cloud-amd64-v2", "cgroup-freezer", PRESENT, ""),
    ("x86_64-4.19.72-v2", "cgroup-cpuset", ABSENT, ""),
    ("x86_64-6.12.117+deb13-cloud-amd64-hybrid", "cgroup-memory", UNUSABLE, "unified"),
    ("x86_64-6.18.44-host-v2view", "cgroup-memory", UNUSABLE, "bound to version 1"),
    ("x86_64-6.18.44-host-v2view", "cgroup-hugetlb", PRESENT, ""),
    ("x86_64-6.18.44-host-hybrid", "cgroup-net_cls", UNUSABLE, "no hierarchy"),
    ("x86_64-6.18.44-host-hybrid", "cap-sys-resource", ABSENT, ""),
    ("x86_64-6.1.0-50-cloud-amd64-v2", "apparmor", PRESENT, ""),
    ("x86_64-6.18.44-host-hybrid", "apparmor", ABSENT, ""),
    ("aarch64-6.1.0-50", "close-range-cloexec", PRESENT, ""),
]


@pytest.mark.parametrize(("name", "feature", "state", "why"), KEY)
def test_feature_is_what_was_seen(
    kernels: Path, name: str, feature: str, state: State, why: str
) -> None:
    found = load(kernels, name).get(feature)
    assert found.state is state, found.why
    assert why in found.why


def test_no_probe_looks_at_the_release(kernels: Path) -> None:
    source = kernel.Saved(str(kernels / "x86_64-3.4.111-v1"))
    before = [feature.state for feature in kernel.probe(source).all()]

    class Renamed(kernel.Saved):
        def read(self, path: str) -> str | None:
            return "99.9\n" if path.endswith("osrelease") else super().read(path)

    after = [feature.state for feature in kernel.probe(Renamed(source.root)).all()]
    assert before == after


def test_degraded_lists_only_what_a_user_misses(kernels: Path) -> None:
    degraded = load(kernels, "x86_64-3.10.105").degraded()
    assert [item.name for item in degraded] == [
        "cgroup-namespace",
        "cgroup-pids",
        "overlay",
        "overlay-multilower",
    ]
    assert all(item.need is not Need.OPTIONAL and item.without for item in degraded)


EARLIER = {
    "time64": "words of 64 bits have it from the start",
    "o-path-fchdir": "backported to 3.4",
    "seccomp-spec-allow": "backported to 4.4 and 4.9",
}
"""Features that a kernel older than ``since`` has, and why."""


@pytest.mark.parametrize("seen", SEEN, ids=lambda seen: seen.directory)
def test_no_feature_is_there_before_its_release(kernels: Path, seen: Seen) -> None:
    features = kernel.probe(kernel.Saved(str(kernels / seen.directory)))
    release = numbers(features.release())
    early = {
        item.name
        for item in features.all()
        if item.state is PRESENT and item.since[0].isdigit() and numbers(item.since) > release
    }
    assert early <= set(EARLIER)


def numbers(text: str) -> list[int]:
    """Major and minor number of a release."""
    return [int(part) for part in re.findall(r"\d+", text)[:2]]
