"""The key ``runtimes`` of daemon.json, in iSulad's and in Docker's form.

iSulad: ``{"NAME": {"path": …, "runtime-args": […]}}``.  Docker: ``path`` with ``runtimeArgs``, or
``runtimeType`` with ``options`` for a containerd shim (version 2), found by its type
(``io.containerd.kata.v2`` is ``containerd-shim-kata-v2``) or lying at ``path``.  Of ours are
``vm`` (the container is in a virtual machine: its pid on the host says nothing of it) and
``timeout`` (seconds that one command of the runtime may take).
"""

from __future__ import annotations

import os
import re
from typing import Any

from isula_edge import errors
from isula_edge.service.config import RuntimeConfig

__all__ = ["DESCRIPTION", "parse"]

DESCRIPTION = 'an object of {"path": …, "runtimeArgs": […]} or {"runtimeType": …, "options": {…}}'
_KEYS = {
    "path", "runtime-args", "runtimeArgs", "runtimeType", "runtime-type", "options", "vm",
    "timeout",
}  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_TYPE = re.compile(r"[a-z0-9]+(?:\.[a-z0-9_-]+)*\.([a-z0-9_-]+)\.v([0-9]{1,3})", re.ASCII)
_SHIM = re.compile(r"containerd-shim-([a-z0-9_-]+)-v([0-9]{1,3})", re.ASCII)
_MAX_ARGS = 100
_MAX_TIMEOUT = 3600
_BUILT_IN = ("lxc", "lcr")
# folders of the engine's own beside those of runtimes
_TAKEN = ("exits", "pods", "plugins", "storage", "tmp")
_OCI_TYPES = ("oci", "io.containerd.runtime.v1.linux")
_OF_RUNC: dict[str, type[Any]] = {
    "BinaryName": str,
    "CriuPath": str,
    "IoGid": int,
    "IoUid": int,
    "NoNewKeyring": bool,
    "NoPivotRoot": bool,
    "Root": str,
    "ShimCgroup": str,
    "SystemdCgroup": bool,
}
_OF_OTHERS: dict[str, type[Any]] = {"ConfigPath": str, "TypeUrl": str}
_PATHS = ("BinaryName", "ConfigPath", "CriuPath", "Root")
_TYPE_NAMES = {str: "a string", int: "a number that is not negative", bool: "true or false"}


def parse(table: dict[str, Any]) -> dict[str, RuntimeConfig]:
    """The runtimes by name; InvalidArgument names the key that is wrong."""
    found: dict[str, RuntimeConfig] = {}
    for name, entry in table.items():
        place = f"runtimes: {name}"
        _check_name(name, found)
        if not isinstance(entry, dict):
            raise _bad(place, f"must be {DESCRIPTION}")
        found[name] = _runtime(name, entry, place)
    return found


