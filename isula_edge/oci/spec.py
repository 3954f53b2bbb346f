"""``config.json``: the runtime-spec document of one container."""

from __future__ import annotations

import functools
import os
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.oci import capabilities, values
from isula_edge.oci.resources import limits
from isula_edge.sys import lsm
from isula_edge.version import OCI_RUNTIME_SPEC

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from isula_edge.oci.options import Settings
    from isula_edge.oci.user import User

__all__ = ["DEFAULT_PATH", "Subject", "bounding", "build", "check_texts", "process_args"]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MASKED = [
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
    "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
    "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
]  # fmt: skip
_LONGEST_PATH = 4095
_LONGEST_WORD = 32 * os.sysconf("SC_PAGE_SIZE") - 1
_NUL = re.compile("\0")
_NOT_UTF8 = re.compile("[\0\ud800-\udfff]")
_READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
_DEVICE_RULES: list[dict[str, Any]] = [
    {"allow": False, "access": "rwm"},
    {"allow": True, "type": "c", "access": "m"},
    {"allow": True, "type": "b", "access": "m"},
    *(
        {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}
        for major, minor in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2))
    ),
    {"allow": True, "type": "c", "major": 136, "access": "rwm"},
]


@dataclass(frozen=True, slots=True)
class Subject:
    """What the document is about besides the settings.

    ``namespaces`` maps a runtime-spec type to a path, '' for a new one, None for the host's;
    ``hard_limits`` are the engine's own, in case it may not raise any.
    """

    id: str
    rootfs: str
    args: list[str]
    image_env: list[str]
    workdir: str
    user: User
    hostname: str
    cgroup: str
    files: Mapping[str, str]
    namespaces: Mapping[str, str | None]
    seccomp: dict[str, Any] | None
    shm_path: str = ""
    hard_limits: Mapping[str, int] = field(default_factory=dict)


def process_args(image: Mapping[str, Any], entrypoint: str | None, command: list[str]) -> list[str]:
    """What is executed: image's or given entry point, then given or image's command.

    A given entry point drops the image's command, an empty one clears the image's.
    """
    if entrypoint is None:
        head = list(image.get("Entrypoint") or ())
        return head + (command or list(image.get("Cmd") or ()))
    return ([entrypoint] if entrypoint else []) + command


def build(settings: Settings, subject: Subject) -> dict[str, Any]:
    """The document for a container (OCI runtime-spec 1.0.2)."""
    spec: dict[str, Any] = {
        "ociVersion": OCI_RUNTIME_SPEC,
        "process": _process(settings, subject),
        "root": {"path": subject.rootfs, "readonly": settings.read_only},
        "mounts": _mounts(settings, subject),
        "annotations": dict(settings.annotations),
        "linux": _linux(settings, subject),
    }
    if subject.namespaces.get("uts") == "":
        spec["hostname"] = subject.hostname
    if settings.hooks:
        spec["hooks"] = settings.hooks
    return spec


def check_texts(document: Mapping[str, Any], *, utf8: bool) -> None:
    """Refuses a document with a text that nobody could be given: one with a NUL.

    With ``utf8`` also one that is no UTF-8, which JSON cannot hold; and a word or a path that
    is longer than the kernel takes (execve(2), PATH_MAX).
    """
    _check_lengths(document)
    place = _first(document, "", _NOT_UTF8 if utf8 else _NUL)
    if place:
        what = "bytes that are no UTF-8, or a NUL" if utf8 else "a NUL"
        hint = "use --runtime lxc for other bytes, and no NUL" if utf8 else "remove it"
        raise errors.InvalidArgument(
            f"{place} has {what}, which a container cannot be given",
            kind="spec",
            ref=place,
            hint=hint,
        )


def _check_lengths(document: Mapping[str, Any]) -> None:
    process = document["process"]
    listed = [
        (f"process.{key}[{number}]", text, _LONGEST_WORD)
        for key in ("args", "env")
        for number, text in enumerate(process.get(key) or ())
    ]
    listed += [
        (f"mounts[{number}].{key}", mount.get(key) or "", _LONGEST_PATH)
        for number, mount in enumerate(document["mounts"])
        for key in ("source", "destination")
    ]
    for place, text, longest in listed:
        if len(text) * 4 > longest and len(text.encode("utf-8", "surrogateescape")) > longest:
            raise errors.InvalidArgument(
                f"{place} is longer than {longest} bytes, which is all that the kernel takes",
                kind="spec",
                ref=place,
            )


def _first(value: Any, place: str, unwanted: re.Pattern[str]) -> str:
    """Where a text with an unwanted character is; '' if nowhere."""
    if isinstance(value, str):
        return place if unwanted.search(value) else ""
    if isinstance(value, dict):
        pairs = [(f"{place}.{key}".lstrip("."), item) for key, item in value.items()]
        pairs += [(place, key) for key in value]
    elif isinstance(value, list):
        pairs = [(f"{place}[{number}]", item) for number, item in enumerate(value)]
    else:
        return ""
    return next(filter(None, (_first(item, where, unwanted) for where, item in pairs)), "")


