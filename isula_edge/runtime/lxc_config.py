"""From an OCI runtime-spec to LXC's configuration (lxc.container.conf(5), liblxc 4 to 6).

The format has one item per line, so every value is untrusted: one with a line break or NUL
is refused, mount fields are escaped as in fstab(5), and values are quoted, since LXC trims
blanks and strips one pair of quotes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.cgroup import device_rules, resource_files
from isula_edge.runtime import lxc_user
from isula_edge.runtime.base import binds
from isula_edge.sys.lsm import apparmor_enabled
from isula_edge.sys.paths import resolve_in_root
from isula_edge.sys.userns import host_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from isula_edge.runtime.base import Bundle

__all__ = [
    "LxcConfig",
    "build",
    "fstab_escape",
    "host_uid",
    "inside",
    "is_shared",
    "item",
    "mount_entry",
    "own_dev",
    "root_ids",
]

_NAMESPACES = {
    "pid": "pid",
    "network": "net",
    "ipc": "ipc",
    "uts": "uts",
    "user": "user",
    "cgroup": "cgroup",
}
_AUTO = {("proc", "/proc"): "proc", ("sysfs", "/sys"): "sys"}
_OWN_DEV = {"/dev": "tmpfs", "/dev/pts": "devpts"}
_REFUSED_ENV = ("LD_", "GLIBC_", "MALLOC_", "LXC_", "LIBC")


@dataclass(slots=True)
class LxcConfig:
    """The text of the configuration, and what goes beside it.

    ``inherited`` are environment variables whose values cannot be written on one line;
    they reach the container through the environment of lxc-start.
    """

    text: str
    inherited: dict[str, str] = field(default_factory=dict)
    seccomp: dict[str, Any] | None = None


def item(key: str, value: str) -> str:
    """One line ``key = "value"``; InvalidArgument for what one line cannot hold."""
    for char in "\n\r\0":
        if char in value or char in key:
            raise errors.InvalidArgument(
                f"{key} has a line break or NUL in its value, which runtime lxc cannot take",
                kind="spec",
                ref=key,
                hint="remove it, or use --runtime runc",
            )
    return f'{key} = "{value}"'


def fstab_escape(text: str) -> str:
    """``text`` as one field of fstab(5)."""
    for char in "\\ \t\n\r":
        text = text.replace(char, f"\\{ord(char):03o}")
    return text


def mount_entry(source: str, target: str, options: Iterable[str]) -> str:
    """A line that binds host path ``source`` to ``target`` inside."""
    return _entry(source, target, "none", options) + "\n"


def build(bundle: Bundle, *, version: str, monitor_cgroup: str, seccomp_path: str) -> LxcConfig:
    """The configuration for ``bundle``; ``version`` is the cgroup layout ("1", "hybrid", "2")."""
    spec = bundle.spec
    linux: dict[str, Any] = spec.get("linux") or {}
    process: dict[str, Any] = spec.get("process") or {}
    _refuse(spec, linux, process)
    inherited: dict[str, str] = {}
    lines: list[str] = []
    lines += _root(spec)
    lines += _namespaces(linux, spec)
    lines += _mounts(spec, linux)
    lines += _cgroups(bundle, linux, version, monitor_cgroup)
    lines += _process(process, inherited)
    if linux.get("seccomp"):
        lines.append(item("lxc.seccomp.profile", seccomp_path))
    lines += _identity_maps(linux)
    if not bundle.terminal:
        lines.append("lxc.console.path = none")
    own = own_dev(spec)
    # on a bind of the host's /dev LXC would make nodes, and replace ptmx, for everybody
    lines += [f"lxc.pty.max = {1024 * own}", "lxc.tty.max = 0", f"lxc.autodev = {int(own)}"]
    return LxcConfig("\n".join(lines) + "\n", inherited, linux.get("seccomp"))


def _refuse(spec: Mapping[str, Any], linux: Mapping[str, Any], process: Mapping[str, Any]) -> None:
    """What stock LXC has no means for is refused, never silently ignored."""
    found = [
        name
        for name, value in (
            ("linux.intelRdt", linux.get("intelRdt")),
            ("linux.personality", linux.get("personality")),
            ("linux.timeOffsets", linux.get("timeOffsets")),
            ("domainname", spec.get("domainname")),
            ("process.scheduler", process.get("scheduler")),
            ("process.ioPriority", process.get("ioPriority")),
        )
        if value
    ]
    for entry in linux.get("namespaces") or ():
        kind = entry["type"]
        if kind not in (*_NAMESPACES, "mount"):
            found.append(f"a {kind} namespace")
        elif kind == "mount" and entry.get("path"):
            found.append("the mount namespace of another")
    if found:
        raise errors.Unimplemented(
            f"runtime lxc cannot do {', '.join(found)}",
            kind="spec",
            ref=found[0],
            hint="use --runtime runc",
        )


def _root(spec: Mapping[str, Any]) -> Iterator[str]:
    root = spec.get("root") or {}
    yield item("lxc.rootfs.path", f"dir:{root['path']}")
    if root.get("readonly"):
        yield item("lxc.rootfs.options", "ro")


def _namespaces(linux: Mapping[str, Any], spec: Mapping[str, Any]) -> Iterator[str]:
    wanted = {entry["type"]: entry.get("path", "") for entry in linux.get("namespaces") or ()}
    clone = ["mnt"]
    for oci, name in _NAMESPACES.items():
        if oci not in wanted:
            continue
        if wanted[oci]:
            yield item(f"lxc.namespace.share.{name}", wanted[oci])
        else:
            clone.append(name)
    # the list of new ones: lxc.namespace.keep would also make a user and a time namespace
    yield item("lxc.namespace.clone", " ".join(clone))
    private_net = "network" in wanted and not wanted["network"]
    yield f"lxc.net.0.type = {'empty' if private_net else 'none'}"
    if spec.get("hostname") and "uts" in wanted and not wanted["uts"]:
        yield item("lxc.uts.name", spec["hostname"])


def _entry(source: str, target: str, kind: str, options: Iterable[str]) -> str:
    fields = [
        fstab_escape(source or "none"),
        fstab_escape(target.lstrip("/")),
        kind or "none",
        fstab_escape(",".join(options) or "defaults"),
    ]
    return f"lxc.mount.entry = {' '.join(fields)} 0 0"


def _mounts(spec: Mapping[str, Any], linux: Mapping[str, Any]) -> Iterator[str]:
    auto, entries = [], []
    for mount in spec.get("mounts") or ():
        target, kind = mount["destination"].rstrip("/"), mount.get("type", "")
        options = list(mount.get("options") or ())
        read_only = "ro" in options
        if _OWN_DEV.get(target) == kind and kind:
            continue
        name = _AUTO.get((kind, target), "")
        # there is no proc:ro, but an entry for it is a mount as any other
        if name and not (name == "proc" and read_only):
            auto.append(f"{name}:{'ro' if read_only else 'rw'}")
        elif kind in ("cgroup", "cgroup2") and target == "/sys/fs/cgroup":
            auto.append(f"cgroup:{'ro' if read_only else 'rw'}:force")
        elif not is_shared(mount):
            bind = kind == "bind" or "bind" in options or "rbind" in options
            if bind and not {"bind", "rbind"} & set(options):
                options.insert(0, "rbind")
            entries.append(
                _entry(
                    mount.get("source") or kind,
                    target,
                    "none" if bind else kind,
                    [*options, *_create(mount)],
                )
            )
    if auto:
        yield f"lxc.mount.auto = {' '.join(auto)}"
    yield from entries
    for path in linux.get("readonlyPaths") or ():
        yield _entry(path.lstrip("/"), path, "none", ("bind", "relative", "optional"))
        yield _entry(
            path.lstrip("/"), path, "none", ("bind", "ro", "remount", "relative", "optional")
        )
    for path in linux.get("maskedPaths") or ():
        if _is_directory(spec, path):
            yield _entry("tmpfs", path, "tmpfs", ("ro", "size=0k", "optional"))
        else:
            yield _entry("/dev/null", path, "none", ("bind", "optional"))


def _is_directory(spec: Mapping[str, Any], path: str) -> bool:
    """Whether ``path`` is a directory inside."""
    if path.startswith(("/proc/", "/sys/")):
        return os.path.isdir(path)
    for target, source in sorted(binds(spec), key=lambda mount: len(mount[0]), reverse=True):
        if f"{path}/".startswith(f"{target.rstrip('/')}/"):
            return os.path.isdir(source + path[len(target.rstrip("/")) :]) if source else False
    return os.path.isdir(resolve_in_root(spec["root"]["path"], path))


def own_dev(spec: Mapping[str, Any]) -> bool:
    """Whether /dev is the container's own: on a bind of the host's nothing may be made."""
    return not any(
        mount["destination"].rstrip("/") == "/dev" and mount.get("type") == "bind"
        for mount in spec.get("mounts") or ()
    )


def inside(spec: Mapping[str, Any], name: str) -> str:
    """Where a file of ours is in the container: in /dev, or in the root."""
    return f"/dev/{name}" if own_dev(spec) else f"/.{name}"


def is_shared(mount: Mapping[str, Any]) -> bool:
    """Whether mounts made inside are to be seen on the host, which LXC itself cannot do."""
    return bool({"shared", "rshared"} & set(mount.get("options") or ()))


def _create(mount: Mapping[str, Any]) -> Iterator[str]:
    target = mount["destination"]
    if target.startswith("/dev/"):
        source = mount.get("source") or ""
        is_file = source.startswith("/") and os.path.exists(source) and not os.path.isdir(source)
        yield "create=file" if is_file else "create=dir"


def _cgroups(
    bundle: Bundle, linux: Mapping[str, Any], version: str, monitor_cgroup: str
) -> Iterator[str]:
    group = (linux.get("cgroupsPath") or bundle.cgroup).strip("/")
    yield item("lxc.cgroup.dir.container", group)
    yield item("lxc.cgroup.dir.monitor", f"{monitor_cgroup}/{bundle.id}")
    yield item("lxc.cgroup.dir.monitor.pivot", f"{monitor_cgroup}/pivot")
    resources = linux.get("resources") or {}
    prefix = "lxc.cgroup2" if version == "2" else "lxc.cgroup"
    for action, rule in device_rules(resources):
        yield item(f"{prefix}.devices.{action}", rule)
    for entry in resource_files(resources, "2" if version == "2" else "1"):
        yield item(f"{prefix}.{entry.name}", entry.value)


def _environment(process: Mapping[str, Any], inherited: dict[str, str]) -> Iterator[str]:
    for pair in process.get("env") or ():
        name, _, value = pair.partition("=")
        if "\n" not in value and "\r" not in value:
            yield item("lxc.environment", pair)
            continue
        if name.startswith(_REFUSED_ENV) or name in ("PATH", "HOME"):
            raise errors.InvalidArgument(
                f"environment variable {name} has a line break, which runtime lxc cannot pass on",
                kind="spec",
                ref=name,
                hint="use --runtime runc",
            )
        inherited[name] = value
        yield item("lxc.environment", name)


def _process(process: Mapping[str, Any], inherited: dict[str, str]) -> Iterator[str]:
    yield from _environment(process, inherited)
    user = process.get("user") or {}
    yield f"lxc.init.uid = {lxc_user.init_uid(process)}"
    yield f"lxc.init.gid = {int(user.get('gid', 0))}"
    groups = [str(int(gid)) for gid in user.get("additionalGids") or ()]
    if groups:
        yield f"lxc.init.groups = {','.join(groups)}"
    yield item("lxc.init.cwd", process.get("cwd") or "/")
    if process.get("capabilities") is not None:
        names = [name.removeprefix("CAP_").lower() for name in lxc_user.kept(process)]
        yield item("lxc.cap.keep", " ".join(names) or "none")
    if process.get("noNewPrivileges"):
        yield "lxc.no_new_privs = 1"
    for limit in process.get("rlimits") or ():
        soft, hard = (_rlimit(limit[key]) for key in ("soft", "hard"))
        yield item(f"lxc.prlimit.{limit['type'].removeprefix('RLIMIT_').lower()}", f"{soft}:{hard}")
    if process.get("oomScoreAdj") is not None:
        yield f"lxc.proc.oom_score_adj = {int(process['oomScoreAdj'])}"
    if process.get("apparmorProfile"):
        yield item("lxc.apparmor.profile", process["apparmorProfile"])
    elif apparmor_enabled():
        # LXC would apply a profile of its own
        yield "lxc.apparmor.profile = unconfined"
    if process.get("selinuxLabel"):
        yield item("lxc.selinux.context", process["selinuxLabel"])


def _rlimit(value: int) -> str:
    return "unlimited" if value < 0 or value >= 2**63 else str(value)


def root_ids(spec: Mapping[str, Any]) -> tuple[int, int] | None:
    """User and group that root of the container's user namespace is on the host, if it has one."""
    linux = spec.get("linux") or {}
    if not linux.get("uidMappings"):
        return None
    uid, gid = (_host_id(linux.get(f"{kind}Mappings") or (), 0) for kind in ("uid", "gid"))
    return uid, gid


def host_uid(spec: Mapping[str, Any], uid: int) -> int:
    """What user ``uid`` of the container is on the host."""
    maps = (spec.get("linux") or {}).get("uidMappings")
    return _host_id(maps, uid) if maps else uid


def _host_id(maps: Iterable[Mapping[str, int]], number: int) -> int:
    found = [(entry["containerID"], entry["hostID"], entry["size"]) for entry in maps]
    return host_id(found, number)


def _identity_maps(linux: Mapping[str, Any]) -> Iterator[str]:
    for key, letter in (("uidMappings", "u"), ("gidMappings", "g")):
        for entry in linux.get(key) or ():
            yield f"lxc.idmap = {letter} {entry['containerID']} {entry['hostID']} {entry['size']}"
