"""Every option of ``create`` and ``run``, read once, into one value.

The client sends options as the user typed them (see docs of the wire methods); this is the
one place where they are parsed, so the command line and the Python library refuse the same
things in the same words.
"""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.oci import values
from isula_edge.oci.mounts import Mount, clean, parse_mount, parse_tmpfs, parse_volume, unique

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "MIN_MEMORY",
    "Settings",
    "check_words",
    "from_record",
    "parse",
    "read_hooks",
    "to_record",
]

MIN_MEMORY = 4 << 20
_SHM_SIZE = 64 << 20
_HOSTNAME = re.compile(
    r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
# of all kinds of devices only all devices: the kernel reads no further than the a
_DEVICE_RULE = re.compile(r"[acb] ([0-9]{1,9}|\*):([0-9]{1,9}|\*) [rwm]{1,3}")
_HOOK_KINDS = (
    "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
)  # fmt: skip
_HOOK_KEYS = ("path", "args", "env", "timeout")
_HOOK_VARIABLE = re.compile(r"[^=-][^=]*=.*", re.DOTALL)
_SYSCTLS = {
    f"kernel.{name}"
    for name in "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced".split()
}


@dataclass(slots=True)
class Settings:
    """What a user asked for, checked and in numbers.

    Sizes are bytes, times seconds, 0 or '' or an empty list means "not set".
    ``entrypoint`` is None when not given and '' when cleared on purpose.
    ``join`` maps a runtime-spec namespace to the path to join, '' for a new one or None for
    the host's, and wins over net, pid, ipc, uts and cgroupns; ``files`` (path inside to the
    host's path) replace the engine's own hosts, hostname and resolv.conf.  ``masked_paths``
    and ``readonly_paths`` are None for the defaults.  The maps are (id inside, id on the
    host, size).  With ``no_swap`` a limit of memory alone leaves no swap, else as much again.
    Without ``stdin_once`` input stays open when who was attached leaves.
    ``device_nodes`` are devices of the runtime-spec, each with its ``access``.
    """

    hostname: str = ""
    env: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    entrypoint: str | None = None
    user: str = ""
    group_add: list[str] = field(default_factory=list)
    workdir: str = ""
    tty: bool = False
    interactive: bool = False
    stop_signal: str = ""
    stop_timeout: int = 0
    rm: bool = False
    read_only: bool = False
    privileged: bool = False
    init: bool = False
    cap_add: list[str] = field(default_factory=list)
    cap_drop: list[str] = field(default_factory=list)
    no_new_privileges: bool = False
    seccomp: str = ""
    net: str = ""
    pid: str = ""
    ipc: str = ""
    uts: str = ""
    cgroupns: str = ""
    cgroup_parent: str = ""
    mounts: list[Mount] = field(default_factory=list)
    shm_size: int = _SHM_SIZE
    memory: int = 0
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int = -1
    oom_kill_disable: bool = False
    oom_score_adj: int | None = None
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    nano_cpus: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int = 0
    ulimits: list[tuple[str, int, int]] = field(default_factory=list)
    sysctls: dict[str, str] = field(default_factory=dict)
    devices: list[tuple[str, str, str]] = field(default_factory=list)
    device_rules: list[str] = field(default_factory=list)
    add_host: list[str] = field(default_factory=list)
    dns: list[str] = field(default_factory=list)
    dns_search: list[str] = field(default_factory=list)
    dns_opt: list[str] = field(default_factory=list)
    hooks: dict[str, Any] = field(default_factory=dict)
    hook_spec: str = ""
    external_rootfs: str = ""
    log_max_size: int = 1 << 20
    storage_size: int = 0
    platform: str = ""
    warnings: list[str] = field(default_factory=list)
    # what follows no option sets, only the engine's own services do (pods, above all)
    join: dict[str, str | None] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    shm_path: str = ""
    log_path: str = ""
    ambient: list[str] = field(default_factory=list)
    env_removed: list[str] = field(default_factory=list)
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    apparmor: str = ""
    selinux: str = ""
    groups_strict: bool = False
    unified: dict[str, str] = field(default_factory=dict)
    hugepages: list[tuple[str, int]] = field(default_factory=list)
    no_swap: bool = False
    stdin_once: bool = True
    umask: int | None = None
    uid_maps: list[tuple[int, int, int]] = field(default_factory=list)
    gid_maps: list[tuple[int, int, int]] = field(default_factory=list)
    device_nodes: list[dict[str, Any]] = field(default_factory=list)


def to_record(settings: Settings) -> dict[str, Any]:
    """``settings`` as a plain map."""
    return asdict(settings)


def from_record(record: Mapping[str, Any]) -> Settings:
    """The settings that :func:`to_record` gave; unknown keys are left out."""
    known = {item.name for item in fields(Settings)}
    data = {key: value for key, value in record.items() if key in known}
    data["mounts"] = [Mount.from_record(item) for item in data["mounts"]]
    for name in ("ulimits", "devices", "hugepages", "uid_maps", "gid_maps"):
        data[name] = [tuple(item) for item in data.get(name, ())]
    return Settings(**data)


_PLAIN = {
    "env": "env",
    "user": "user",
    "group_add": "group_add",
    "cap_add": "cap_add",
    "cap_drop": "cap_drop",
    "dns_search": "dns_search",
    "dns_opt": "dns_opt",
    "cgroup_parent": "cgroup_parent",
    "entrypoint": "entrypoint",
    "platform": "platform",
    "add_host": "add_host",
    "dns": "dns",
}
_BOOLEANS = ("tty", "interactive", "rm", "read_only", "privileged", "oom_kill_disable", "init")
_CLIENT_ONLY = {
    "detach", "name", "pull", "runtime", "quiet", "cidfile", "detach_keys", "sig_proxy",
    "env_file", "label_file", "image",
}  # fmt: skip


def parse(options: Mapping[str, Any], *, cpus: int, cpuset: str = "", mems: str = "") -> Settings:
    """The settings for ``options`` (long flag names with ``_``).

    ``cpus`` is the number of CPUs of the machine, ``cpuset`` and ``mems`` what of them may
    be asked for.  Raises InvalidArgument naming the flag, Unimplemented for a flag of
    iSulad's that this engine does not serve.
    """
    settings = Settings()
    for key, value in options.items():
        words = value if isinstance(value, (list, tuple)) else [value]
        check_words(f"--{str(key).replace('_', '-')}", words)
        try:
            _read(settings, key, value, (cpus, cpuset, mems))
        except (AttributeError, TypeError) as error:
            flag = str(key).replace("_", "-")
            raise errors.InvalidArgument(
                f"--{flag} cannot be {value!r:.100}", kind="flag", ref=flag
            ) from error
    _check(settings)
    settings.mounts = unique(settings.mounts)
    return settings


def check_words(what: str, words: Iterable[Any]) -> None:
    """Refuses a text with a NUL, or one that is no UTF-8, which records and JSON cannot hold."""
    for word in words:
        if isinstance(word, str) and not _is_text(word):
            raise errors.InvalidArgument(
                f"{what}: {word!r:.100} has bytes that are no UTF-8, or a NUL",
                kind="flag",
                ref=what,
                hint="give text in UTF-8",
            )


def _read(settings: Settings, key: str, value: Any, host: tuple[int, str, str]) -> None:
    if key in _PLAIN:
        setattr(settings, _PLAIN[key], _plain(getattr(settings, _PLAIN[key]), value))
    elif key in _BOOLEANS:
        setattr(settings, key, values.parse_bool(key.replace("_", "-"), value))
    elif key in _READERS:
        _READERS[key](settings, value)
    elif key in _RESOURCES:
        _RESOURCES[key](settings, value, host)
    elif key not in _CLIENT_ONLY:
        _unserved(key, value)


def _plain(default: Any, value: Any) -> Any:
    """``value`` if it is of the kind of ``default``: strings, or one or none; TypeError."""
    if isinstance(default, list) and isinstance(value, (list, tuple)):
        if all(isinstance(item, str) for item in value):
            return list(value)
    elif not isinstance(default, list) and isinstance(value, (str, type(default))):
        return value
    raise TypeError("it is of another kind")


def _unserved(key: str, value: Any) -> None:
    harmless = {
        "restart": "no",
        "log_driver": "json-file",
        "userns": "host",
        "no_healthcheck": True,
    }
    flag = "--" + key.replace("_", "-")
    if harmless.get(key) == value or value in (False, [], ""):
        return
    raise errors.Unimplemented(f"{flag} is not served by this engine yet", kind="flag", ref=flag)


def _hostname(settings: Settings, value: str) -> None:
    if len(value) > 63 or not _HOSTNAME.fullmatch(value):
        raise errors.InvalidArgument(
            f"Invalid container hostname ({value}), less than 64 bytes and RFC 1123 labels only",
            kind="flag",
            ref="hostname",
        )
    settings.hostname = value


def _workdir(settings: Settings, value: str) -> None:
    if not value.startswith("/"):
        raise errors.InvalidArgument(
            f"The working directory '{value}' is invalid. It needs to be an absolute path.",
            kind="flag",
            ref="workdir",
        )
    settings.workdir = clean(value)


def _stop_signal(settings: Settings, value: str) -> None:
    values.parse_signal(value)
    settings.stop_signal = value


def _security_opt(settings: Settings, items: list[str]) -> None:
    for item in items:
        key, _, value = item.replace(":", "=", 1).partition("=")
        if item in ("no-new-privileges", "no-new-privileges=true", "no-new-privileges:true"):
            settings.no_new_privileges = True
        elif key == "seccomp" and value:
            settings.seccomp = item[len("seccomp=") :]
        elif key == "label" and value == "disable":
            continue
        else:
            raise errors.InvalidArgument(
                f"Invalid --security-opt: {item[:80]}", kind="flag", ref="security-opt"
            )


def _namespace(name: str) -> Any:
    def read(settings: Settings, value: str) -> None:
        plain = {"", "host", "none", "private", *(("shareable",) if name == "ipc" else ())}
        if value not in plain and not (value.startswith("container:") and len(value) > 10):
            if name == "net":
                raise errors.Unimplemented(
                    f"network {value}: named networks are not served yet",
                    kind="network",
                    ref=value,
                    hint="use --net none, host or container:NAME",
                )
            raise errors.InvalidArgument(
                f'Invalid value "{value}" for flag --{name}: Invalid argument',
                kind="flag",
                ref=name,
            )
        setattr(settings, name, "" if value in ("private", "none", "shareable") else value)

    return read


def _mounts(reader: Any) -> Any:
    def read(settings: Settings, items: list[str]) -> None:
        settings.mounts.extend(reader(item) for item in items)

    return read


def _ulimit(settings: Settings, items: list[str]) -> None:
    table = {}
    for item in items:
        limit = values.parse_ulimit(item)
        table[limit[0]] = limit
    settings.ulimits = list(table.values())


def _sysctl(settings: Settings, items: list[str]) -> None:
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise errors.InvalidArgument(
                f"Invalid sysctl option '{item}'", kind="flag", ref="sysctl"
            )
        if key not in _SYSCTLS and not key.startswith(("net.", "fs.mqueue.")):
            raise errors.InvalidArgument(
                f"Sysctl '{key}' is not whitelist", kind="flag", ref="sysctl"
            )
        settings.sysctls[key] = value


def _device(settings: Settings, items: list[str]) -> None:
    for item in items:
        parts = item.split(":")
        host, inside, mode = parts[0], parts[0], "rwm"
        if len(parts) == 2 and set(parts[1]) <= set("rwm"):
            mode = parts[1]
        elif len(parts) >= 2:
            inside = parts[1]
            mode = parts[2] if len(parts) == 3 else mode
        bad_mode = not mode or not set(mode) <= set("rwm") or len(set(mode)) != len(mode)
        absolute = host.startswith("/") and inside.startswith("/") and clean(inside) != "/"
        if len(parts) > 3 or bad_mode or not absolute:
            raise errors.InvalidArgument(
                f"Invalid device specification: {item}", kind="flag", ref="device"
            )
        _check_device(host)
        settings.devices.append((clean(host), clean(inside), mode))


def _check_device(path: str) -> None:
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except (OSError, ValueError):
        raise errors.InvalidArgument(f"device {path} not found", kind="device", ref=path) from None
    if kind not in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFDIR):
        raise errors.InvalidArgument(
            f"{path} is neither a device nor a directory of devices", kind="device", ref=path
        )


