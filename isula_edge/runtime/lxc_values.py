"""Values of a runtime-spec document that the lxc driver cannot give to a container.

:mod:`isula_edge.runtime.lxc_fields` has seen before that every field is known and of its type.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.runtime.lxc_mounts import BIND_FLAGS, clean, is_bind, is_shared
from isula_edge.runtime.lxc_user import IO_CLASSES, SCHEDULER_FLAGS, SCHEDULER_POLICIES
from isula_edge.sys import capability, lsm

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["bad", "check", "check_text", "unserved"]

_KINDS_OF_NAMESPACES = (
    "pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time",
)  # fmt: skip
_RLIMITS = (
    "AS CORE CPU DATA FSIZE LOCKS MEMLOCK MSGQUEUE NICE NOFILE NPROC RSS RTPRIO RTTIME "
    "SIGPENDING STACK"
).split()
_PROPAGATION = {
    "private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable",
}  # fmt: skip
_CLEARING = {"rw", "suid", "dev", "exec", "atime", "diratime", "norelatime", "nostrictatime",
             "async", "nomand", "defaults"}  # fmt: skip
_KNOWN_FLAGS = {*BIND_FLAGS, *_CLEARING, "ro", "bind", "rbind"}
_UNSERVED_OPTIONS = {
    "idmap", "ridmap", "iversion", "loud", "noiversion", "nolazytime", "nosymfollow", "remount",
    "silent", "symfollow", "tmpcopyup",
    *(f"r{name}" for name in (
        "atime", "dev", "diratime", "exec", "noatime", "nodev", "nodiratime", "noexec",
        "norelatime", "nostrictatime", "nosuid", "nosymfollow", "relatime", "ro", "rw",
        "strictatime", "suid", "symfollow",
    )),
}  # fmt: skip
_WORDS_OF_LXC = re.compile("optional|relative|create=.*|idmap=.*", re.DOTALL)
_DEVPTS = {"nosuid", "noexec", "rw", "newinstance", "ptmxmode=0666", "ptmxmode=666", "mode=0620",
           "mode=620", "gid=5"}  # fmt: skip
_CGROUP = {"nosuid", "noexec", "nodev", "relatime", "ro", "rw"}
_UNIFIED = re.compile(r"[a-z]+(\.[A-Za-z0-9_]+)+")
_PAGE_SIZE = re.compile(r"[0-9]{1,9}[KMG]B")
_CPUS = re.compile(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*")
_VERSION_1_ONLY = {
    "memory": ("kernel", "kernelTCP", "swappiness", "disableOOMKiller"),
    "cpu": ("realtimeRuntime", "realtimePeriod"),
    "blockIO": ("leafWeight", "weightDevice"),
    "network": ("classID", "priorities"),
}
_ROOT_PROPAGATION = ("private", "slave", "shared", "unbindable")
_MAX_HOSTNAME = 64
_LONGEST_STRING = 32 * os.sysconf("SC_PAGE_SIZE")
"""MAX_ARG_STRLEN, with the final NUL."""


def bad(place: str, why: str) -> errors.InvalidArgument:
    """The error for a value that no document can have."""
    return errors.InvalidArgument(f"{place}: {why}", kind="spec", ref=place)


def unserved(place: str, why: str = "") -> errors.Unimplemented:
    """The error for what the runtime-spec has and this driver has not."""
    return errors.Unimplemented(
        f"runtime lxc cannot do {place}{f': {why}' if why else ''}",
        kind="spec",
        ref=place,
        hint="use --runtime runc",
    )


def check_text(place: str, text: str) -> None:
    """Refuses what no string of the kernel can hold."""
    if "\0" in text:
        raise bad(place, f"{text!r:.80} has a NUL")
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise bad(place, f"{text!r:.80} is no text") from None


def check(spec: Mapping[str, Any], version: str) -> None:
    """Refuses the first value that would not be what the container gets."""
    linux, process = spec.get("linux") or {}, spec.get("process") or {}
    if spec.get("ociVersion") and not re.match(r"1\.[0-9]", spec["ociVersion"]):
        raise unserved("ociVersion", f"it is {spec['ociVersion']}, not 1")
    if not str((spec.get("root") or {}).get("path", "/")).startswith("/"):
        raise bad("root.path", "it is not absolute")
    _names(spec, linux)
    _namespaces(linux)
    for number, mount in enumerate(spec.get("mounts") or ()):
        _mount(f"mounts[{number}]", mount)
    if process:
        _strings(process)
        _process(process)
        _labels(process)
        _priorities(process)
    _devices(linux)
    _resources(linux.get("resources") or {}, version)
    _paths(linux)
    _seccomp(linux.get("seccomp") or {})
    for kind, listed in (spec.get("hooks") or {}).items():
        for number, hook in enumerate(listed or ()):
            _hook(f"hooks.{kind}[{number}]", hook)


def _one_of(place: str, value: Any, words: Iterable[str]) -> None:
    if value not in words:
        raise bad(place, f"{value!r:.80} is none of {', '.join(sorted(words))}")


def _absolute(place: str, path: str) -> None:
    if not path.startswith("/"):
        raise bad(place, f"{path!r:.80} is not absolute")


def _names(spec: Mapping[str, Any], linux: Mapping[str, Any]) -> None:
    own = any(
        entry.get("type") == "uts" and not entry.get("path")
        for entry in linux.get("namespaces") or ()
    )
    for key in ("hostname", "domainname"):
        text = spec.get(key) or ""
        if text and not own:
            raise unserved(key, "there is no new uts namespace to have it")
        if len(text.encode("utf-8", "surrogateescape")) > _MAX_HOSTNAME:
            raise bad(key, f"it is longer than {_MAX_HOSTNAME} bytes")
        if "\n" in text:
            raise bad(key, "it has a line break")


def _namespaces(linux: Mapping[str, Any]) -> None:
    found: dict[str, str] = {}
    for number, entry in enumerate(linux.get("namespaces") or ()):
        place, kind, path = f"linux.namespaces[{number}]", entry.get("type"), entry.get("path")
        _one_of(f"{place}.type", kind, _KINDS_OF_NAMESPACES)
        if kind in found:
            raise bad(place, f"there are two {kind} namespaces")
        if path:
            _absolute(f"{place}.path", path)
            if kind in ("mount", "time"):
                raise unserved(f"{place}.path", f"joining a {kind} namespace")
        found[kind] = path or ""
    _clocks(linux, found)
    personality = linux.get("personality")
    if personality:
        _one_of("linux.personality.domain", personality.get("domain"), ("LINUX", "LINUX32"))
    propagation = linux.get("rootfsPropagation")
    if propagation:
        _one_of("linux.rootfsPropagation", propagation, _ROOT_PROPAGATION)
        if propagation in ("private", "unbindable"):
            why = f"LXC's root is never {propagation}: it begins a peer group of its own"
            raise unserved("linux.rootfsPropagation", why)


def _clocks(linux: Mapping[str, Any], found: Mapping[str, str]) -> None:
    for clock, offset in (linux.get("timeOffsets") or {}).items():
        place = f"linux.timeOffsets.{clock}"
        _one_of(place, clock, ("boottime", "monotonic"))
        if found.get("time") is None:
            raise unserved(place, "there is no new time namespace to have it")
        if offset.get("secs") and offset.get("nanosecs"):
            raise unserved(place, "LXC takes either secs or nanosecs")
    for key in ("uidMappings", "gidMappings"):
        for number, entry in enumerate(linux.get(key) or ()):
            for name in ("containerID", "hostID", "size"):
                if not 0 <= entry.get(name, -1) < 2**32:
                    raise bad(f"linux.{key}[{number}].{name}", "it is no id")


def _mount(place: str, mount: Mapping[str, Any]) -> None:
    if not mount.get("destination"):
        raise bad(f"{place}.destination", "there is none")
    target, kind = clean(mount["destination"]), mount.get("type") or ""
    if target == "/":
        raise unserved(f"{place}.destination", "a mount over the root")
    for option in mount.get("options") or ():
        where = f"{place}.options"
        if not option or "," in option or _WORDS_OF_LXC.fullmatch(option):
            raise bad(where, f"{option!r:.80} is no option that can be given to a mount")
        if option in _UNSERVED_OPTIONS:
            raise unserved(where, f"{option} of the mount on {target}")
        if not _heeded(mount, target, kind, option):
            raise unserved(where, f"{option} has no effect on the mount on {target}")
    if is_bind(mount):
        _absolute(f"{place}.source", mount.get("source") or "")


def _heeded(mount: Mapping[str, Any], target: str, kind: str, option: str) -> bool:
    """Whether a mount has this option if it is asked for it."""
    if is_bind(mount):
        if is_shared(mount):
            return option in _PROPAGATION or option in ("ro", "rw", "bind", "rbind", *BIND_FLAGS)
        return option in _KNOWN_FLAGS or option in _PROPAGATION
    if (target, kind) == ("/dev", "tmpfs"):
        # LXC writes to it, and makes devices there, once it is mounted
        return option not in ("ro", "nodev")
    if (target, kind) == ("/dev/pts", "devpts"):
        return option in _DEVPTS
    if target == "/sys/fs/cgroup" and kind in ("cgroup", "cgroup2"):
        return option in _CGROUP
    return True


def _strings(process: Mapping[str, Any]) -> None:
    if "args" in process and not process["args"]:
        raise bad("process.args", "there is nothing to execute")
    if process.get("cwd"):
        _absolute("process.cwd", process["cwd"])
    _lengths("process", process)
    for number, pair in enumerate(process.get("env") or ()):
        if pair.find("=") < 1:
            raise bad(f"process.env[{number}]", f"{pair!r:.80} is no NAME=VALUE")


def _lengths(place: str, program: Mapping[str, Any]) -> None:
    for key in ("args", "env"):
        for number, text in enumerate(program.get(key) or ()):
            if len(text.encode("utf-8", "surrogateescape")) >= _LONGEST_STRING:
                why = f"it is longer than the {_LONGEST_STRING - 1} bytes that execve(2) takes"
                raise bad(f"{place}.{key}[{number}]", why)


def _process(process: Mapping[str, Any]) -> None:
    for name, names in (process.get("capabilities") or {}).items():
        for word in names or ():
            if word.removeprefix("CAP_") not in capability.ALL:
                raise bad(f"process.capabilities.{name}", f"{word!r:.80} is no capability")
    if not -1000 <= (process.get("oomScoreAdj") or 0) <= 1000:
        raise bad("process.oomScoreAdj", "it must be between -1000 and 1000")
    for key, number in (process.get("consoleSize") or {}).items():
        if not 0 <= number < 2**16:
            raise bad(f"process.consoleSize.{key}", f"{number} is no size")
    _user(process.get("user") or {})
    _rlimits(process.get("rlimits") or ())


def _user(user: Mapping[str, Any]) -> None:
    ids = [("uid", user.get("uid", 0)), ("gid", user.get("gid", 0))]
    ids += [("additionalGids", number) for number in user.get("additionalGids") or ()]
    for key, number in ids:
        if not 0 <= number < 2**32 - 1:
            raise bad(f"process.user.{key}", f"{number} is no id")
    if not 0 <= (user.get("umask") or 0) <= 0o777:
        raise bad("process.user.umask", f"{user['umask']} is none")


def _rlimits(listed: Iterable[Mapping[str, Any]]) -> None:
    seen = set()
    for number, limit in enumerate(listed):
        place, kind = f"process.rlimits[{number}]", limit.get("type", "")
        if kind.removeprefix("RLIMIT_") not in _RLIMITS or not kind.startswith("RLIMIT_"):
            raise bad(f"{place}.type", f"{kind!r:.80} is no limit of a process")
        if kind in seen:
            raise bad(f"{place}.type", f"there are two of {kind}")
        if not {"soft", "hard"} <= limit.keys():
            raise bad(place, "it needs soft and hard")
        seen.add(kind)


def _labels(process: Mapping[str, Any]) -> None:
    profile, label = process.get("apparmorProfile"), process.get("selinuxLabel")
    if profile and not lsm.apparmor_enabled() and profile != "unconfined":
        raise unserved("process.apparmorProfile", f"the kernel has no AppArmor for {profile!r:.80}")
    if profile in ("generated", "unchanged"):
        raise unserved("process.apparmorProfile", f"LXC means something else by {profile}")
    if label and not lsm.selinux_enabled():
        raise unserved("process.selinuxLabel", f"the kernel has no SELinux for {label!r:.80}")


def _priorities(process: Mapping[str, Any]) -> None:
    scheduler, io = process.get("scheduler"), process.get("ioPriority")
    if scheduler:
        if scheduler.get("policy") == "SCHED_ISO":
            raise unserved("process.scheduler.policy", "Linux has no SCHED_ISO")
        _one_of("process.scheduler.policy", scheduler.get("policy"), SCHEDULER_POLICIES)
        for flag in scheduler.get("flags") or ():
            _one_of("process.scheduler.flags", flag, SCHEDULER_FLAGS)
        limits = {
            "nice": (-20, 20), "priority": (0, 100), "runtime": (0, 2**64),
            "deadline": (0, 2**64), "period": (0, 2**64),
        }  # fmt: skip
        for key, (low, high) in limits.items():
            if not low <= (scheduler.get(key) or 0) < high:
                raise bad(f"process.scheduler.{key}", f"{scheduler[key]} is out of range")
    if io:
        _one_of("process.ioPriority.class", io.get("class"), IO_CLASSES)
        if not 0 <= (io.get("priority") or 0) <= 7:
            raise bad("process.ioPriority.priority", f"{io['priority']} is not from 0 to 7")


def _devices(linux: Mapping[str, Any]) -> None:
    for number, device in enumerate(linux.get("devices") or ()):
        place = f"linux.devices[{number}]"
        _one_of(f"{place}.type", device.get("type"), ("b", "c", "u", "p"))
        _absolute(f"{place}.path", device.get("path") or "")
        if clean(device["path"]) == "/":
            raise bad(f"{place}.path", "a device cannot be the root")
        if "\n" in device["path"]:
            raise bad(f"{place}.path", f"{device['path']!r:.80} has a line break")
        for key, high in (("fileMode", 0o7777), ("uid", 2**32 - 2), ("gid", 2**32 - 2)):
            if not 0 <= (device.get(key) or 0) <= high:
                raise bad(f"{place}.{key}", f"{device[key]} is out of range")
        for key in ("major", "minor"):
            if device["type"] != "p" and not 0 <= device.get(key, -1) < 2**20:
                raise bad(f"{place}.{key}", "it is no number of a device")


def _resources(resources: Mapping[str, Any], version: str) -> None:
    for number, rule in enumerate(resources.get("devices") or ()):
        place = f"linux.resources.devices[{number}]"
        _one_of(f"{place}.type", rule.get("type") or "a", ("a", "b", "c"))
        if not set(rule.get("access") or "rwm") <= set("rwm"):
            raise bad(f"{place}.access", f"{rule['access']!r:.80} is more than r, w and m")
    cpu = resources.get("cpu") or {}
    for key in ("cpus", "mems"):
        if cpu.get(key) and not _CPUS.fullmatch(cpu[key]):
            raise bad(f"linux.resources.cpu.{key}", f"{cpu[key]!r:.80} is no list like 0-3,7")
    for number, item in enumerate(resources.get("hugepageLimits") or ()):
        if not _PAGE_SIZE.fullmatch(item.get("pageSize") or ""):
            place = f"linux.resources.hugepageLimits[{number}].pageSize"
            raise bad(place, f"{item.get('pageSize')!r:.80} is no size like 2MB")
    for name in resources.get("rdma") or {}:
        if re.search(r"\s", name):
            raise bad("linux.resources.rdma", f"{name!r:.80} is no name of a device")
    priorities = (resources.get("network") or {}).get("priorities") or ()
    for number, item in enumerate(priorities):
        if re.search(r"\s", item.get("name") or " "):
            place = f"linux.resources.network.priorities[{number}].name"
            raise bad(place, f"{item.get('name')!r:.80} is no name of a device")
    _by_version(resources, version)


def _by_version(resources: Mapping[str, Any], version: str) -> None:
    for name, value in (resources.get("unified") or {}).items():
        if version != "2":
            raise unserved(f"linux.resources.unified.{name}", "this machine has cgroup v1")
        if not _UNIFIED.fullmatch(name) or "\n" in value:
            raise bad(f"linux.resources.unified.{name}", "it is no file of one line")
    for group, keys in _VERSION_1_ONLY.items():
        for key in keys:
            if version == "2" and (resources.get(group) or {}).get(key):
                raise unserved(f"linux.resources.{group}.{key}", "cgroup v2 has none")


def _paths(linux: Mapping[str, Any]) -> None:
    for key in ("maskedPaths", "readonlyPaths"):
        for path in linux.get(key) or ():
            _absolute(f"linux.{key}", path)
            if clean(path) == "/":
                raise unserved(f"linux.{key}", "the root itself")
    group = linux.get("cgroupsPath") or ""
    if group:
        parts = group.strip("/").split("/")
        if ".." in parts or not group.strip("/"):
            raise bad("linux.cgroupsPath", f"{group!r:.80} is no path below the root cgroup")
    for key, value in (linux.get("sysctl") or {}).items():
        if not re.fullmatch(r"[A-Za-z0-9_]+([./][A-Za-z0-9_*@:-]+)+", key):
            raise bad("linux.sysctl", f"{key!r:.80} is no name of a parameter")
        if "\n" in value.rstrip("\n"):
            raise bad(f"linux.sysctl.{key}", f"{value!r:.80} has several lines")


def _seccomp(found: Mapping[str, Any]) -> None:
    pairs = [("", found.get("defaultAction"), found.get("defaultErrnoRet"))]
    pairs += [
        (f".syscalls[{number}]", entry.get("action"), entry.get("errnoRet"))
        for number, entry in enumerate(found.get("syscalls") or ())
    ]
    for place, action, number in pairs:
        if number is not None and action not in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
            raise bad(f"linux.seccomp{place}", f"{action} gives no error number")


def _hook(place: str, hook: Mapping[str, Any]) -> None:
    _absolute(f"{place}.path", hook.get("path") or "")
    _lengths(place, hook)
    if (hook.get("timeout") or 0) < 0:
        raise bad(f"{place}.timeout", f"{hook['timeout']} is below 0")
    for pair in hook.get("env") or ():
        if pair.find("=") < 1:
            raise bad(f"{place}.env", f"{pair!r:.80} is no NAME=VALUE")
