"""What a CDI device changes in a container: ``containerEdits``."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.oci.mounts import Mount, clean
from isula_edge.oci.options import check_hook

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from isula_edge.oci.options import Settings

__all__ = ["Edits"]

_HOOKS = (
    "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
)  # fmt: skip
_PROPAGATION = ("private", "rprivate", "slave", "rslave", "shared", "rshared")
_FLAGS = (
    "nosuid", "suid", "nodev", "dev", "noexec", "exec", "noatime", "atime", "nodiratime",
    "diratime", "relatime", "norelatime", "strictatime", "nostrictatime", "sync", "async",
)  # fmt: skip
_TMPFS = re.compile(r"(size|mode|nr_inodes|nr_blocks|uid|gid)=[0-9]+[kmgKMG%]?")
_MODE = 0o666
_MAX_ID = 2**32 - 1


@dataclass(slots=True)
class Edits:
    """Edits of one device or of several; checked when they were parsed.

    ``unserved`` are keys of the CDI that no runtime here can do.
    """

    env: list[str] = field(default_factory=list)
    nodes: list[dict[str, Any]] = field(default_factory=list)
    mounts: list[dict[str, Any]] = field(default_factory=list)
    hooks: list[dict[str, Any]] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    unserved: list[str] = field(default_factory=list)

    @classmethod
    def parse(cls, table: Any) -> Edits:
        """The edits in a document; ValueError for what is none of the CDI."""
        found = cls()
        if table is None:
            return found
        if not isinstance(table, dict):
            raise ValueError("containerEdits is no object")
        for key, value in table.items():
            read = _READERS.get(key)
            if read is None:
                raise ValueError(f"containerEdits has an unknown key: {key}")
            if value:
                read(found, value)
        return found

    def add(self, other: Edits) -> None:
        """Adds the edits of ``other`` behind these."""
        self.env += other.env
        self.nodes += other.nodes
        self.mounts += other.mounts
        self.hooks += other.hooks
        self.groups += other.groups
        self.unserved += other.unserved

    def apply(self, settings: Settings) -> None:
        """Changes ``settings``, or raises and leaves them; what is at a path is replaced."""
        if self.unserved:
            raise errors.Unimplemented(
                f"CDI edits that are not served: {', '.join(sorted(set(self.unserved)))}",
                kind="feature",
            )
        nodes = {item["path"]: _node(item) for item in self.nodes}
        mounts = {item["containerPath"]: _mount(item) for item in self.mounts}
        hooks = {name: list(known or ()) for name, known in settings.hooks.items()}
        for item in self.hooks:
            hook = {key: item[key] for key in ("path", "args", "env", "timeout") if item.get(key)}
            # that of startContainer is a path inside
            if item["hookName"] != "startContainer":
                check_hook(hook)
            hooks.setdefault(item["hookName"], []).append(hook)
        settings.env += self.env
        settings.devices = [item for item in settings.devices if item[1] not in nodes]
        kept = [item for item in settings.device_nodes if item["path"] not in nodes]
        settings.device_nodes = [*kept, *nodes.values()]
        others = [item for item in settings.mounts if item.target not in mounts]
        settings.mounts = sorted([*others, *mounts.values()], key=lambda item: item.target)
        settings.hooks = hooks
        settings.group_add += [str(group) for group in dict.fromkeys(self.groups) if group]


def _node(item: Mapping[str, Any]) -> dict[str, Any]:
    """A device of the runtime-spec, and its ``access``; the host's node says what is missing."""
    path = item.get("hostPath") or item["path"]
    kind, major, minor = item.get("type"), item.get("major"), item.get("minor")
    mode = item.get("fileMode")
    if not kind or (kind != "p" and not major):
        found = _device(path)
        host = "b" if stat.S_ISBLK(found.st_mode) else "c"
        if kind and {"u": "c"}.get(kind, kind) != host:
            raise errors.FailedPrecondition(
                f"CDI device {path} is of type {host}, not {kind}", kind="device", ref=path
            )
        kind, major, minor = host, os.major(found.st_rdev), os.minor(found.st_rdev)
        mode = stat.S_IMODE(found.st_mode) if mode is None else mode
    node = {"path": item["path"], "type": kind, "fileMode": _MODE if mode is None else mode}
    if kind != "p":
        node.update(major=major, minor=minor or 0)
    node.update({key: item[key] for key in ("uid", "gid") if item.get(key) is not None})
    access = item.get("permissions") or "rwm"
    return {**node, "access": "" if access == "none" or kind == "p" else access}


def _device(path: str) -> os.stat_result:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        raise errors.FailedPrecondition(
            f"CDI device {path} not found", kind="device", ref=path
        ) from None
    if not stat.S_ISCHR(found.st_mode) and not stat.S_ISBLK(found.st_mode):
        raise errors.FailedPrecondition(f"{path} is no device", kind="device", ref=path)
    return found


def _mount(item: Mapping[str, Any]) -> Mount:
    options: list[str] = list(item.get("options") or ())
    kind, target = item.get("type") or "bind", clean(item["containerPath"])
    source = item["hostPath"]
    if kind == "tmpfs":
        rest = [word for word in options if word not in ("ro", "rw")]
        _known(item, [word for word in rest if not _TMPFS.fullmatch(word)], _FLAGS)
        return Mount("tmpfs", "", target, "ro" in options, "", tuple(rest))
    if kind not in ("bind", "none") and not {"bind", "rbind"} & set(options):
        raise errors.Unimplemented(
            f"CDI mounts of type {kind} are not served", kind="mount", ref=item["containerPath"]
        )
    if not os.path.exists(source):
        raise errors.FailedPrecondition(
            f"source {source} of a CDI mount not found", kind="mount", ref=source
        )
    handled = {"bind", "rbind", "ro", "rw", "rro", *_PROPAGATION}
    rest = [word for word in options if word not in handled]
    _known(item, rest, _FLAGS)
    propagation = [word for word in options if word in _PROPAGATION]
    return Mount(
        "bind",
        clean(source),
        target,
        read_only="ro" in options or "rro" in options,
        propagation=propagation[-1] if propagation else "rprivate",
        options=tuple(rest),
        recursive_read_only="rro" in options,
    )


