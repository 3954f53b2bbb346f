"""A plugin's adjustments, applied to the settings of a container that is being created."""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from isula_cri.nri.info import HOOKS, Resources
from isula_edge import errors
from isula_edge.oci.mounts import Mount, clean
from isula_edge.oci.options import check_hook

if TYPE_CHECKING:
    from collections.abc import Iterable

    from isula_edge.oci.options import Settings

__all__ = ["Adjustment", "apply"]

_PROPAGATION = ("private", "rprivate", "slave", "rslave", "shared", "rshared")
_SETTINGS = {
    "memory_limit": "memory",
    "memory_reservation": "memory_reservation",
    "memory_swap": "memory_swap",
    "memory_swappiness": "memory_swappiness",
    "oom_kill_disable": "oom_kill_disable",
    "cpu_shares": "cpu_shares",
    "cpu_quota": "cpu_quota",
    "cpu_period": "cpu_period",
    "cpuset_cpus": "cpuset_cpus",
    "cpuset_mems": "cpuset_mems",
    "pids_limit": "pids_limit",
}
_LISTS = ("hugepages", "unified", "devices")
# cgroup v1 alone has them, and there the kernel ignores or refuses them since 5.4
_IGNORED = ("memory_kernel", "memory_kernel_tcp")
_UNLIMITED = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What all plugins together change; ``message`` is a ContainerAdjustment.

    ``env_removed`` are names of variables taken away, an image's own too.
    """

    message: Any

    @property
    def args(self) -> list[str]:
        """The command that replaces the container's; empty when it stays."""
        return list(self.message.args)

    @property
    def cdi_devices(self) -> list[str]:
        """Names of CDI devices to add, as ``vendor/class=name``."""
        return [device.name for device in self.message.CDI_devices]

    @property
    def env_removed(self) -> set[str]:
        """Names of variables that the container must not have, unless set again."""
        return {item.key[1:] for item in self.message.env if item.key.startswith("-")}


def apply(adjustment: Adjustment, settings: Settings) -> Settings:
    """``settings`` with the adjustment; those given stay as they were.

    ``args`` and ``cdi_devices`` are the caller's work.
    Raises InvalidArgument or Unimplemented for what cannot be done.
    """
    asked = adjustment.message
    linux = asked.linux
    changed: dict[str, Any] = {
        "annotations": _map(settings.annotations, asked.annotations),
        "sysctls": _map(settings.sysctls, linux.sysctl),
        "env": _env(settings.env, asked.env),
        "env_removed": sorted(adjustment.env_removed),
        "mounts": _mounts(settings.mounts, asked.mounts),
        "devices": _devices(settings.devices, linux.devices),
        "hooks": _hooks(settings.hooks, asked.hooks),
        "ulimits": _ulimits(settings.ulimits, asked.rlimits),
        "join": _namespaces(settings.join, linux.namespaces),
        **_limits(settings, Resources.of(linux.resources)),
    }
    if any(not rule.allow for rule in linux.resources.devices):
        raise errors.Unimplemented("NRI: devices can be allowed, not denied", kind="NRI")
    if linux.cgroups_path:
        changed["cgroup_parent"] = linux.cgroups_path
    if linux.HasField("oom_score_adj"):
        changed["oom_score_adj"] = linux.oom_score_adj.value
    if linux.HasField("seccomp_policy"):
        changed["seccomp"] = _seccomp(linux.seccomp_policy)
    return replace(settings, **changed)


def _removed(names: Iterable[str]) -> set[str]:
    return {name[1:] for name in names if name.startswith("-")}


def _map(own: dict[str, str], asked: Any) -> dict[str, str]:
    gone = _removed(asked)
    kept = {key: value for key, value in own.items() if key not in gone}
    return kept | {key: asked[key] for key in asked if not key.startswith("-")}


def _env(own: list[str], asked: Any) -> list[str]:
    gone = {item.key.removeprefix("-") for item in asked}
    kept = [pair for pair in own if pair.partition("=")[0] not in gone]
    return kept + [f"{item.key}={item.value}" for item in asked if not item.key.startswith("-")]


def _mounts(own: list[Mount], asked: Any) -> list[Mount]:
    table = {mount.target: mount for mount in own}
    for name in _removed(item.destination for item in asked):
        table.pop(clean(name), None)
    for item in asked:
        if not item.destination.startswith("-"):
            mount = _mount(item)
            table[mount.target] = mount
    return sorted(table.values(), key=lambda mount: mount.target)


def _mount(asked: Any) -> Mount:
    target, options = asked.destination, list(asked.options)
    bind = asked.type in ("bind", "") or "bind" in options or "rbind" in options
    kind = "bind" if bind else asked.type
    if kind not in ("bind", "tmpfs"):
        raise errors.Unimplemented(
            f"NRI: a mount of type {kind} on {target} is not served", kind="mount", ref=target
        )
    if not target.startswith("/") or clean(target) == "/":
        raise errors.InvalidArgument(
            f"NRI: a mount cannot be on {target!r}", kind="mount", ref=target
        )
    if kind == "bind" and not os.path.exists(asked.source):
        raise errors.InvalidArgument(
            f"NRI: {asked.source!r}, to be mounted on {target}, does not exist",
            kind="mount",
            ref=target,
        )
    known = ("ro", "rw", "rro", "bind", "rbind", *_PROPAGATION)
    spread = [option for option in options if option in _PROPAGATION]
    return Mount(
        kind,
        asked.source if kind == "bind" else "",
        clean(target),
        read_only="ro" in options or "rro" in options,
        propagation=spread[-1] if spread else "rprivate" if kind == "bind" else "",
        options=tuple(option for option in options if option not in known),
        recursive_read_only="rro" in options,
    )


