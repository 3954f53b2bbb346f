"""Mounts of an OCI runtime-spec as LXC's ``lxc.mount`` items (lxc.container.conf(5)).

An entry is a line of fstab(5) that glibc's getmntent_r(3) reads into a buffer of PATH_MAX
bytes: it decodes a blank, a tab, a line feed and a backslash, takes a line that begins with
``#`` for a comment, and cuts a longer one without a word.  What it would not give back as it
was written is refused here.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.runtime.base import binds
from isula_edge.sys import syscalls
from isula_edge.sys.paths import resolve, resolve_in_root

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = [
    "BIND_FLAGS",
    "clean",
    "fstab_escape",
    "inside",
    "is_bind",
    "is_shared",
    "lines",
    "mount_entry",
    "own_dev",
    "stage",
]

BIND_FLAGS = {
    "nosuid": (syscalls.MS_NOSUID, os.ST_NOSUID),
    "nodev": (syscalls.MS_NODEV, os.ST_NODEV),
    "noexec": (syscalls.MS_NOEXEC, os.ST_NOEXEC),
    "noatime": (1 << 10, os.ST_NOATIME),
    "nodiratime": (1 << 11, os.ST_NODIRATIME),
    "relatime": (1 << 21, os.ST_RELATIME),
    "strictatime": (1 << 24, 0),
}
"""Flags that each bind of a source can have: what mount(2) and statvfs(3) have for them."""

_OPPOSITES = {"suid": "nosuid", "dev": "nodev", "exec": "noexec"}
_PROC = {"nosuid", "noexec", "nodev"}
"""What LXC mounts /proc with by itself."""
_LONGEST = 4095


def clean(path: str) -> str:
    """A path inside in the one way to write it, which cannot go up from the root."""
    return "/" + os.path.normpath(f"/{path}").lstrip("/")


def fstab_escape(text: str) -> str:
    """``text`` as one field of fstab(5); InvalidArgument for what that cannot hold."""
    for char in "\r\0":
        if char in text:
            raise errors.InvalidArgument(
                f"mount: {text!r} has a carriage return or NUL, which runtime lxc cannot take",
                kind="mount",
                ref=text,
                hint="remove it, or use --runtime runc",
            )
    for char in "\\ \t\n":
        text = text.replace(char, f"\\{ord(char):03o}")
    return text


def mount_entry(source: str, target: str, options: Iterable[str]) -> str:
    """A line that binds host path ``source`` to ``target`` inside."""
    return _entry(source, target, "none", options) + "\n"


def _entry(source: str, target: str, kind: str, options: Iterable[str]) -> str:
    source = source or "none"
    fields = [
        fstab_escape(source),
        fstab_escape(clean(target).lstrip("/")),
        fstab_escape(kind or "none"),
        fstab_escape(",".join(options) or "defaults"),
    ]
    value = f"{' '.join(fields)} 0 0"
    if source.startswith("#"):
        raise errors.InvalidArgument(
            f"mount on {target}: runtime lxc takes a source that begins with # for a comment",
            kind="mount",
            ref=target,
            hint="use --runtime runc",
        )
    if len(value.encode("utf-8", "surrogateescape")) >= _LONGEST:
        raise errors.InvalidArgument(
            f"mount on {target[:80]} is longer than the {_LONGEST} bytes that runtime lxc reads",
            kind="mount",
            ref=target,
            hint="use shorter paths and options, or --runtime runc",
        )
    return f"lxc.mount.entry = {value}"


def is_bind(mount: Mapping[str, Any]) -> bool:
    """Whether it is a bind mount."""
    return mount.get("type") == "bind" or bool({"bind", "rbind"} & set(mount.get("options") or ()))


def is_shared(mount: Mapping[str, Any]) -> bool:
    """Whether mounts made inside are to be seen on the host, which LXC itself cannot do."""
    return bool({"shared", "rshared"} & set(mount.get("options") or ()))


def own_dev(spec: Mapping[str, Any]) -> bool:
    """Whether /dev is the container's own: on a bind of the host's nothing may be made."""
    return not any(
        clean(mount["destination"]) == "/dev" and is_bind(mount)
        for mount in spec.get("mounts") or ()
    )


def inside(spec: Mapping[str, Any], name: str) -> str:
    """Where a file of ours is in the container: in /dev, or in the root."""
    return f"/dev/{name}" if own_dev(spec) else f"/.{name}"


def stage(spec: Mapping[str, Any], run_dir: str) -> None:
    """Mounts sources with the flags that LXC would not give them, below ``run_dir``.

    They are unmounted with everything else that is staged there.
    """
    for number, mount in enumerate(spec.get("mounts") or ()):
        flags = _lost(mount)
        if not flags:
            continue
        source, place = mount["source"], _staged(run_dir, number)
        if os.path.isdir(source):
            os.makedirs(place, 0o711)
        else:
            os.makedirs(os.path.dirname(place), 0o711, exist_ok=True)
            os.close(os.open(place, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        syscalls.mount(source, place, "none", syscalls.MS_BIND | syscalls.MS_REC)
        syscalls.mount("", place, "", syscalls.MS_BIND | syscalls.MS_REMOUNT | flags)


def _staged(run_dir: str, number: int) -> str:
    return f"{run_dir}/mounts/f{number}"


def lines(spec: Mapping[str, Any], linux: Mapping[str, Any], run_dir: str) -> Iterator[str]:
    """The lines for all mounts, in their order; those of LXC's own come first."""
    auto: list[str] = []
    entries: list[str] = []
    fresh: list[str] = []
    for number, mount in enumerate(spec.get("mounts") or ()):
        target, kind = clean(mount["destination"]), mount.get("type", "")
        options = list(mount.get("options") or ())
        if (target, kind) == ("/dev/pts", "devpts"):
            continue
        word = _automatic(target, kind, options)
        if word:
            auto.append(word)
        elif not is_shared(mount):
            source = _staged(run_dir, number) if _lost(mount) else mount.get("source") or ""
            made = list(_create(target, source, fresh))
            entries.append(_mount_line(mount, source, target, [*options, *made]))
        fresh = [path for path in fresh if not f"{path}/".startswith(f"{target}/")]
        if kind == "tmpfs":
            fresh.append(target)
    if auto:
        yield f"lxc.mount.auto = {' '.join(auto)}"
    yield from entries
    yield from _hidden(spec, linux)