def _known(item: Mapping[str, Any], words: list[str], known: tuple[str, ...]) -> None:
    for word in words:
        if word not in known:
            raise errors.Unimplemented(
                f"option {word} of a CDI mount is not served",
                kind="mount",
                ref=item["containerPath"],
            )


# reading


def _texts(value: Any, what: str) -> list[str]:
    if not isinstance(value, list) or not all(_is_text(item) for item in value):
        raise ValueError(f"{what} is no list of texts")
    return value


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not re.search("[\0\ud800-\udfff]", value)


def _variables(value: Any, what: str) -> list[str]:
    found = _texts(value, what)
    for item in found:
        if item.find("=") < 1:
            raise ValueError(f"{what} has {item!r}, which is no NAME=VALUE")
    return found


def _read_env(edits: Edits, value: Any) -> None:
    edits.env = _variables(value, "env")


def _read_nodes(edits: Edits, value: Any) -> None:
    for item in _objects(value, "deviceNodes", _NODE):
        _absolute(item["path"], "path")
        if clean(item["path"]) == "/":
            raise ValueError("a device node cannot be /")
        if item.get("type") not in (None, "", "b", "c", "u", "p"):
            raise ValueError(f"deviceNodes has the type {item['type']!r}")
        access = item.get("permissions") or "rwm"
        if access != "none" and not set(access) <= set("rwm"):
            raise ValueError(f"deviceNodes has the permissions {access!r}")
        edits.nodes.append({**item, "path": clean(item["path"])})


def _read_mounts(edits: Edits, value: Any) -> None:
    for item in _objects(value, "mounts", _MOUNT):
        _absolute(item["containerPath"], "containerPath")
        if item.get("type") != "tmpfs":
            _absolute(item["hostPath"], "hostPath")
        if clean(item["containerPath"]) == "/":
            raise ValueError("a mount cannot be at /")
        edits.mounts.append({**item, "containerPath": clean(item["containerPath"])})


def _read_hooks(edits: Edits, value: Any) -> None:
    for item in _objects(value, "hooks", _HOOK):
        if item["hookName"] not in _HOOKS:
            raise ValueError(f"hooks has the unknown hookName {item['hookName']!r}")
        _absolute(item["path"], "path")
        edits.hooks.append(item)


def _read_groups(edits: Edits, value: Any) -> None:
    if not isinstance(value, list) or not all(_is_number(item) for item in value):
        raise ValueError("additionalGids is no list of numbers")
    edits.groups = value


def _unserved(name: str) -> Callable[[Edits, Any], None]:
    return lambda edits, value: edits.unserved.append(name)


def _is_number(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MAX_ID


def _number(value: Any, what: str) -> int:
    if not _is_number(value):
        raise ValueError(f"{what} is no number")
    return int(value)


def _text(value: Any, what: str) -> str:
    if not _is_text(value):
        raise ValueError(f"{what} is no text")
    return str(value)


_NODE: dict[str, tuple[bool, Callable[[Any, str], Any]]] = {
    "path": (True, _text),
    "hostPath": (False, _text),
    "type": (False, _text),
    "permissions": (False, _text),
    **dict.fromkeys(("major", "minor", "fileMode", "uid", "gid"), (False, _number)),
}
_MOUNT: dict[str, tuple[bool, Callable[[Any, str], Any]]] = {
    "hostPath": (True, _text),
    "containerPath": (True, _text),
    "type": (False, _text),
    "options": (False, _texts),
}
_HOOK: dict[str, tuple[bool, Callable[[Any, str], Any]]] = {
    "hookName": (True, _text),
    "path": (True, _text),
    "args": (False, _texts),
    "env": (False, _variables),
    "timeout": (False, _number),
}
_READERS: dict[Any, Callable[[Edits, Any], None]] = {
    "env": _read_env,
    "deviceNodes": _read_nodes,
    "mounts": _read_mounts,
    "hooks": _read_hooks,
    # the specification writes it in both ways
    "additionalGids": _read_groups,
    "additionalGIDs": _read_groups,
    "intelRdt": _unserved("intelRdt"),
    "netDevices": _unserved("netDevices"),
}


def _objects(
    value: Any, what: str, keys: Mapping[str, tuple[bool, Callable[[Any, str], Any]]]
) -> list[dict[str, Any]]:
    """A list of objects with these keys: whether each must be there, and who reads it."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError(f"{what} is no list of objects")
    found = []
    for item in value:
        unknown = sorted(map(str, item.keys() - keys))
        if unknown:
            raise ValueError(f"{what} has unknown keys: {', '.join(unknown)}")
        checked = {}
        for key, (needed, read) in keys.items():
            if item.get(key) is not None:
                checked[key] = read(item[key], f"{key} of {what}")
            elif needed:
                raise ValueError(f"{what} lacks {key}")
        found.append(checked)
    return found


def _absolute(path: str, what: str) -> None:
    if not path.startswith("/"):
        raise ValueError(f"{what} {path!r} is not absolute")