def _device_rule(settings: Settings, items: list[str]) -> None:
    for item in items:
        if not _DEVICE_RULE.fullmatch(item):
            raise errors.InvalidArgument(
                f'Invalid value "{item}" for flag --device-cgroup-rule',
                kind="flag",
                ref="device-cgroup-rule",
            )
        if item.startswith("a ") and item != "a *:* rwm":
            settings.warnings.append(
                f"--device-cgroup-rule '{item}' allows every device: type a takes no numbers"
            )
            item = "a *:* rwm"
        settings.device_rules.append(item)


def _hook_spec(settings: Settings, path: str) -> None:
    settings.hook_spec, settings.hooks = path, read_hooks(path)


def read_hooks(path: str) -> dict[str, Any]:
    """The ``hooks`` object of the runtime-spec in a file; InvalidArgument for a bad one."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read((10 << 20) + 1)
        table = json.loads(text)
        if len(text) > 10 << 20 or not isinstance(table, dict):
            raise ValueError("not a JSON object of at most 10 MB")
        for name, hooks in table.items():
            if name not in _HOOK_KINDS:
                raise ValueError(f"unknown {name!r}; there are {', '.join(_HOOK_KINDS)}")
            if not isinstance(hooks, list | None):
                raise ValueError(f"{name} is no list of hooks")
    except (OSError, ValueError, RecursionError) as error:
        raise errors.InvalidArgument(
            f"hook-spec {path} cannot be read: {error}", kind="file", ref=path
        ) from error
    for name, hooks in table.items():
        for hook in hooks or ():
            _check_types(name, hook)
            check_hook(hook)
    return table


def _check_types(name: str, hook: Any) -> None:
    def bad(what: str) -> errors.InvalidArgument:
        return errors.InvalidArgument(f"{name} hook: {what}", kind="hook", ref=name)

    if not isinstance(hook, dict) or not _is_text(hook.get("path", "")):
        raise bad("it must be an object with the path of a program")
    unknown = next((key for key in hook if key not in _HOOK_KEYS), None)
    if unknown is not None:
        raise bad(f"unknown {unknown!r}; there are {', '.join(_HOOK_KEYS)}")
    for key in ("args", "env"):
        words = hook.get(key) or []
        if not isinstance(words, list) or not all(_is_text(word) for word in words):
            raise bad(f"{key} must be a list of words")
    for word in hook.get("env") or ():
        if not _HOOK_VARIABLE.fullmatch(word):
            raise bad(f"env has {word!r}, which is no NAME=VALUE")
    if type(hook.get("timeout") or 0) is not int:
        raise bad("timeout must be a number of seconds")


def _is_text(value: Any) -> bool:
    """Whether ``value`` is a word that a program can be given."""
    return isinstance(value, str) and not re.search("[\0\ud800-\udfff]", value)


def check_hook(hook: Mapping[str, Any]) -> None:
    """A hook program must be absolute, root's own and not writable by others."""
    path = str(hook.get("path", ""))
    try:
        if not path.startswith("/"):
            raise errors.InvalidArgument(f"hook path {path} is not absolute", kind="hook", ref=path)
        found = os.stat(path)
    except OSError as error:
        raise errors.InvalidArgument(
            f"hook {path} cannot be used: {error.strerror}", kind="hook", ref=path
        ) from error
    if found.st_uid != 0 or found.st_mode & 0o022:
        raise errors.InvalidArgument(
            f"hook {path} must belong to root and be writable by nobody else", kind="hook", ref=path
        )
    if (hook.get("timeout") or 0) < 0:
        raise errors.InvalidArgument(f"hook {path} has a negative timeout", kind="hook", ref=path)


