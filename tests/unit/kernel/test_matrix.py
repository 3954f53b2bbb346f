"""Every booted kernel: what a cheap question concludes, against what was really done there.

The captures hold the answers of about 270 calls.  Where one of them did the thing itself
(set a filter, made a namespace, mounted), the feature has to agree with it.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from isula_edge import kernel
from isula_edge.kernel import State
from tests.unit.kernel.test_booted_kernels import SEEN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Answer = dict[str, int | str]


def done(answer: Answer) -> bool:
    """The call succeeded."""
    return answer["errname"] == ""


def known(answer: Answer) -> bool:
    """The kernel has the call, whatever it said to bad arguments."""
    return answer["errname"] != "ENOSYS"


def kind(answer: Answer) -> bool:
    """The kernel has this kind of link."""
    return answer["errname"] != "EOPNOTSUPP"


def seeded(answer: Answer) -> bool:
    """Random numbers came at once; old kernels have no such call and do not wait."""
    return answer["errname"] != "EAGAIN"


MATRIX: dict[str, tuple[str, Callable[[Answer], bool]]] = {
    "mnt-namespace": ("clone.mnt", done),
    "pid-namespace": ("clone.pid", done),
    "uts-namespace": ("clone.uts", done),
    "ipc-namespace": ("clone.ipc", done),
    "net-namespace": ("clone.net", done),
    "user-namespace": ("unshare.user_map_self", done),
    "userns-unprivileged": ("unshare.unpriv_user_mnt", done),
    "cgroup-namespace": ("unshare.cgroup", done),
    "time-namespace": ("unshare.time_offsets", done),
    "unshare-pid": ("unshare.pid", done),
    "pidfd-setns": ("syscalls.setns_pidfd", done),
    "overlay": ("mount.overlay_write_unlink_rename", lambda a: a["errname"] != "ENODEV"),
    "overlayfs-name": ("mount.overlayfs_old_name", done),
    "overlay-multilower": ("mount.overlay_lower_only", done),
    "overlay-volatile": ("mount.overlay_volatile", done),
    "overlay-userns": ("mount.overlay_userns_userxattr", done),
    "tmpfs": ("mount.tmpfs", done),
    "tmpfs-user-xattr": ("mount.tmpfs_xattr_user", done),
    "devpts": ("mount.devpts", done),
    "mqueue": ("mount.mqueue", done),
    "o-tmpfile": ("syscalls.open_O_TMPFILE_root", done),
    "renameat2": ("syscalls.renameat2_noreplace", done),
    "copy-file-range": ("syscalls.copy_file_range", done),
    "openat2": ("syscalls.openat2", done),
    "statx": ("syscalls.statx", done),
    "new-mount-api": ("mount.new_mount_api_tmpfs", done),
    "open-tree": ("mount.open_tree_clone", done),
    "move-mount": ("mount.new_mount_api_tmpfs", done),
    "mount-setattr": ("mount.mount_setattr_recursive_ro", done),
    "idmapped-mounts": ("mount.idmapped_root", done),
    "quotactl-fd": ("syscalls.quotactl_fd", known),
    "loop-control": ("devices.loop_ctl_get_free", done),
    "fuse": ("devices./dev/fuse", done),
    "loadable-modules": ("syscalls.finit_module", known),
    "binfmt-misc": ("mount.binfmt_misc", done),
    "no-new-privs": ("prctl.set_no_new_privs", done),
    "seccomp-strict": ("seccomp.prctl_get_seccomp", done),
    "seccomp-filter": ("seccomp.prctl_mode_filter", done),
    # an action as old as the filter: asking for it came later
    "seccomp-errno": ("seccomp.prctl_mode_filter", done),
    "seccomp-syscall": ("seccomp.seccomp_filter", done),
    "seccomp-tsync": ("seccomp.seccomp_tsync", done),
    "seccomp-flag-log": ("seccomp.seccomp_log", done),
    "seccomp-spec-allow": ("seccomp.seccomp_spec_allow", done),
    "seccomp-new-listener": ("seccomp.seccomp_new_listener", done),
    "seccomp-tsync-esrch": ("seccomp.seccomp_tsync_esrch", done),
    "seccomp-wait-killable": ("seccomp.seccomp_wait_killable_recv", done),
    "seccomp-kill-process": ("seccomp.action_KILL_PROCESS", done),
    "seccomp-log": ("seccomp.action_LOG", done),
    "seccomp-notify": ("seccomp.get_notif_sizes", done),
    "ambient-caps": ("prctl.cap_ambient", done),
    "keyrings": ("syscalls.keyctl_join_session_keyring", done),
    "landlock": ("syscalls.landlock_create_ruleset", done),
    "child-subreaper": ("prctl.set_child_subreaper", done),
    "inotify": ("syscalls.inotify_init1", done),
    "pidfd": ("syscalls.clone_pidfd", done),
    "pidfd-send-signal": ("syscalls.pidfd_send_signal", done),
    "pidfd-getfd": ("syscalls.pidfd_getfd", done),
    "pidfd-wait": ("syscalls.waitid_P_PIDFD", done),
    "clone3": ("syscalls.clone3", done),
    "close-range": ("syscalls.close_range", done),
    "close-range-cloexec": ("syscalls.close_range_cloexec", done),
    "memfd": ("syscalls.memfd_create_sealing", done),
    "memfd-exec": ("syscalls.memfd_create_exec", done),
    "execveat": ("syscalls.execveat", known),
    "getrandom": ("syscalls.getrandom", known),
    "entropy": ("syscalls.getrandom", seeded),
    "veth": ("net.link_veth", kind),
    "bridge": ("net.link_bridge", kind),
    "macvlan": ("net.link_macvlan", kind),
    "ipvlan": ("net.link_ipvlan", kind),
    "vlan": ("net.link_vlan", kind),
    "vxlan": ("net.link_vxlan", kind),
    "dummy": ("net.link_dummy", kind),
    "tun": ("devices./dev/net/tun", done),
    "nf-tables": ("net.nft_getgen", done),
    "iptables-legacy": ("net.ipt_nat", done),
    "packet-filter": ("net.xt_target_MASQUERADE", done),
    "ip6tables-legacy": ("net.ip6t_nat", done),
    "ipv6": ("net.af_inet6", done),
    "kvm": ("devices./dev/kvm", done),
    "vhost-vsock": ("devices./dev/vhost-vsock", done),
}

DIFFERENT = {
    # answers, and lets no rule of today's nft through: so it was seen
    ("x86_64-3.19.8-v1", "nf-tables"),
}

V2 = {
    "cgroup-devices": ("bpf.prog_cgroup_device", done),
}

NOT_ASKED = {
    "userns-limits": "a file",
    "join-namespaces": "links in /proc/self/ns",
    "psi": "a file",
    "o-path-fchdir": "not in the matrix; seen in LXC's pivot_root",
    "tiocgptpeer": "not in the matrix; seen in LXC's console",
    "project-quota": "not in the matrix",
    "rtc": "a device node",
    "time64": "the word size",
    "page-size-4k": "the page size",
    "br-netfilter": "a file",
    **dict.fromkeys(("apparmor", "selinux", "smack", "tomoyo", "yama", "lockdown"), "files"),
}


def answers(kernels: Path, directory: str) -> dict[str, dict[str, Answer]]:
    found: dict[str, dict[str, Answer]] = json.loads(
        (kernels / directory / "syscalls.json").read_text()
    )
    return found


def test_every_feature_is_compared_or_it_is_said_why_not() -> None:
    elsewhere = {name for name in kernel.NAMES if name.startswith(("cgroup-", "cap-"))}
    elsewhere -= set(MATRIX)
    assert set(MATRIX) | set(NOT_ASKED) | elsewhere == set(kernel.NAMES)
    assert not set(MATRIX) & set(NOT_ASKED)


@pytest.mark.parametrize("directory", [seen.directory for seen in SEEN])
def test_features_agree_with_what_was_done(kernels: Path, directory: str) -> None:
    features = kernel.probe(kernel.Saved(str(kernels / directory)))
    given = answers(kernels, directory)
    table = {**MATRIX, **(V2 if features.cgroups().version == "v2" else {})}
    for feature, (call, judge) in table.items():
        group, _, name = call.partition(".")
        expected = judge(given[group][name])
        if (directory, feature) in DIFFERENT:
            expected = not expected
        found = features.get(feature)
        assert found.state is not State.UNKNOWN, (feature, found.why)
        assert features.usable(feature) is expected, (feature, given[group][name], found.why)


@pytest.mark.parametrize("directory", [seen.directory for seen in SEEN])
def test_the_capture_is_whole(kernels: Path, directory: str) -> None:
    given = answers(kernels, directory)
    assert sum(len(calls) for calls in given.values()) >= 250
    assert set(given) >= {"syscalls", "seccomp", "prctl", "unshare", "clone", "mount", "net"}
    for name in ("proc/self/mountinfo", "proc/self/status", "proc/cgroups", "proc/filesystems"):
        assert (kernels / directory / name).read_text()


def test_both_architectures_and_every_layout_are_there(kernels: Path) -> None:
    words = [name.split("-") for name in os.listdir(kernels)]
    assert len(words) == 24
    assert {word[0] for word in words} == {"x86_64", "aarch64"}
    assert {word[-1] for word in words} == {"v1", "hybrid", "v2", "v2view"}
    for arch in ("x86_64", "aarch64"):
        assert {word[-1] for word in words if word[0] == arch} >= {"hybrid", "v2"}


CONTROLLERS = (
    "cpu cpuacct cpuset memory pids devices freezer blkio hugetlb net_cls net_prio perf_event "
    "rdma misc"
).split()


@pytest.mark.parametrize("directory", [seen.directory for seen in SEEN])
def test_controllers_are_those_of_the_kernel(kernels: Path, directory: str) -> None:
    """On version 1 a controller is usable where /proc/cgroups binds it to a hierarchy."""
    source = kernel.Saved(str(kernels / directory))
    features = kernel.probe(source)
    rows = {}
    for line in (source.read("/proc/cgroups") or "").splitlines():
        if not line.startswith("#"):
            name, hierarchy, _, enabled = line.split()
            rows[name] = hierarchy != "0" and enabled == "1"
    if features.cgroups().version != "v2":
        usable = {name: rows.get(name, False) for name in CONTROLLERS}
    else:
        top = features.cgroups().unified
        offered = (source.read(f"{top}/cgroup.controllers") or "").replace("io", "blkio").split()
        plain = [name for name in CONTROLLERS if name in _ONLY_BY_NAME]
        usable = {name: name in offered for name in plain}
        usable.update(net_cls=False, net_prio=False)
    found = {name: features.usable(f"cgroup-{name}") for name in usable}
    assert found == usable


_ONLY_BY_NAME = ("cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "rdma", "misc")
