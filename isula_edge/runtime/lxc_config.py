"""From an OCI runtime-spec to LXC's configuration (lxc.container.conf(5), liblxc 5 and 6).

The format has one item per line, so every value is untrusted: one with a line break or NUL
is refused, and values are quoted, since LXC trims blanks and strips one pair of quotes.
:mod:`isula_edge.runtime.lxc_fields` has refused before what is not translated here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.cgroup import device_rules, resource_files
from isula_edge.runtime import lxc_fields, lxc_mounts, lxc_user
from isula_edge.runtime.lxc_mounts import fstab_escape, inside, is_shared, mount_entry, own_dev
from isula_edge.sys.lsm import apparmor_enabled
from isula_edge.sys.userns import host_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

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
    "time": "time",
}
_KEY = re.compile(r"lxc(\.[A-Za-z0-9_-]+)+")
_PERSONALITIES = {"LINUX": "linux64", "LINUX32": "linux32"}
_CLOCKS = {"boottime": "boot", "monotonic": "monotonic"}


@dataclass(slots=True)
class LxcConfig:
    """The text of the configuration, and the filter that goes beside it."""

    text: str
    seccomp: dict[str, Any] | None = None


def item(key: str, value: str) -> str:
    """One line ``key = "value"``; InvalidArgument for what one line cannot hold."""
    if not _KEY.fullmatch(key):
        raise errors.InvalidArgument(
            f"{key!r:.80} is no key of runtime lxc's configuration", kind="spec", ref=key
        )
    for char in "\n\r\0":
        if char in value:
            raise errors.InvalidArgument(
                f"{key} has a line break or NUL in its value, which runtime lxc cannot take: "
                f"{value!r:.80}",
                kind="spec",
                ref=key,
                hint="remove it, or use --runtime runc",
            )
    return f'{key} = "{value}"'


def build(
    bundle: Bundle,
    *,
    version: str,
    monitor_cgroup: str,
    seccomp_path: str,
    place: Callable[[str], str] = str,
    console: bool = True,
) -> LxcConfig:
    """The configuration for ``bundle``; ``version`` is the cgroup layout ("1", "hybrid", "2").

    ``place`` tells where a cgroup is on this machine (`isula_edge.cgroup.Host.group`),
    ``console`` whether LXC can make a terminal of its own
    (`isula_edge.runtime.terminal.lxc_can_open`).
    """
    spec = bundle.spec
    linux: dict[str, Any] = spec.get("linux") or {}
    process: dict[str, Any] = spec.get("process") or {}
    lxc_fields.check(spec, version)
    lines: list[str] = []
    lines += _root(spec)
    lines += _namespaces(linux, spec)
    lines += lxc_mounts.lines(spec, linux, bundle.run_dir)
    lines += _cgroups(bundle, linux, version, monitor_cgroup, place)
    lines += _process(spec, process)
    if linux.get("seccomp"):
        lines.append(item("lxc.seccomp.profile", seccomp_path))
    if linux.get("personality"):
        # attached processes get it too, which a program before init could not do
        lines.append(item("lxc.arch", _PERSONALITIES[linux["personality"]["domain"]]))
    lines += _identity_maps(linux)
    if not (bundle.terminal and console):
        lines.append("lxc.console.path = none")
    own = own_dev(spec)
    # on a bind of the host's /dev LXC would make nodes, and replace ptmx, for everybody
    lines += [f"lxc.pty.max = {1024 * own}", "lxc.tty.max = 0", f"lxc.autodev = {int(own)}"]
    return LxcConfig("\n".join(lines) + "\n", linux.get("seccomp"))


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
    if spec.get("hostname"):
        yield item("lxc.uts.name", spec["hostname"])
    for clock, offset in (linux.get("timeOffsets") or {}).items():
        seconds, nanoseconds = (int(offset.get(key) or 0) for key in ("secs", "nanosecs"))
        value = f"{nanoseconds}ns" if nanoseconds else f"{seconds}s"
        if seconds or nanoseconds:
            yield item(f"lxc.time.offset.{_CLOCKS[clock]}", value)


def _cgroups(
    bundle: Bundle,
    linux: Mapping[str, Any],
    version: str,
    monitor_cgroup: str,
    place: Callable[[str], str],
) -> Iterator[str]:
    group = (linux.get("cgroupsPath") or bundle.cgroup).strip("/")
    yield item("lxc.cgroup.dir.container", group)
    yield item("lxc.cgroup.dir.monitor", place(f"{monitor_cgroup}/{bundle.id}"))
    pivot = f"{monitor_cgroup}/pivot"
    if place(pivot) == pivot:
        # LXC adds a part of its own to it, which needs nested groups; else its own is used
        yield item("lxc.cgroup.dir.monitor.pivot", pivot)
    resources = linux.get("resources") or {}
    prefix = "lxc.cgroup2" if version == "2" else "lxc.cgroup"
    for action, rule in device_rules(resources):
        yield item(f"{prefix}.devices.{action}", rule)
    for entry in resource_files(resources, "2" if version == "2" else "1"):
        yield item(f"{prefix}.{entry.name}", entry.value)


def _environment(process: Mapping[str, Any]) -> Iterator[str]:
    for name, value in lxc_user.variables(process).items():
        yield item("lxc.environment", f"{name}={value}")


def _process(spec: Mapping[str, Any], process: Mapping[str, Any]) -> Iterator[str]:
    if not lxc_user.carries_environment(spec):
        yield from _environment(process)
    user = process.get("user") or {}
    yield f"lxc.init.uid = {lxc_user.init_uid(process)}"
    yield f"lxc.init.gid = {int(user.get('gid', 0))}"
    groups = [str(int(gid)) for gid in user.get("additionalGids") or ()]
    if groups:
        yield f"lxc.init.groups = {','.join(groups)}"
    yield item("lxc.init.cwd", process.get("cwd") or "/")
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