def environment(settings: Settings, subject: Subject) -> list[str]:
    """PATH, HOSTNAME, HOME, TERM, then the image's and the user's variables; later ones win.

    ``env_removed`` takes away what the image says.
    """
    table = {"PATH": DEFAULT_PATH, "HOSTNAME": subject.hostname}
    if settings.tty:
        table["TERM"] = "xterm"
    for pair in (*subject.image_env, *settings.env):
        key, _, value = pair.partition("=")
        table[key] = value
    set_here = {pair.partition("=")[0] for pair in settings.env}
    for key in settings.env_removed:
        if key not in set_here:
            table.pop(key, None)
    table.setdefault("HOME", subject.user.home)
    return [f"{key}={value}" for key, value in table.items()]


def bounding(settings: Settings) -> list[str]:
    """The capabilities that a container can have, ambient ones included."""
    return capabilities.choose(
        settings.cap_add,
        settings.cap_drop,
        also=settings.ambient,
        privileged=settings.privileged,
    )


def _process(settings: Settings, subject: Subject) -> dict[str, Any]:
    names = bounding(settings)
    ambient = capabilities.named(settings.ambient)
    # without one of root's the kernel leaves a process only what is ambient
    own = names if subject.user.uid == 0 else ambient
    process: dict[str, Any] = {
        "terminal": settings.tty,
        "user": {
            "uid": subject.user.uid,
            "gid": subject.user.gid,
            "additionalGids": list(subject.user.groups),
        },
        "args": subject.args,
        "env": environment(settings, subject),
        "cwd": subject.workdir,
        "capabilities": {
            "bounding": names,
            "effective": own,
            "permitted": own,
            **({"inheritable": ambient, "ambient": ambient} if ambient else {}),
        },
        "noNewPrivileges": settings.no_new_privileges,
    }
    if settings.umask is not None:
        process["user"]["umask"] = settings.umask
    if not settings.privileged:
        if settings.apparmor and lsm.apparmor_enabled():
            process["apparmorProfile"] = settings.apparmor
        if settings.selinux and lsm.selinux_enabled():
            process["selinuxLabel"] = settings.selinux
    if settings.ulimits:
        process["rlimits"] = [_rlimit(limit, subject) for limit in settings.ulimits]
    if settings.oom_score_adj is not None:
        process["oomScoreAdj"] = settings.oom_score_adj
    return process


def _rlimit(limit: tuple[str, int, int], subject: Subject) -> dict[str, Any]:
    name, soft, hard = limit
    unlimited = 2**64 - 1
    top = subject.hard_limits.get(name, -1)
    numbers = []
    for number in (soft, hard):
        value = unlimited if number < 0 else number
        numbers.append(value if top < 0 else min(value, top))
    return {"type": f"RLIMIT_{name.upper()}", "soft": numbers[0], "hard": numbers[1]}