def _external_rootfs(settings: Settings, path: str) -> None:
    if not path.startswith("/") or not os.path.isdir(path):
        raise errors.InvalidArgument(
            f"external rootfs {path} is no directory",
            kind="path",
            ref=path,
            hint="give an absolute path",
        )
    settings.external_rootfs = os.path.realpath(path)


def _log_opt(settings: Settings, items: list[str]) -> None:
    for item in items:
        key, _, value = item.partition("=")
        if key == "max-size":
            settings.log_max_size = values.parse_size("log-opt", value)
            if settings.log_max_size < 4096:
                raise errors.InvalidArgument(
                    "max-size must be at least 4KB", kind="flag", ref="log-opt"
                )
        elif key != "max-file":
            raise errors.InvalidArgument(f"Invalid option: {item}", kind="flag", ref="log-opt")


def _storage_opt(settings: Settings, items: list[str]) -> None:
    for item in items:
        key, equals, value = item.partition("=")
        if not equals:
            text = f"Invalid storage option '{item}'"
        elif key.lower() != "size":
            text = f"Unknown storage option: {key}"
        else:
            settings.storage_size = values.parse_quota(value)
            continue
        raise errors.InvalidArgument(text, kind="flag", ref="storage-opt", hint="write size=SIZE")


_READERS: dict[str, Any] = {
    "hostname": _hostname,
    "workdir": _workdir,
    "label": lambda s, v: s.labels.update(values.key_values("label", v)),
    "annotation": lambda s, v: s.annotations.update(values.key_values("annotation", v)),
    "stop_signal": _stop_signal,
    "stop_timeout": lambda s, v: setattr(s, "stop_timeout", values.parse_int("stop-timeout", v, 0)),
    "security_opt": _security_opt,
    "cgroupns": _namespace("cgroupns"),
    "net": _namespace("net"),
    "network": _namespace("net"),
    "pid": _namespace("pid"),
    "ipc": _namespace("ipc"),
    "uts": _namespace("uts"),
    "volume": _mounts(parse_volume),
    "mount": _mounts(parse_mount),
    "tmpfs": _mounts(parse_tmpfs),
    "ulimit": _ulimit,
    "sysctl": _sysctl,
    "device": _device,
    "device_cgroup_rule": _device_rule,
    "hook_spec": _hook_spec,
    "external_rootfs": _external_rootfs,
    "log_opt": _log_opt,
    "storage_opt": _storage_opt,
}


