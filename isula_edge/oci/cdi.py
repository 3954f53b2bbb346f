"""CDI: devices that a vendor describes in files, ``VENDOR/CLASS=NAME`` (CDI 0.3 to 1.1).

A file (JSON, or YAML where Python has it) says which variables, nodes, mounts and hooks a
container of a device gets.  Of several directories a later one wins; two files of one
directory that describe the same device make it unusable.  A file that is wrong takes none
but its own devices away, and is named when one of those is asked for.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.oci.cdi_edits import Edits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from isula_edge.oci.options import Settings

__all__ = ["DEFAULT_DIRS", "Cdi", "annotated", "apply"]

DEFAULT_DIRS = ("/etc/cdi", "/var/run/cdi")
_ANNOTATION = "cdi.k8s.io/"
_VERSION = re.compile(r"v?(0\.[3-8]|1\.[01])\.[0-9]+")
_WORD = r"[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?"
_KIND = re.compile(rf"{_WORD}/{_WORD}")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?")
_KEYS = {"cdiVersion", "kind", "annotations", "devices", "containerEdits"}
_DEVICE_KEYS = {"name", "annotations", "containerEdits"}
_MAX_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class _Spec:
    """A file: edits of all its devices, and of each by its whole name."""

    path: str
    common: Edits
    devices: dict[str, Edits]


@dataclass(slots=True)
class _File:
    """What a file had in it when it was as ``seen``; ``spec`` or ``error``."""

    seen: tuple[int, int, int]
    spec: _Spec | None = None
    error: str = ""


@dataclass(slots=True)
class _Found:
    """Devices by name; those that two files describe, and what is wrong with files."""

    devices: dict[str, _Spec] = field(default_factory=dict)
    conflicts: dict[str, list[str]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


class Cdi:
    """The devices that the files of some directories describe.

    Files are read when they are asked for and have changed.
    """

    def __init__(self, dirs: Sequence[str] = DEFAULT_DIRS) -> None:
        self._dirs = tuple(dirs)
        self._files: dict[str, _File] = {}

    def apply(self, settings: Settings, names: Iterable[str]) -> None:
        """Gives ``settings`` all that the devices called ``names`` need, or nothing.

        Raises InvalidArgument for what is no name, NotFound for names that no usable file
        has, Unimplemented for what no runtime here can do, FailedPrecondition where a node
        or a mount's source is not there.
        """
        wanted = list(dict.fromkeys(names))
        if not wanted:
            return
        for name in wanted:
            _check_name(name)
        found = self._refresh()
        missing = [name for name in wanted if name not in found.devices]
        if missing:
            raise _unresolvable(missing, found)
        edits = Edits()
        seen: set[str] = set()
        for name in wanted:
            spec = found.devices[name]
            if spec.path not in seen:
                seen.add(spec.path)
                edits.add(spec.common)
            edits.add(spec.devices[name])
        edits.apply(settings)

    def devices(self) -> list[str]:
        """Names of all devices that can be used."""
        return sorted(self._refresh().devices)

    def _refresh(self) -> _Found:
        found = _Found()
        known, self._files = self._files, {}
        for folder in self._dirs:
            own: dict[str, list[_Spec]] = {}
            for path, status in _listed(folder):
                seen = (status.st_mtime_ns, status.st_size, status.st_ino)
                file = known.get(path)
                if file is None or file.seen != seen:
                    file = _read(path, seen)
                self._files[path] = file
                if file.spec is None:
                    found.wrong.append(f"{path}: {file.error}")
                else:
                    for name in file.spec.devices:
                        own.setdefault(name, []).append(file.spec)
            for name, specs in own.items():
                found.devices.pop(name, None)
                found.conflicts.pop(name, None)
                if len(specs) == 1:
                    found.devices[name] = specs[0]
                else:
                    found.conflicts[name] = [spec.path for spec in specs]
        return found


def annotated(annotations: Mapping[str, str]) -> list[str]:
    """Names of the devices that a container's annotations ``cdi.k8s.io/…`` ask for, each once."""
    found: dict[str, None] = {}
    for key in sorted(annotations):
        if key.startswith(_ANNOTATION):
            found.update(dict.fromkeys(annotations[key].split(",")))
    return list(found)