def _devices(own: list[tuple[str, str, str]], asked: Any) -> list[tuple[str, str, str]]:
    gone = {item.path.removeprefix("-") for item in asked}
    kept = [device for device in own if device[1] not in gone]
    for item in asked:
        if not item.path.startswith("-"):
            mode = item.file_mode.value if item.HasField("file_mode") else 0o666
            access = "rwm" if mode & 0o222 else "rm"
            kept.append((_node(item), clean(item.path), access))
    return kept


def _node(device: Any) -> str:
    """The host's node of a device that is given by its numbers."""
    kind = {"c": "char", "u": "char", "b": "block"}.get(device.type)
    if kind is None:
        raise errors.Unimplemented(
            f"NRI: {device.path} is of type {device.type!r}, and no device",
            kind="device",
            ref=device.path,
        )
    candidates: list[str] = [device.path]
    number = f"{device.major}:{device.minor}"
    try:
        with open(f"/sys/dev/{kind}/{number}/uevent", encoding="utf-8") as file:
            found = re.search(r"^DEVNAME=(.+)$", file.read(), re.MULTILINE)
    except OSError:
        found = None
    if found:
        candidates.append(f"/dev/{found[1]}")
    for path in candidates:
        if _is(path, kind, device.major, device.minor):
            return path
    raise errors.InvalidArgument(
        f"NRI: the host has no {kind} device {number} for {device.path}",
        kind="device",
        ref=device.path,
    )


def _is(path: str, kind: str, major: int, minor: int) -> bool:
    try:
        found = os.stat(path)
    except OSError:
        return False
    right = stat.S_ISCHR if kind == "char" else stat.S_ISBLK
    numbers = (os.major(found.st_rdev), os.minor(found.st_rdev))
    return right(found.st_mode) and numbers == (major, minor)


def _hooks(own: dict[str, Any], asked: Any) -> dict[str, Any]:
    hooks = {kind: list(found or ()) for kind, found in own.items()}
    for name, kind in HOOKS.items():
        for item in getattr(asked, name):
            hook: dict[str, Any] = {"path": item.path}
            if item.args:
                hook["args"] = list(item.args)
            if item.env:
                hook["env"] = list(item.env)
            if item.timeout.value:
                hook["timeout"] = item.timeout.value
            check_hook(hook)
            hooks.setdefault(kind, []).append(hook)
    return hooks


def _ulimits(own: list[tuple[str, int, int]], asked: Any) -> list[tuple[str, int, int]]:
    table = {limit[0]: limit for limit in own}
    for item in asked:
        name = item.type.removeprefix("RLIMIT_").lower()
        soft, hard = (-1 if number == _UNLIMITED else number for number in (item.soft, item.hard))
        table[name] = (name, soft, hard)
    return list(table.values())


def _namespaces(own: dict[str, str | None], asked: Any) -> dict[str, str | None]:
    table = dict(own)
    for item in asked:
        if item.type.startswith("-"):
            table[item.type[1:]] = None
        else:
            table[item.type] = item.path
    return table


def _limits(settings: Settings, asked: Resources) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for name in asked.named():
        if name in _SETTINGS:
            changed[_SETTINGS[name]] = getattr(asked, name)
        elif name not in (*_LISTS, *_IGNORED):
            raise errors.Unimplemented(f"NRI: {name} cannot be set", kind="NRI", ref=name)
    if "cpu_quota" in changed or "cpu_period" in changed:
        changed["nano_cpus"] = 0
    if asked.hugepages:
        changed["hugepages"] = list((dict(settings.hugepages) | dict(asked.hugepages)).items())
    if asked.unified:
        changed["unified"] = settings.unified | dict(asked.unified)
    if asked.devices:
        changed["device_rules"] = [*settings.device_rules, *asked.devices]
    return changed


def _seccomp(policy: Any) -> str:
    """The policy as the JSON of a seccomp profile."""
    table: dict[str, Any] = {
        "defaultAction": policy.default_action,
        "architectures": list(policy.architectures),
        "flags": list(policy.flags),
        "syscalls": [],
    }
    if policy.listener_path:
        raise errors.Unimplemented("NRI: a seccomp listener cannot be set", kind="NRI")
    if policy.HasField("default_errno"):
        table["defaultErrnoRet"] = policy.default_errno.value
    for call in policy.syscalls:
        rule: dict[str, Any] = {"names": list(call.names), "action": call.action}
        if call.HasField("errno_ret"):
            rule["errnoRet"] = call.errno_ret.value
        rule["args"] = [
            {"index": arg.index, "value": arg.value, "valueTwo": arg.value_two, "op": arg.op}
            for arg in call.args
        ]
        table["syscalls"].append(rule)
    return json.dumps(table)
