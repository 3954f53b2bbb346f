"""The keys of daemon.json: their types, and what this version does with them."""

from __future__ import annotations

import re
from typing import Any

from isula_edge import errors
from isula_edge.oci import values

__all__ = ["EFFECTIVE", "NO_EFFECT", "check", "describe", "seconds", "size"]

EFFECTIVE: dict[str, str] = {
    "hosts": "list",
    "group": "string",
    "graph": "path",
    "state": "path",
    "pidfile": "path",
    "default-runtime": "string",
    "runtimes": "runtimes",
    "log-level": "level",
    "log-driver": "driver",
    "log-opts": "strings",
    "container-log": "container-log",
    "hook-spec": "path",
    "storage-driver": "string",
    "storage-opts": "list",
    "registry-mirrors": "list",
    "insecure-registries": "list",
    "insecure-skip-verify-enforce": "bool",
    "registry-host-mirrors": "lists",
    "clock-timeout": "duration",
    "default-ulimits": "ulimits",
    "cgroup-parent": "string",
    "systemd-cgroup": "bool",
    "certs-dir": "path",
    "auth-file": "path",
    "max-concurrent-downloads": "number",
    "max-download-rate": "size",
    "image-gc-high": "percent",
    "image-gc-low": "percent",
    "image-gc-min-age": "duration",
    "image-layer-check": "bool",
    "seccomp-profile": "path",
    "start-timeout": "duration",
    "cdi-spec-dirs": "list",
    "cni-bin-dir": "string",
    "cni-cache-dir": "path",
    "cni-conf-dir": "path",
    "cri-runtimes": "strings",
    "cri-socket": "string",
    "disable-connections": "bool",
    "enable-cdi": "bool",
    "enable-cri-v1": "bool",
    "enable-pod-events": "bool",
    "network-plugin": "network-plugin",
    "nri-socket-path": "path",
    "nri-support": "bool",
    "plugin-config-path": "path",
    "plugin-path": "path",
    "plugin-registration-timeout": "number",
    "plugin-requst-timeout": "number",
    "pod-sandbox-image": "string",
    "stream-server-address": "string",
    "stream-server-cert": "path",
    "stream-server-key": "path",
    "websocket-server-listening-port": "number",
}
"""Keys that do what they say, with the type of their value."""

NO_EFFECT: dict[str, str] = {
    "authorization-plugin": "string",
    "cpu-rt-period": "number",
    "cpu-rt-runtime": "number",
    "cri-sandboxers": "map",
    "enable-plugins": "string",
    "engine": "string",
    "metrics-port": "number",
    "native.umask": "string",
    "selinux-enabled": "bool",
    "storage-enable-remote-layer": "bool",
    "sup-groups": "list",
    "tls": "bool",
    "tls-config": "map",
    "tls-verify": "bool",
    "use-decrypted-key": "bool",
    "userns-remap": "string",
}
"""iSulad's keys that are accepted and do nothing yet; empty and false values are silent."""

LEVELS = ("FATAL", "ALERT", "CRIT", "ERROR", "WARN", "NOTICE", "INFO", "DEBUG", "TRACE")
_DURATION = re.compile(r"(?:([0-9]{1,4})h)?(?:([0-9]{1,5})m)?(?:([0-9]{1,6})s?)?", re.ASCII)
_MAX_SECONDS = 10**7
DRIVERS = ("file", "stdout", "stderr", "syslog")
_WORDS = {
    "bool": "true or false",
    "number": "a number",
    "size": "a number of bytes, like 500000 or 500k",
    "list": "a list of strings",
    "strings": "an object with string values",
    "lists": "an object whose values are lists of strings",
    "percent": "a number from 0 to 100",
    "duration": "a time, like 90s, 10m or 1h, or a number of seconds",
    "map": "an object",
    "path": "an absolute path",
    "level": f"one of {', '.join(LEVELS)}",
    "driver": f"one of {', '.join(DRIVERS)}",
    "network-plugin": '"cni" or ""',
    "runtimes": "an object of runtimes by name",
    "ulimits": 'an object of {"Name": …, "Soft": …, "Hard": …}',
    "container-log": 'an object with "driver" and "opts"',
}


def describe(kind: str) -> str:
    """What a value of type ``kind`` is, in words."""
    return _WORDS.get(kind, "a string")


def check(key: str, kind: str, value: Any) -> None:
    """Raises InvalidArgument naming ``key`` when ``value`` is not of type ``kind``."""
    if not _fits(kind, value):
        raise errors.InvalidArgument(
            f"{key} must be {describe(kind)}, it is {_shown(value)}", kind="key", ref=key
        )


def seconds(value: Any) -> float | None:
    """Seconds of a value of type ``duration``; None when it is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value) if 0 <= value <= _MAX_SECONDS else None
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    parts = zip(found.groups(), (3600, 60, 1), strict=True)
    return float(sum(int(number) * unit for number, unit in parts if number))


def size(value: Any) -> int | None:
    """Bytes of a value of type ``size``, '' being 0; None when it is none."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    try:
        return values.parse_size("size", str(value or 0))
    except errors.InvalidArgument:
        return None


def _shown(value: Any) -> str:
    words = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    if value is None:
        return "null"
    return f'"{value}"' if isinstance(value, str) else words.get(type(value), "something else")


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _fits(kind: str, value: Any) -> bool:
    if kind == "bool":
        return isinstance(value, bool)
    if kind == "duration":
        return seconds(value) is not None
    if kind == "size":
        return size(value) is not None
    if kind in ("number", "percent"):
        return (
            isinstance(value, int)
            and not isinstance(value, bool)
            and (kind != "percent" or 0 <= value <= 100)
        )
    if kind == "list":
        return _strings(value)
    if kind in ("map", "strings", "lists", "runtimes", "ulimits", "container-log"):
        return isinstance(value, dict) and all(_entry_fits(kind, item) for item in value.items())
    if not isinstance(value, str):
        return False
    if kind == "path":
        return value == "" or value.startswith("/")
    if kind == "level":
        return value.upper() in LEVELS
    if kind == "network-plugin":
        return value in ("", "cni")
    return kind != "driver" or value in DRIVERS


def _entry_fits(kind: str, entry: tuple[str, Any]) -> bool:
    name, value = entry
    if kind == "lists":
        return _strings(value)
    if kind == "strings":
        return isinstance(value, str)
    if kind == "container-log":
        if name == "driver":
            return isinstance(value, str)
        return name == "opts" and _fits("strings", value)
    if kind == "ulimits":
        return (
            isinstance(value, dict)
            and isinstance(value.get("Name", ""), str)
            and all(_fits("number", value.get(part)) for part in ("Soft", "Hard"))
        )
    return True