def apply(settings: Settings, names: Iterable[str], dirs: Sequence[str] = DEFAULT_DIRS) -> None:
    """:meth:`Cdi.apply` over ``dirs``, which are remembered."""
    _registry(tuple(dirs)).apply(settings, names)


@functools.cache
def _registry(dirs: tuple[str, ...]) -> Cdi:
    return Cdi(dirs)


def _check_name(name: str) -> None:
    kind, _, device = name.partition("=")
    if not _KIND.fullmatch(kind) or not _NAME.fullmatch(device):
        raise errors.InvalidArgument(
            f"invalid CDI device name {name!r}", kind="device", ref=name, hint="VENDOR/CLASS=NAME"
        )


def _unresolvable(names: list[str], found: _Found) -> errors.NotFound:
    reasons = [
        f"{name} is described by {' and by '.join(found.conflicts[name])}"
        for name in names
        if name in found.conflicts
    ]
    return errors.NotFound(
        f"unresolvable CDI devices {', '.join(names)}",
        kind="device",
        ref=names[0],
        hint="; ".join([*reasons, *found.wrong]),
    )


def _listed(folder: str) -> list[tuple[str, os.stat_result]]:
    """The files of a directory by name; a directory that is not there has none."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    found = []
    for name in names:
        if name.endswith((".json", ".yaml", ".yml")):
            try:
                found.append((f"{folder}/{name}", os.stat(f"{folder}/{name}")))
            except OSError:
                continue
    return found


def _read(path: str, seen: tuple[int, int, int]) -> _File:
    try:
        return _File(seen, _parse(path, _document(path)))
    except (OSError, ValueError, RecursionError) as error:
        return _File(seen, error=str(error))
    except errors.EngineError as error:
        return _File(seen, error=error.message)


def _document(path: str) -> Any:
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        found = os.fstat(file.fileno())
        # whoever may write it may have any program run as root
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.geteuid()):
            raise ValueError("it is no file of root's")
        if found.st_mode & 0o002:
            raise ValueError("everybody may write it")
        if found.st_size > _MAX_BYTES:
            raise ValueError(f"it has more than {_MAX_BYTES} bytes")
        data = file.read(_MAX_BYTES + 1)
    if path.endswith(".json"):
        return json.loads(data)
    try:
        yaml = importlib.import_module("yaml")
    except ImportError:
        raise ValueError("YAML needs Python's module yaml (PyYAML); JSON needs nothing") from None
    try:
        return yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise ValueError(f"no YAML: {error}") from error


def _parse(path: str, document: Any) -> _Spec:
    if not isinstance(document, dict):
        raise ValueError("it is no object")
    _check_keys(document, _KEYS, "it")
    version, kind = document.get("cdiVersion"), document.get("kind")
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise ValueError(f"cdiVersion {version!r} is none of 0.3.0 to 1.1.0")
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        raise ValueError(f"kind {kind!r} is not VENDOR/CLASS")
    listed = document.get("devices")
    if not isinstance(listed, list) or not listed:
        raise ValueError("it has no devices")
    devices: dict[str, Edits] = {}
    for item in listed:
        if not isinstance(item, dict):
            raise ValueError("a device is no object")
        _check_keys(item, _DEVICE_KEYS, "a device")
        name = item.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"the device name {name!r} is invalid")
        whole = f"{kind}={name}"
        if whole in devices:
            raise ValueError(f"it has the device {name} twice")
        devices[whole] = Edits.parse(item.get("containerEdits"))
    return _Spec(path, Edits.parse(document.get("containerEdits")), devices)


def _check_keys(table: Mapping[Any, Any], known: set[str], what: str) -> None:
    unknown = sorted(map(str, table.keys() - known))
    if unknown:
        raise ValueError(f"{what} has unknown keys: {', '.join(unknown)}")
