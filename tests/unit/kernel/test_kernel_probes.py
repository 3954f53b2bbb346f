"""How single answers are read: the traps, denials, and what could not be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from isula_edge import errors, kernel
from isula_edge.kernel import State

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.kernel.conftest import Made

PRESENT, ABSENT = State.PRESENT, State.ABSENT
UNUSABLE, UNKNOWN = State.UNUSABLE, State.UNKNOWN

ROOT = "Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n"
USER = "Uid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000000000\n"
BARE_ROOT = "Uid:\t0\t0\t0\t0\nCapEff:\t0000000000000000\n"
STATUS = "/proc/self/status"

ANSWERS = [
    ("pidfd", "syscalls.pidfd_open", "", PRESENT),
    ("pidfd", "syscalls.pidfd_open", "ENOSYS", ABSENT),
    ("pidfd", "syscalls.pidfd_open", "EPERM", UNUSABLE),
    ("openat2", "syscalls.openat2", "EPERM", UNUSABLE),
    ("pidfd-wait", "syscalls.waitid_P_PIDFD", "EBADF", PRESENT),
    ("pidfd-wait", "syscalls.waitid_P_PIDFD", "EINVAL", ABSENT),
    ("clone3", "syscalls.clone3_null", "EINVAL", PRESENT),
    ("close-range-cloexec", "syscalls.close_range_cloexec", "EINVAL", ABSENT),
    ("memfd", "syscalls.memfd_create", "EFAULT", PRESENT),
    ("getrandom", "syscalls.getrandom", "EAGAIN", PRESENT),
    ("entropy", "syscalls.getrandom", "EAGAIN", UNUSABLE),
    ("entropy", "syscalls.getrandom", "", PRESENT),
    ("seccomp-filter", "seccomp.prctl_mode_filter_null", "EFAULT", PRESENT),
    ("seccomp-filter", "seccomp.prctl_mode_filter_null", "EINVAL", ABSENT),
    ("overlay", "mount.overlay", "ENODEV", ABSENT),
    ("overlay", "mount.overlay", "ENOENT", PRESENT),
    ("overlay", "mount.overlay", "EPERM", UNUSABLE),
    ("o-tmpfile", "syscalls.open_O_TMPFILE", "EISDIR", ABSENT),
    ("o-path-fchdir", "syscalls.fchdir_o_path", "EBADF", ABSENT),
    ("mount-setattr", "mount.mount_setattr_bad", "EBADF", PRESENT),
    ("mount-setattr", "mount.mount_setattr_bad", "EPERM", UNUSABLE),
    ("idmapped-mounts", "mount.idmapped_root", "EBADF", PRESENT),
    ("idmapped-mounts", "mount.idmapped_root", "EINVAL", ABSENT),
    ("idmapped-mounts", "mount.idmapped_root", "EPERM", UNUSABLE),
    ("project-quota", "syscalls.quotactl_project", "ENOENT", PRESENT),
    ("project-quota", "syscalls.quotactl_project", "EINVAL", ABSENT),
    ("veth", "net.link_veth", "EADDRNOTAVAIL", PRESENT),
    ("macvlan", "net.link_macvlan", "ENODEV", PRESENT),
    ("veth", "net.link_veth", "EOPNOTSUPP", ABSENT),
    ("veth", "net.link_veth", "EPERM", UNUSABLE),
    ("nf-tables", "net.nft_getgen", "EPROTONOSUPPORT", ABSENT),
    ("tiocgptpeer", "ioctl.TIOCGPTPEER", "ENOTTY", ABSENT),
    ("tiocgptpeer", "ioctl.TIOCGPTPEER", "EINVAL", ABSENT),
    ("keyrings", "syscalls.add_key", "EFAULT", PRESENT),
]


@pytest.mark.parametrize(("feature", "call", "answer", "state"), ANSWERS)
def test_answer(made: Made, feature: str, call: str, answer: str, state: State) -> None:
    found = kernel.probe(made({STATUS: ROOT}, {call: answer})).get(feature)
    assert found.state is state, found.why


@pytest.mark.parametrize(
    ("feature", "call"),
    [
        ("new-mount-api", "mount.fsopen_tmpfs"),
        ("idmapped-mounts", "mount.idmapped_root"),
        ("veth", "net.link_veth"),
        ("nf-tables", "net.nft_getgen"),
        ("pid-namespace", "clone.pid"),
    ],
)
def test_eperm_says_nothing_to_an_ordinary_user(made: Made, feature: str, call: str) -> None:
    features = kernel.probe(made({STATUS: USER}, {call: "EPERM"}))
    assert features.state(feature) is UNKNOWN
    assert not features.usable(feature)


def test_overlay_of_an_ordinary_user_is_looked_up(made: Made) -> None:
    calls = {"mount.overlay": "EPERM"}
    listed = {STATUS: USER, "/proc/filesystems": "nodev\toverlay\n"}
    assert kernel.probe(made(listed, calls)).overlay_type() == "overlay"
    other = {STATUS: USER, "/proc/filesystems": "nodev\ttmpfs\n"}
    assert kernel.probe(made(other, calls)).state("overlay") is UNKNOWN


def test_nothing_saved_is_unknown_not_absent(made: Made) -> None:
    features = kernel.probe(made({}))
    assert features.state("pidfd") is UNKNOWN
    assert features.state("overlay") is UNKNOWN
    assert features.state("cap-sys-admin") is UNKNOWN
    assert "pidfd" not in features.verdict().unknown  # optional: nobody has to know


FILES = [
    ("user-namespace", {"/proc/self/uid_map": "0 0 1\n"}, {}, PRESENT),
    ("user-namespace", {"/proc/self/uid_map": "0 0 1\n"}, {"clone.user": "EPERM"}, UNUSABLE),
    ("user-namespace", {"/proc/self/uid_map": "0 0 1\n"}, {"clone.user": "ENOSPC"}, UNUSABLE),
    ("user-namespace", {}, {"clone.user": ""}, UNUSABLE),
    ("user-namespace", {}, {"clone.user": "EINVAL"}, ABSENT),
    ("user-namespace", {"/proc/sys/user/max_user_namespaces": "0\n"}, {}, UNUSABLE),
    ("net-namespace", {"/proc/sys/user/max_net_namespaces": "0\n"}, {}, UNUSABLE),
    ("pid-namespace", {}, {"clone.pid": "", "unshare.pid": "EINVAL"}, PRESENT),
    ("unshare-pid", {}, {"clone.pid": "", "unshare.pid": "EINVAL"}, ABSENT),
    ("unshare-pid", {}, {}, ABSENT),
    ("unshare-pid", {"/proc/self/ns/pid": ""}, {}, PRESENT),
    ("cgroup-namespace", {}, {}, ABSENT),
    # plain files, as on 3.0 and 3.4, are no identity
    (
        "join-namespaces",
        {f"/proc/self/ns/{name}": "" for name in ("mnt", "pid", "net")},
        {},
        ABSENT,
    ),
    ("entropy", {"/proc/sys/kernel/random/entropy_avail": "3\n"}, {}, UNUSABLE),
    ("entropy", {"/proc/sys/kernel/random/entropy_avail": "256\n"}, {}, PRESENT),
    # denied by a filter: as on a kernel without the call
    (
        "entropy",
        {"/proc/sys/kernel/random/entropy_avail": "3\n"},
        {"syscalls.getrandom": "EPERM"},
        UNUSABLE,
    ),
    ("psi", {"/proc/pressure/memory": "some avg10=0.00\n"}, {}, PRESENT),
    ("psi", {"/proc/pressure/memory": ""}, {}, UNUSABLE),
    ("psi", {}, {}, ABSENT),
    ("apparmor", {"/sys/module/apparmor/parameters/enabled": "Y\n"}, {}, PRESENT),
    ("apparmor", {"/sys/module/apparmor/parameters/enabled": "N\n"}, {}, UNUSABLE),
    (
        "apparmor",
        {
            "/sys/module/apparmor/parameters/enabled": "Y\n",
            "/sys/kernel/security/lsm": "capability,selinux\n",
        },
        {},
        UNUSABLE,
    ),
    ("selinux", {"/sys/fs/selinux/enforce": "1"}, {}, PRESENT),
    ("selinux", {"/proc/filesystems": "nodev\tselinuxfs\n"}, {}, UNUSABLE),
    ("selinux", {"/proc/filesystems": "nodev\tproc\n"}, {}, ABSENT),
    ("binfmt-misc", {"/proc/sys/fs/binfmt_misc/register": ""}, {}, PRESENT),
    ("binfmt-misc", {"/proc/filesystems": "nodev\tbinfmt_misc\n"}, {}, PRESENT),
    ("binfmt-misc", {}, {"mount.binfmt_misc": "ENODEV"}, ABSENT),
    ("binfmt-misc", {"/proc/sys/fs/binfmt_misc/x": ""}, {}, PRESENT),
    ("binfmt-misc", {}, {}, ABSENT),
    ("project-quota", {"/proc/sys/fs/quota/syncs": "0"}, {}, UNKNOWN),
    ("project-quota", {}, {}, ABSENT),
    ("ipv6", {"/proc/net/if_inet6": ""}, {}, PRESENT),
    ("ipv6", {"/proc/sys/net/ipv6/conf/all/disable_ipv6": "1\n"}, {}, UNUSABLE),
    ("ipv6", {}, {}, ABSENT),
    ("br-netfilter", {"/proc/sys/net/bridge/bridge-nf-call-iptables": "1"}, {}, PRESENT),
    ("br-netfilter", {}, {}, ABSENT),
    ("iptables-legacy", {"/proc/net/ip_tables_names": "nat\nfilter\n"}, {}, PRESENT),
    ("iptables-legacy", {}, {"net.ipt_nat": "ENOPROTOOPT"}, ABSENT),
    (
        "iptables-legacy",
        {
            "/proc/sys/kernel/osrelease": "6.1.0\n",
            "/lib/modules/6.1.0/modules.dep": "kernel/net/ipv4/netfilter/iptable_nat.ko.xz:\n",
        },
        {},
        PRESENT,
    ),
    (
        "iptables-legacy",
        {"/proc/sys/kernel/osrelease": "6.1.0\n", "/lib/modules/6.1.0/modules.dep": "x.ko:\n"},
        {},
        ABSENT,
    ),
    ("packet-filter", {}, {}, UNKNOWN),
    ("packet-filter", {}, {"net.nft_getgen": "EINVAL"}, ABSENT),
    ("packet-filter", {}, {"net.nft_getgen": "", "net.nft_batch": ""}, PRESENT),
    ("cap-sys-admin", {STATUS: BARE_ROOT}, {}, ABSENT),
    ("cap-sys-admin", {STATUS: USER}, {}, UNKNOWN),
    ("cgroup-hierarchy", {"/proc/filesystems": "nodev\tcgroup\n"}, {}, UNUSABLE),
    ("cgroup-hierarchy", {}, {}, ABSENT),
    ("overlay-multilower", {}, {"mount.overlay": ""}, UNKNOWN),
    ("seccomp-log", {}, {"seccomp.prctl_mode_filter_null": "EFAULT"}, UNKNOWN),
    ("seccomp-errno", {}, {"seccomp.prctl_mode_filter_null": "EFAULT"}, PRESENT),
    ("seccomp-log", {}, {"seccomp.prctl_mode_filter_null": "EINVAL"}, ABSENT),
]


@pytest.mark.parametrize(("feature", "files", "calls", "state"), FILES)
def test_files(
    made: Made, feature: str, files: dict[str, str], calls: dict[str, str], state: State
) -> None:
    found = kernel.probe(made({STATUS: ROOT, **files}, calls)).get(feature)
    assert found.state is state, found.why


def test_unified_files_are_looked_for_in_a_group_that_is_not_the_root(made: Made) -> None:
    top = "/sys/fs/cgroup"
    files = {
        "/proc/self/mountinfo": f"25 16 0:20 / {top} rw - cgroup2 cgroup2 rw\n",
        "/proc/self/cgroup": "0::/system.slice/isulad.service\n",
        f"{top}/cgroup.controllers": "cpu memory\n",
        f"{top}/cgroup.subtree_control": "memory\n",
        f"{top}/zzz/cgroup.procs": "",
    }
    alone = kernel.probe(made(files))
    assert alone.state("cgroup-freezer") is ABSENT
    assert alone.state("cgroup-cpu") is PRESENT
    assert alone.state("cgroup-cpu-quota") is UNKNOWN
    group = f"{top}/system.slice/isulad.service"
    more = {f"{group}/{name}": "" for name in ("cgroup.procs", "cgroup.freeze", "cpu.max")}
    features = kernel.probe(made({**files, **more}))
    assert features.state("cgroup-freezer") is PRESENT
    assert features.state("cgroup-memory-swap") is ABSENT
    assert features.state("cgroup-cpu-rt") is ABSENT
    nothing = {name: text for name, text in files.items() if "zzz" not in name}
    assert kernel.probe(made(nothing)).state("cgroup-freezer") is UNKNOWN


def test_unknown_names(made: Made) -> None:
    features = kernel.probe(made({}))
    with pytest.raises(errors.NotFound, match="no kernel feature teleport"):
        features.get("teleport")
    with pytest.raises(errors.NotFound, match="runtime kata9"):
        features.runtime_lacks("kata9")


def test_saved_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(errors.NotFound, match="holds no saved kernel"):
        kernel.Saved(str(tmp_path))
    for text in ("[1]", "{", '{"syscalls": {"x": {}}}', '{"syscalls": {"x": 1}}'):
        (tmp_path / "syscalls.json").write_text(text)
        with pytest.raises(errors.DataLoss, match="not a record of system calls"):
            kernel.Saved(str(tmp_path))