def _mounts(settings: Settings, subject: Subject) -> list[dict[str, Any]]:
    taken = {mount.target for mount in settings.mounts}
    hidden = ["nosuid", "noexec", "nodev"]
    writable = "rw" if settings.privileged else "ro"
    found: list[dict[str, Any]] = [
        _mount("/proc", "proc", "proc", hidden),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount(
            "/dev/pts",
            "devpts",
            "devpts",
            ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        _sys(settings, subject, [*hidden, writable]),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", [*hidden, "relatime", writable]),
    ]
    if subject.namespaces.get("ipc") is not None:
        if _has_queues():
            found.append(_mount("/dev/mqueue", "mqueue", "mqueue", hidden))
    elif os.path.isdir("/dev/mqueue"):
        found.append(_mount("/dev/mqueue", "bind", "/dev/mqueue", ["rbind", *hidden]))
    shm = subject.shm_path
    if shm:
        found.append(_mount("/dev/shm", "bind", shm, ["rbind", "rprivate", *hidden]))
    else:
        size = f"size={settings.shm_size}"
        found.append(_mount("/dev/shm", "tmpfs", "shm", [*hidden, "mode=1777", size]))
    found = [mount for mount in found if mount["destination"] not in taken]
    flag = "ro" if settings.read_only else "rw"
    for target, source in subject.files.items():
        if target not in taken:
            found.append(_mount(target, "bind", source, ["rbind", "rprivate", flag]))
    return found + [mount.spec() for mount in settings.mounts]


def _sys(settings: Settings, subject: Subject, options: list[str]) -> dict[str, Any]:
    if settings.uid_maps and subject.namespaces.get("network") is None:
        # sysfs is mounted only by who owns the network namespace
        return _mount("/sys", "bind", "/sys", ["rbind", "rprivate", *options])
    return _mount("/sys", "sysfs", "sysfs", options)


def _mount(target: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source, "options": options}


def _linux(settings: Settings, subject: Subject) -> dict[str, Any]:
    resources = limits(settings)
    resources["devices"] = _device_rules(settings)
    namespaces = []
    for kind in ("mount", "pid", "network", "ipc", "uts", "cgroup", "user"):
        path = subject.namespaces.get(kind)
        if path is not None:
            namespaces.append({"type": kind, "path": path} if path else {"type": kind})
    linux: dict[str, Any] = {
        "cgroupsPath": f"/{subject.cgroup}",
        "namespaces": namespaces,
        "resources": resources,
    }
    if settings.uid_maps:
        linux["uidMappings"] = _maps(settings.uid_maps)
        linux["gidMappings"] = _maps(settings.gid_maps)
    if settings.sysctls:
        linux["sysctl"] = dict(settings.sysctls)
    devices = _devices(settings, subject.user)
    if devices:
        linux["devices"] = devices
    if not settings.privileged:
        masked, read_only = settings.masked_paths, settings.readonly_paths
        linux["maskedPaths"] = _MASKED if masked is None else masked
        linux["readonlyPaths"] = _READ_ONLY if read_only is None else read_only
        if subject.seccomp:
            linux["seccomp"] = subject.seccomp
    propagation = {mount.propagation for mount in settings.mounts}
    if propagation & {"shared", "rshared"}:
        linux["rootfsPropagation"] = "shared"
    elif propagation & {"slave", "rslave"}:
        linux["rootfsPropagation"] = "slave"
    return linux


def _maps(maps: Sequence[tuple[int, int, int]]) -> list[dict[str, int]]:
    names = ("containerID", "hostID", "size")
    return [dict(zip(names, entry, strict=True)) for entry in maps]


def _device_rules(settings: Settings) -> list[dict[str, Any]]:
    if settings.privileged:
        return [{"allow": True, "access": "rwm"}]
    rules = list(_DEVICE_RULES)
    for host, _, mode in settings.devices:
        for node in _nodes(host):
            found = os.stat(node)
            rules.append(
                {
                    "allow": True,
                    "type": "b" if stat.S_ISBLK(found.st_mode) else "c",
                    "major": os.major(found.st_rdev),
                    "minor": os.minor(found.st_rdev),
                    "access": mode,
                }
            )
    for described in settings.device_nodes:
        if described["access"]:
            kind = "b" if described["type"] == "b" else "c"
            numbers = {key: described[key] for key in ("major", "minor")}
            rules.append({"allow": True, "type": kind, **numbers, "access": described["access"]})
    for text in settings.device_rules:
        kind, where, access = text.split(" ")
        major, _, minor = where.partition(":")
        rule: dict[str, Any] = {"allow": True, "type": kind, "access": access}
        if major != "*":
            rule["major"] = int(major)
        if minor != "*":
            rule["minor"] = int(minor)
        rules.append(rule)
    return rules


def _nodes(path: str) -> list[str]:
    """Device nodes at ``path``: itself, or all below a directory.

    Raises FailedPrecondition when there is nothing at ``path``.
    """
    if not os.path.exists(path):
        raise errors.FailedPrecondition(f"device {path} not found", kind="device", ref=path)
    found = [path]
    for folder, _, names in os.walk(path):
        found += [f"{folder}/{name}" for name in names]
    return [node for node in found if _is_device(node)]


def _is_device(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        # a link that leads nowhere, as /dev/log does without a journal
        return False
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def _devices(settings: Settings, user: User) -> list[dict[str, Any]]:
    pairs = [
        (node, inside + node[len(host) :])
        for host, inside, _ in settings.devices
        for node in _nodes(host)
    ]
    if settings.privileged:
        skip = ("/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/console", "/dev/fd")
        taken = {inside for _, inside in pairs}
        taken |= {described["path"] for described in settings.device_nodes}
        hosts = (node for node in _nodes("/dev") if not node.startswith(skip))
        pairs += [(node, node) for node in hosts if node not in taken]
    devices = []
    basic = {
        "/dev/null",
        "/dev/zero",
        "/dev/full",
        "/dev/random",
        "/dev/urandom",
        "/dev/tty",
        "/dev/ptmx",
    }
    for node, target in pairs:
        if target in basic:
            continue
        found = os.stat(node)
        devices.append(
            {
                "path": target,
                "type": "b" if stat.S_ISBLK(found.st_mode) else "c",
                "major": os.major(found.st_rdev),
                "minor": os.minor(found.st_rdev),
                "fileMode": stat.S_IMODE(found.st_mode),
                "uid": found.st_uid,
                "gid": found.st_gid,
            }
        )
    for described in settings.device_nodes:
        if described["path"] not in basic:
            # one that nobody is said to own is the container's user's (CDI)
            owner = {"uid": user.uid, "gid": user.gid}
            devices.append(owner | {k: v for k, v in described.items() if k != "access"})
    return devices


@functools.cache
def _has_queues() -> bool:
    """Whether the kernel has POSIX message queues (CONFIG_POSIX_MQUEUE)."""
    with open("/proc/filesystems", encoding="ascii") as file:
        return any(line.split()[-1] == "mqueue" for line in file)


def hard_limits() -> dict[str, int]:
    """The engine's own hard limits when it may not raise them (no CAP_SYS_RESOURCE), else none."""
    if "SYS_RESOURCE" in capabilities.bounding_set():
        return {}
    import resource

    found = {}
    for name in values.RLIMITS:
        number = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if number is not None:
            found[name] = resource.getrlimit(number)[1]
    return found
