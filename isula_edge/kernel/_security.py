"""Probes of what confines a container's processes, and of the engine's own rights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isula_edge.kernel._storage import calls, filesystems
from isula_edge.kernel.finding import (
    Finding,
    State,
    absent,
    from_answer,
    present,
    unknown,
    unusable,
)
from isula_edge.kernel.source import CAP_NET_ADMIN, CAP_SYS_ADMIN, has_cap

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from isula_edge.kernel.source import Source

__all__ = ["PROBES"]

_CAP_SYS_RESOURCE = 24
_CAP_SYS_TIME = 25

_filter = calls("prctl(PR_SET_SECCOMP, FILTER, NULL)", "seccomp.prctl_mode_filter_null", "EINVAL")


def _action(name: str, since_filter: bool) -> Callable[[Source], Finding]:
    """An action of a seccomp filter.

    Linux before 4.14 cannot be asked (EINVAL to GET_ACTION_AVAIL): there, an action is
    taken as present only when it is as old as the filter itself.
    """

    def probe(source: Source) -> Finding:
        base = _filter(source)
        if base.state is not State.PRESENT:
            return Finding(base.state, f"no seccomp filter: {base.why}")
        answer = source.call(f"seccomp.action_{name}")
        if answer is not None and answer.errname not in ("EINVAL", "ENOSYS"):
            return from_answer(f"GET_ACTION_AVAIL of {name}", answer, ("EOPNOTSUPP",))
        asked = "was not asked" if answer is None else f"answers {answer.text}"
        if since_filter:
            return present(f"as old as the filter (GET_ACTION_AVAIL {asked})")
        if answer is None:
            return unknown(f"GET_ACTION_AVAIL {asked}")
        return absent(f"GET_ACTION_AVAIL {asked}: older than the question, and so than {name}")

    return probe


def _apparmor(source: Source) -> Finding:
    enabled = (source.read("/sys/module/apparmor/parameters/enabled") or "").strip()
    if enabled == "Y":
        lsm = source.read("/sys/kernel/security/lsm")
        if lsm is not None and "apparmor" not in lsm.split(","):
            return unusable(f"compiled in, but not one of the active modules: {lsm}")
        return present("/sys/module/apparmor/parameters/enabled is Y")
    if enabled:
        return unusable(f"/sys/module/apparmor/parameters/enabled is {enabled}")
    return absent("no /sys/module/apparmor")


def _selinux(source: Source) -> Finding:
    mode = source.read("/sys/fs/selinux/enforce")
    if mode is not None:
        return present("enforcing" if mode.strip() == "1" else "permissive")
    if "selinuxfs" in (filesystems(source) or []):
        return unusable("/proc/filesystems lists selinuxfs, but it is not mounted")
    return absent("/proc/filesystems does not list selinuxfs")


def _flag(what: str, name: str) -> Callable[[Source], Finding]:
    """A flag of seccomp(2): an unknown one is EINVAL before anything else is looked at."""
    return calls(f"seccomp(2) with {what}", f"seccomp.seccomp_{name}", "EINVAL")


def _module(name: str, trace: str) -> Callable[[Source], Finding]:
    """A security module that the engine does not use: in the list of active ones (4.11), or
    by what it leaves elsewhere."""

    def probe(source: Source) -> Finding:
        active = source.read("/sys/kernel/security/lsm")
        if active is not None:
            found = name in active.strip().split(",")
            return (present if found else absent)(
                f"/sys/kernel/security/lsm {'has' if found else 'has no'} {name}"
            )
        if source.exists(trace) or trace in (filesystems(source) or []):
            return present(f"{trace} is there")
        return absent(f"neither /sys/kernel/security/lsm nor {trace} tells of it")

    return probe


def _landlock(source: Source) -> Finding:
    answer = source.call("syscalls.landlock_create_ruleset")
    if answer is not None and answer.errname == "EOPNOTSUPP":
        return unusable("landlock_create_ruleset(2) answers EOPNOTSUPP: switched off at boot")
    if answer is not None and answer.ok:
        return present(f"landlock_create_ruleset(2) tells version {answer.ret}")
    return from_answer("landlock_create_ruleset(2)", answer)


def _file(path: str) -> Callable[[Source], Finding]:
    def probe(source: Source) -> Finding:
        text = source.read(path)
        return absent(f"no {path}") if text is None else present(f"{path} is {text.strip()}")

    return probe


def _capability(name: str, number: int) -> Callable[[Source], Finding]:
    def probe(source: Source) -> Finding:
        if source.read("/proc/self/status") is None:
            return unknown("/proc/self/status was not seen")
        if has_cap(source, number):
            return present(f"{name} is effective")
        if not has_cap(source, CAP_SYS_ADMIN) and not _is_root(source):
            return unknown(f"{name} is not effective: ask as root")
        return absent(f"root's effective set lacks {name}")

    return probe


def _is_root(source: Source) -> bool:
    for line in (source.read("/proc/self/status") or "").splitlines():
        if line.startswith("Uid:"):
            return line.split()[2] == "0"
    return True


PROBES: Mapping[str, Callable[[Source], Finding]] = {
    "no-new-privs": calls("prctl(PR_GET_NO_NEW_PRIVS)", "prctl.get_no_new_privs", "EINVAL"),
    "seccomp-strict": calls("prctl(PR_GET_SECCOMP)", "seccomp.prctl_get_seccomp", "EINVAL"),
    "seccomp-filter": _filter,
    "seccomp-errno": _action("ERRNO", since_filter=True),
    "seccomp-syscall": calls("seccomp(2)", "seccomp.seccomp_filter"),
    "seccomp-tsync": _flag("TSYNC", "tsync"),
    "seccomp-flag-log": _flag("LOG", "log"),
    "seccomp-spec-allow": _flag("SPEC_ALLOW", "spec_allow"),
    "seccomp-new-listener": _flag("NEW_LISTENER", "new_listener"),
    "seccomp-tsync-esrch": _flag("TSYNC_ESRCH", "tsync_esrch"),
    "seccomp-wait-killable": _flag("WAIT_KILLABLE_RECV", "wait_killable_recv"),
    "seccomp-kill-process": _action("KILL_PROCESS", since_filter=False),
    "seccomp-log": _action("LOG", since_filter=False),
    "seccomp-notify": _action("USER_NOTIF", since_filter=False),
    "ambient-caps": calls("prctl(PR_CAP_AMBIENT)", "prctl.cap_ambient", "EINVAL"),
    "keyrings": calls("add_key(2)", "syscalls.add_key"),
    "apparmor": _apparmor,
    "selinux": _selinux,
    "smack": _module("smack", "smackfs"),
    "tomoyo": _module("tomoyo", "/sys/kernel/security/tomoyo"),
    "landlock": _landlock,
    "yama": _file("/proc/sys/kernel/yama/ptrace_scope"),
    "lockdown": _file("/sys/kernel/security/lockdown"),
    "cap-sys-admin": _capability("CAP_SYS_ADMIN", CAP_SYS_ADMIN),
    "cap-net-admin": _capability("CAP_NET_ADMIN", CAP_NET_ADMIN),
    "cap-sys-resource": _capability("CAP_SYS_RESOURCE", _CAP_SYS_RESOURCE),
    "cap-sys-time": _capability("CAP_SYS_TIME", _CAP_SYS_TIME),
}