def _memory(name: str, *, unlimited: bool = False) -> Any:
    def read(settings: Settings, value: str, _host: tuple[int, str, str]) -> None:
        size = values.parse_size(name.replace("_", "-"), value, unlimited=unlimited)
        if 0 < size < MIN_MEMORY and name in ("memory", "memory_reservation"):
            raise errors.InvalidArgument(
                "Minimum memory limit allowed is 4MB", kind="flag", ref=name
            )
        setattr(settings, name, size)

    return read


def _integer(name: str, low: int, high: int = 2**63 - 1) -> Any:
    def read(settings: Settings, value: str, _host: tuple[int, str, str]) -> None:
        setattr(settings, name, values.parse_int(name.replace("_", "-"), value, low, high))

    return read


_RESOURCES: dict[str, Any] = {
    "memory": _memory("memory"),
    "memory_reservation": _memory("memory_reservation"),
    "memory_swap": _memory("memory_swap", unlimited=True),
    "memory_swappiness": _integer("memory_swappiness", -1, 100),
    # 0 means the default, as to Docker; a tmpfs of size=0 would have no limit
    "shm_size": lambda s, v, host: setattr(
        s, "shm_size", values.parse_size("shm-size", v) or _SHM_SIZE
    ),
    "oom_score_adj": _integer("oom_score_adj", -1000, 1000),
    "cpu_shares": _integer("cpu_shares", 0),
    "cpu_period": _integer("cpu_period", 0),
    "cpu_quota": _integer("cpu_quota", -1),
    "pids_limit": _integer("pids_limit", -1),
    "cpus": lambda s, v, host: setattr(s, "nano_cpus", values.parse_cpus(v, host[0])),
    "cpuset_cpus": lambda s, v, host: setattr(
        s, "cpuset_cpus", values.parse_cpuset("cpuset-cpus", v, host[1])
    ),
    "cpuset_mems": lambda s, v, host: setattr(
        s, "cpuset_mems", values.parse_cpuset("cpuset-mems", v, host[2])
    ),
}