def _automatic(target: str, kind: str, options: list[str]) -> str:
    """LXC's word for a mount that it makes itself with just these options, or ''."""
    flag = "ro" if "ro" in options else "rw"
    rest = set(options) - {"ro", "rw", "relatime", "defaults"}
    if (kind, target) == ("proc", "/proc") and rest == _PROC and flag == "rw":
        # there is no proc:ro, but an entry for it is a mount as any other
        return "proc:rw"
    if (kind, target) == ("sysfs", "/sys") and not rest:
        return f"sys:{flag}"
    if kind in ("cgroup", "cgroup2") and target == "/sys/fs/cgroup":
        return f"cgroup:{flag}:force"
    return ""


def _mount_line(mount: Mapping[str, Any], source: str, target: str, options: list[str]) -> str:
    kind = mount.get("type", "")
    bind = is_bind(mount)
    if bind and not {"bind", "rbind"} & set(options):
        options.insert(0, "rbind")
    return _entry(source or kind, target, "none" if bind else kind, options)


def _lost(mount: Mapping[str, Any]) -> int:
    """Flags of mount(2) that a bind is to have, its source has not, and LXC does not set.

    Raises Unimplemented for one that the source has and the bind is not to have.
    """
    options, source = mount.get("options") or (), mount.get("source") or ""
    if not is_bind(mount) or is_shared(mount):
        return 0
    try:
        present = os.statvfs(source).f_flag
    except (OSError, ValueError):
        return 0
    for option in options:
        flag = _OPPOSITES.get(option, "")
        if flag and present & BIND_FLAGS[flag][1]:
            raise errors.Unimplemented(
                f"runtime lxc cannot mount {source} on {mount['destination']} with {option}: "
                f"its file system is mounted with {flag}",
                kind="mount",
                ref=mount["destination"],
                hint="use --runtime runc",
            )
    wanted = [option for option in options if option in BIND_FLAGS]
    # LXC (5 and later) sets them where it makes a bind read-only, and nowhere else
    if "ro" in options or all(present & BIND_FLAGS[option][1] for option in wanted):
        return 0
    kept = [name for name, (_, shown) in BIND_FLAGS.items() if present & shown]
    if set(wanted) & {"noatime", "strictatime"}:
        kept = [name for name in kept if not name.endswith("atime")]
    return sum(BIND_FLAGS[name][0] for name in {*wanted, *kept})


def _create(target: str, source: str, fresh: list[str]) -> Iterator[str]:
    """What makes a target that is on a new file system: /dev, or one of the mounts before."""
    if any(target.startswith(f"{path}/") for path in ("/dev", *fresh)):
        is_file = source.startswith("/") and os.path.exists(source) and not os.path.isdir(source)
        yield "create=file" if is_file else "create=dir"


# paths that are hidden or read-only


def _hidden(spec: Mapping[str, Any], linux: Mapping[str, Any]) -> Iterator[str]:
    for path in linux.get("readonlyPaths") or ():
        where, _, tail = _place(spec, path)
        options = ("rbind", "ro", "relative", *tail)
        yield _entry(where.lstrip("/"), where, "none", options)
    for path in linux.get("maskedPaths") or ():
        where, folder, tail = _place(spec, path)
        if folder:
            yield _entry("tmpfs", where, "tmpfs", ("ro", "size=0k", *tail))
        else:
            yield _entry("/dev/null", where, "none", ("bind", *tail))


def _place(spec: Mapping[str, Any], path: str) -> tuple[str, bool, tuple[str, ...]]:
    """Where ``path`` leads inside, whether to a directory, and ``optional`` for a missing one.

    With ``optional`` LXC goes on after every failure, so what is there is mounted without:
    a path that cannot be hidden keeps the container from starting.
    """
    plain = clean(path)
    if plain.startswith(("/proc/", "/sys/")):
        top = "/" + plain.split("/")[1]
        mounted = any(clean(item["destination"]) == top for item in spec.get("mounts") or ())
        there = mounted and os.path.lexists(plain)
        return plain, os.path.isdir(plain), () if there else ("optional",)
    root = spec["root"]["path"]
    found = resolve(root, plain, [(clean(target), source) for target, source in binds(spec)])
    # a link is followed here, since LXC mounts on none
    where = resolve_in_root(root, plain)[len(root) :] or "/"
    there = bool(found) and os.path.lexists(found)
    return where, bool(found) and os.path.isdir(found), () if there else ("optional",)
