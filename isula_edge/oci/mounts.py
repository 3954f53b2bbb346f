"""``-v``, ``--mount`` and ``--tmpfs`` as entries of the runtime-spec's ``mounts``."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from isula_edge import errors
from isula_edge.oci.values import parse_size

__all__ = ["Mount", "clean", "parse_mount", "parse_tmpfs", "parse_volume", "unique"]

_PROPAGATION = ("private", "rprivate", "slave", "rslave", "shared", "rshared")


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount a user asked for.

    ``kind`` is bind or tmpfs; ``source`` a host path or ''; ``target`` a path inside;
    ``options`` are flags and what a tmpfs knows besides.  A mount of kind image shows
    ``sub_path`` of the image with the id ``image``, whose chain ids, the lowest first, are
    ``layers``.  The maps are (id inside, id on the host, size) of an id-mapped mount.
    """

    kind: str
    source: str
    target: str
    read_only: bool = False
    propagation: str = "rprivate"
    options: tuple[str, ...] = ()
    recursive_read_only: bool = False
    image: str = ""
    layers: tuple[str, ...] = ()
    sub_path: str = ""
    uid_maps: tuple[tuple[int, int, int], ...] = ()
    gid_maps: tuple[tuple[int, int, int], ...] = ()

    def spec(self) -> dict[str, Any]:
        """As the runtime-spec has it."""
        flags = ["ro" if self.read_only else "rw"]
        if self.kind == "bind":
            return {
                "destination": self.target,
                "type": "bind",
                "source": self.source,
                "options": ["rbind", self.propagation, *flags, *self.options],
            }
        return {
            "destination": self.target,
            "type": "tmpfs",
            "source": "tmpfs",
            "options": [*flags, *self.options],
        }

    def record(self) -> dict[str, Any]:
        """As a plain map, for a record."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Mount:
        """The mount that :meth:`record` described."""
        data = dict(record)
        data["options"] = tuple(data["options"])
        data["layers"] = tuple(data.get("layers", ()))
        for name in ("uid_maps", "gid_maps"):
            data[name] = tuple(tuple(item) for item in data.get(name, ()))
        return cls(**data)


def clean(path: str) -> str:
    """The absolute ``path`` in the one way to write it; normpath() leaves two first slashes."""
    return "/" + os.path.normpath(path).lstrip("/")


def _bad(text: str, why: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(
        f"Invalid volume specification '{text}'{why}", kind="mount", ref=text
    )


def _check_target(target: str) -> str:
    if not target.startswith("/") or clean(target) == "/":
        raise errors.InvalidArgument(
            "Invalid volume: path must be absolute, and destination can't be '/'",
            kind="mount",
            ref=target,
        )
    return clean(target)


def parse_volume(text: str) -> Mount:
    """``SRC:DST[:MODES]`` with an absolute SRC; named and anonymous volumes are refused.

    Modes are ``ro rw z Z`` and one propagation.  A missing source is made by the engine.
    """
    fields = text.split(":")
    if not all(fields) or len(fields) > 3:
        raise _bad(text, "")
    if len(fields) == 1 or not fields[0].startswith("/"):
        raise errors.Unimplemented(
            f"volume {text}: named and anonymous volumes are not served yet",
            kind="mount",
            ref=text,
            hint="give an absolute host path: -v /host/dir:/dir",
        )
    if not fields[1].startswith("/") and len(fields) == 2:
        raise _bad(text, f",Invalid mode:{fields[1]}")
    read_only, propagation = False, ""
    seen: set[str] = set()
    for mode in fields[2].split(",") if len(fields) == 3 else ():
        group = "propagation" if mode in _PROPAGATION else "rw" if mode in ("ro", "rw") else mode
        if mode == "nocopy":
            raise _bad(text, f",Invalid mode {mode} for type bind")
        if mode not in (*_PROPAGATION, "ro", "rw", "z", "Z") or group.lower() in seen:
            raise _bad(text, f".Invalid mode:{fields[2]}")
        seen.add(group.lower())
        if mode in _PROPAGATION:
            propagation = mode
        read_only = read_only or mode == "ro"
    return Mount(
        "bind",
        clean(fields[0]),
        _check_target(fields[1]),
        read_only,
        propagation or "rprivate",
    )


_MOUNT_KEYS = {
    "type": "type",
    "src": "source",
    "source": "source",
    "dst": "destination",
    "destination": "destination",
    "target": "destination",
    "ro": "readonly",
    "readonly": "readonly",
    "bind-propagation": "bind-propagation",
    "tmpfs-size": "tmpfs-size",
    "tmpfs-mode": "tmpfs-mode",
}


def _bad_mount(text: str, why: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(
        f"Invalid mount specification '{text}'.{why}", kind="mount", ref=text
    )


def _mount_fields(text: str) -> dict[str, str]:
    table: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        name = _MOUNT_KEYS.get(key)
        if name is None:
            raise _bad_mount(text, f"Unsupported item:{key}")
        if name in table:
            raise _bad_mount(text, f"More than one {name} found")
        table[name] = value if equals else "true"
    return table


def parse_mount(text: str) -> Mount:
    """``type=bind|tmpfs,src=…,dst=…,…``."""
    table = _mount_fields(text)
    kind = table.get("type", "volume")
    if kind in ("volume", "squashfs"):
        raise errors.Unimplemented(
            f"mount type {kind} is not served yet", kind="mount", ref=text, hint="use type=bind"
        )
    if kind not in ("bind", "tmpfs"):
        raise _bad_mount(text, "Type must be one of squashfs/bind/volume/tmpfs")
    if "destination" not in table:
        raise _bad_mount(text, "Missing destination")
    target = table["destination"]
    if not target.startswith("/"):
        raise _bad_mount(text, "Destination must be absolute path")
    target = clean(target)
    if target == "/":
        raise _bad_mount(text, "Destination can't be '/'")
    word = table.get("readonly", "false")
    if word not in ("true", "false", "1", "0"):
        raise _bad_mount(text, f"Invalid readonly mode:{word}")
    read_only = word in ("true", "1")
    if kind == "tmpfs":
        return _tmpfs_mount(text, table, target, read_only)
    return _bind_mount(text, table, target, read_only)


def _bind_mount(text: str, table: dict[str, str], target: str, read_only: bool) -> Mount:
    source = table.get("source", "")
    if not source:
        raise _bad_mount(text, "Missing source")
    if not source.startswith("/"):
        raise _bad_mount(text, "Source must be absolute path")
    if "tmpfs-size" in table or "tmpfs-mode" in table:
        raise _bad_mount(text, "Cannot mix tmpfs options with type bind")
    propagation = table.get("bind-propagation", "rprivate")
    if propagation not in _PROPAGATION:
        raise _bad_mount(text, f"Invalid propagation mode:{propagation}")
    if not os.path.exists(source):
        raise _bad_mount(text, f"Source {source} not exist")
    return Mount("bind", clean(source), target, read_only, propagation)


def _tmpfs_mount(text: str, table: dict[str, str], target: str, read_only: bool) -> Mount:
    if "source" in table:
        raise _bad_mount(text, "Source must not be specified")
    if "bind-propagation" in table:
        raise _bad_mount(text, "Cannot mix bind options with type tmpfs")
    options = ["noexec", "nosuid", "nodev"]
    if "tmpfs-size" in table:
        try:
            options.append(f"size={parse_size('mount', table['tmpfs-size'])}")
        except errors.InvalidArgument:
            raise _bad_mount(text, f"Invalid tmpfs-size:{table['tmpfs-size']}") from None
    mode = table.get("tmpfs-mode", "1777")
    if not mode.isdigit() or any(digit not in "01234567" for digit in mode):
        raise _bad_mount(text, f"Invalid tmpfs-mode:{mode}")
    return Mount("tmpfs", "", target, read_only, "", (*options, f"mode={mode}"))


def parse_tmpfs(text: str) -> Mount:
    """``DST[:options]`` of ``--tmpfs``; options go to mount(2) after noexec,nosuid,nodev."""
    target, _, rest = text.partition(":")
    options = ["noexec", "nosuid", "nodev"]
    for option in rest.split(",") if rest else ():
        opposite = {"exec": "noexec", "suid": "nosuid", "dev": "nodev"}.get(option)
        if opposite in options:
            options.remove(opposite)
        elif option not in options:
            options.append(option)
    if not any(option.startswith("mode=") for option in options):
        options.append("mode=1777")
    read_only = "ro" in options
    kept = tuple(option for option in options if option not in ("ro", "rw"))
    return Mount("tmpfs", "", _check_target(target), read_only, "", kept)


def unique(mounts: list[Mount]) -> list[Mount]:
    """``mounts`` sorted by target; InvalidArgument when one target is named twice."""
    seen: set[str] = set()
    for mount in mounts:
        if mount.target in seen:
            raise errors.InvalidArgument(
                f"Duplicate mount point: {mount.target}", kind="mount", ref=mount.target
            )
        seen.add(mount.target)
    return sorted(mounts, key=lambda mount: mount.target)