def _bad(place: str, text: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(f"{place}: {text}", kind="key", ref="runtimes")


def _check_name(name: str, found: dict[str, RuntimeConfig]) -> None:
    if not _NAME.fullmatch(name):
        raise _bad("runtimes", f"{name!r} is no name: letters, digits, '_', '.', '-', at most 64")
    lower = name.lower()
    if lower in _BUILT_IN:
        raise _bad("runtimes", "lxc is built in and cannot be replaced")
    if lower in _TAKEN:
        raise _bad("runtimes", f"{name} is the name of a folder of the engine's own")
    twice = next((other for other in found if other.lower() == lower), None)
    if twice is not None:
        raise _bad("runtimes", f"{name} and {twice} differ in capitals only")


def _runtime(name: str, entry: dict[str, Any], place: str) -> RuntimeConfig:
    unknown = sorted(entry.keys() - _KEYS)
    if unknown:
        known = ", ".join(sorted(_KEYS - {"runtime-args", "runtime-type"}))
        raise _bad(place, f"unknown key {unknown[0]}; there are {known}")
    path = _text(entry, "path", place)
    if path and "/" in path and not path.startswith("/"):
        raise _bad(place, f"path must be absolute, or a name to be found in PATH, it is {path}")
    kind = _text(entry, _either(entry, "runtimeType", "runtime-type", place), place)
    args = _args(entry, place)
    shim = "" if kind in _OCI_TYPES else _shim(kind, path, place)
    if not path and not shim:
        raise _bad(place, "either path or runtimeType is needed")
    options = _options(entry, shim, place)
    if shim and args:
        raise _bad(place, "runtimeArgs are for a command line, a shim takes options")
    vm = _flag(entry, "vm", place)
    if vm is None:
        base = os.path.basename(path)
        vm = "kata" in shim if shim else base == "kata-runtime"
    return RuntimeConfig(
        path or shim, args, "shim" if shim else "oci", options, vm, _timeout(entry, place)
    )


def _either(entry: dict[str, Any], one: str, other: str, place: str) -> str:
    """Which of two spellings of a key is there."""
    if one in entry and other in entry:
        raise _bad(place, f"{one} and {other} are the same key")
    return other if other in entry else one


def _text(entry: dict[str, Any], key: str, place: str) -> str:
    found = entry.get(key)
    if found is None:
        return ""
    if not isinstance(found, str) or "\0" in found:
        raise _bad(place, f"{key} must be a string")
    return found


def _flag(entry: dict[str, Any], key: str, place: str) -> bool | None:
    found = entry.get(key)
    if found is not None and not isinstance(found, bool):
        raise _bad(place, f"{key} must be true or false")
    return found


def _args(entry: dict[str, Any], place: str) -> tuple[str, ...]:
    key = _either(entry, "runtimeArgs", "runtime-args", place)
    found = entry.get(key)
    if found is None:
        return ()
    if not isinstance(found, list) or not all(
        isinstance(word, str) and "\0" not in word for word in found
    ):
        raise _bad(place, f"{key} must be a list of strings")
    if len(found) > _MAX_ARGS:
        raise _bad(place, f"{key} has {len(found)} words, the most are {_MAX_ARGS}")
    return tuple(found)


def _timeout(entry: dict[str, Any], place: str) -> float:
    found = entry.get("timeout")
    if found is None:
        return 0.0
    if isinstance(found, bool) or not isinstance(found, int) or not 1 <= found <= _MAX_TIMEOUT:
        raise _bad(place, f"timeout must be a number of seconds from 1 to {_MAX_TIMEOUT}")
    return float(found)


def _shim(kind: str, path: str, place: str) -> str:
    """The program of a shim, by its type or by the name of its file; '' for no shim."""
    if kind.startswith("/"):
        # Docker takes the path of a shim for its type, too
        kind, path = "", kind
        if not _SHIM.fullmatch(os.path.basename(path)):
            raise _bad(place, f"runtimeType {path} is no file containerd-shim-NAME-v2")
        return path
    if not kind:
        found = _SHIM.fullmatch(os.path.basename(path))
        if found and found.group(2) != "2":
            raise _bad(place, f"path {path} is a shim of version {found.group(2)}, 2 is needed")
        return path if found else ""
    found = _TYPE.fullmatch(kind)
    if not found:
        raise _bad(place, f"runtimeType must be oci or like io.containerd.kata.v2, it is {kind}")
    if found.group(2) != "2":
        raise _bad(place, f"runtimeType {kind} is version {found.group(2)}, 2 is needed")
    return f"containerd-shim-{found.group(1)}-v2"


def _options(entry: dict[str, Any], shim: str, place: str) -> dict[str, Any]:
    options = entry.get("options")
    if options is None or options == {}:
        return {}
    if not isinstance(options, dict):
        raise _bad(place, "options must be an object")
    if not shim:
        raise _bad(place, "options are for a runtimeType, a command line takes runtimeArgs")
    known = _OF_RUNC if "-runc-" in os.path.basename(shim) else _OF_OTHERS
    for key, value in options.items():
        kind = known.get(key)
        if kind is None:
            raise _bad(place, f"unknown option {key}; there are {', '.join(sorted(known))}")
        if not _fits(kind, value):
            raise _bad(place, f"option {key} must be {_TYPE_NAMES[kind]}")
        if key in _PATHS and value and not value.startswith("/") and key != "BinaryName":
            raise _bad(place, f"option {key} must be an absolute path, it is {value}")
    return dict(options)


def _fits(kind: type[Any], value: Any) -> bool:
    if kind is int:
        return type(value) is int and 0 <= value < 1 << 32
    if kind is bool:
        return isinstance(value, bool)
    return isinstance(value, str) and "\0" not in value