def _check(settings: Settings) -> None:
    def bad(text: str) -> errors.InvalidArgument:
        return errors.InvalidArgument(text, kind="flag")

    if settings.nano_cpus and settings.cpu_period:
        raise bad("Conflicting options: Nano CPUs and CPU Period cannot both be set.")
    if settings.nano_cpus and settings.cpu_quota:
        raise bad("Conflicting options: Nano CPUs and CPU Quota cannot both be set.")
    if settings.cpu_period and not 1000 <= settings.cpu_period <= 1_000_000:
        limit = (
            "less than 1ms (i.e. 1000)"
            if settings.cpu_period < 1000
            else "more than 1s (i.e. 1000000)"
        )
        raise bad(f"CPU cfs period can not be {limit}")
    if 0 < settings.cpu_quota < 1000:
        raise bad("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if settings.memory_swap > 0 and not settings.memory:
        raise bad("You should set the memory limit when using memoryswap limit")
    if 0 < settings.memory_swap < settings.memory:
        raise bad("Minimum memoryswap limit should be larger than memory limit")
    if settings.memory and settings.memory_reservation > settings.memory:
        raise bad("Minimum memory limit should be larger than memory reservation limit")
    if settings.oom_kill_disable and not settings.memory:
        settings.warnings.append(
            "WARNING: Disabling the OOM killer on containers without setting a "
            "'-m/--memory' limit may be dangerous."
        )
    if settings.storage_size and settings.external_rootfs:
        raise bad("--storage-opt cannot limit a directory given by --external-rootfs")
    if settings.init:
        _unserved("init", True)
