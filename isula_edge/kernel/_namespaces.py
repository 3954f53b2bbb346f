"""Probes of namespaces, and of what can be done with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isula_edge.kernel._storage import calls
from isula_edge.kernel.finding import (
    Finding,
    State,
    absent,
    from_answer,
    present,
    unknown,
    unusable,
)
from isula_edge.kernel.source import CAP_SYS_ADMIN, has_cap

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from isula_edge.kernel.source import Source

__all__ = ["PROBES"]


def _namespace(name: str) -> Callable[[Source], Finding]:
    def probe(source: Source) -> Finding:
        limit = source.read(f"/proc/sys/user/max_{name}_namespaces")
        if limit is not None and limit.strip() == "0":
            return unusable(f"/proc/sys/user/max_{name}_namespaces is 0")
        # The link is the cheap evidence.  Before 3.8 there is none for mnt and pid, and
        # unshare(2) of pid is EINVAL although clone(2) makes one: only clone tells.
        if source.exists(f"/proc/self/ns/{name}"):
            return present(f"/proc/self/ns/{name} is there")
        if name in ("cgroup", "time"):
            return absent(f"no /proc/self/ns/{name}")
        return _by_clone(source, name)

    return probe


def _by_clone(source: Source, name: str) -> Finding:
    return from_answer(
        f"clone(2) of a {name} namespace",
        source.call(f"clone.{name}"),
        ("EINVAL",),
        privileged=has_cap(source, CAP_SYS_ADMIN),
    )


def _user(source: Source) -> Finding:
    limit = source.read("/proc/sys/user/max_user_namespaces")
    if limit is not None and limit.strip() == "0":
        return unusable("/proc/sys/user/max_user_namespaces is 0")
    if not source.exists("/proc/self/uid_map"):
        if source.exists("/proc/self/ns/user"):
            return unknown("/proc/self/ns/user is there, /proc/self/uid_map was not seen")
        cloned = _by_clone(source, "user")
        if cloned.state is State.PRESENT:
            return unusable("clone(2) makes one, but there is no /proc/self/uid_map to fill it")
        return cloned
    answer = source.call("clone.user")
    if answer is None:
        return present("/proc/self/uid_map is there")
    if answer.errname in ("ENOSPC", "EUSERS"):
        return unusable(f"clone(2) answers {answer.text}: a limit of user namespaces is reached")
    return from_answer("clone(2) of a user namespace", answer, ("EINVAL",))


_KNOBS = (
    ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
)
"""Files of Debian's and Ubuntu's kernels, and what they say when it is forbidden."""


def _userns_unprivileged(source: Source) -> Finding:
    base = _user(source)
    if base.state is not State.PRESENT:
        return Finding(base.state, f"no user namespaces: {base.why}")
    for path, forbidden in _KNOBS:
        if (source.read(path) or "").strip() == forbidden:
            return unusable(f"{path} is {forbidden}")
    return from_answer(
        "unshare(2) of a user namespace by nobody", source.call("unshare.unpriv_user"), ("EINVAL",)
    )


def _userns_limits(source: Source) -> Finding:
    path = "/proc/sys/user/max_user_namespaces"
    limit = source.read(path)
    return absent(f"no {path}") if limit is None else present(f"{path} is {limit.strip()}")


def _join(source: Source) -> Finding:
    lacking = [
        name for name in ("mnt", "pid", "net") if source.link(f"/proc/self/ns/{name}") is None
    ]
    if not lacking:
        return present("/proc/PID/ns has links of mnt, pid and net")
    return absent(f"/proc/PID/ns has no link of {', '.join(lacking)}")


def _unshare_pid(source: Source) -> Finding:
    answer = source.call("unshare.pid")
    if answer is not None:
        return from_answer(
            "unshare(2) of a pid namespace",
            answer,
            ("EINVAL",),
            privileged=has_cap(source, CAP_SYS_ADMIN),
        )
    # not asked: it came with the link (both 3.8)
    if source.exists("/proc/self/ns/pid"):
        return present("/proc/self/ns/pid is there, which came with it")
    return absent("no /proc/self/ns/pid, which came with it")


PROBES: Mapping[str, Callable[[Source], Finding]] = {
    **{f"{name}-namespace": _namespace(name) for name in ("mnt", "pid", "uts", "ipc", "net")},
    "user-namespace": _user,
    "userns-unprivileged": _userns_unprivileged,
    "userns-limits": _userns_limits,
    "cgroup-namespace": _namespace("cgroup"),
    "time-namespace": _namespace("time"),
    "join-namespaces": _join,
    "pidfd-setns": calls("setns(2) by a pidfd", "syscalls.setns_pidfd", "EINVAL", admin=True),
    "unshare-pid": _unshare_pid,
}
