"""What runtimes cannot mount themselves: prepared on the host, handed over as a plain bind.

Below ``<run_dir>/mounts`` there is, from the preparation of a start until the container runs,
one bind for each recursive read-only mount, each id-mapped one and each image volume; of a
container with a user namespace, for everything that is bound, since its root may not walk
through the host's directories.  The container holds copies, so the host's go at once.

A run directory is only ever deleted by :func:`clear`: whatever is still mounted there is
somebody's data.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.snapshot.base import Ids, remove_tree
from isula_edge.snapshot.filesystem import backing_filesystem, sharing
from isula_edge.snapshot.mapped import why_not_mapped
from isula_edge.sys import mounts, paths, syscalls
from isula_edge.sys.userns import acting_as, host_id, new_user_namespace
from isula_edge.types import ChainId

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from isula_edge.oci.mounts import Mount
    from isula_edge.oci.options import Settings
    from isula_edge.snapshot.base import Driver
    from isula_edge.snapshot.layers import LayerStore
    from isula_edge.sys.userns import IdMap

__all__ = [
    "Features",
    "as_root_inside",
    "bind_devices",
    "check_search",
    "check_shared",
    "check_volumes",
    "clear",
    "features",
    "reachable",
    "stage",
    "supports_user_namespaces",
    "unstage",
    "users",
]

_log = logging.getLogger(__name__)
_STREAMS = ("/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/fd", "/dev/core")
"""Links of the host's that are no devices of anybody else."""
_FLAGS = {
    "noexec": (syscalls.MOUNT_ATTR_NOEXEC, syscalls.MS_NOEXEC),
    "nosuid": (syscalls.MOUNT_ATTR_NOSUID, syscalls.MS_NOSUID),
    "nodev": (syscalls.MOUNT_ATTR_NODEV, syscalls.MS_NODEV),
}
"""Words of mount(8), and what mount_setattr(2) and mount(2) have for them."""
# absent, refused by a sandbox, or before Linux 5.12 without the attribute
_NO_NEW_CALLS = (errno.ENOSYS, errno.EPERM, errno.EINVAL)


@dataclass(frozen=True, slots=True)
class Features:
    """What of this module the kernel and the storage driver can do."""

    recursive_read_only: bool
    user_namespaces: bool


def features(driver: Driver) -> Features:
    """User namespaces are tried, not looked up, which takes some milliseconds.

    Recursive read-only mounts need no kernel newer than LXC does (:func:`stage`).
    """
    return Features(recursive_read_only=True, user_namespaces=not why_not_mapped(driver))


def supports_user_namespaces(name: str, program: str) -> bool:
    """Whether runtime ``name``, at ``program``, starts containers in a pod's user namespace."""
    return name == "lxc" or os.path.basename(program) in ("runc", "crun")


# user namespaces


@contextlib.contextmanager
def users(settings: Settings) -> Iterator[Ids | None]:
    """The user namespace that the container joins or gets, None without one.

    Raises FailedPrecondition when it is gone.
    """
    if not settings.uid_maps:
        yield None
        return
    with _namespace(settings.uid_maps, settings.gid_maps, settings.join.get("user")) as fd:
        yield Ids(fd, host_id(settings.uid_maps), host_id(settings.gid_maps))


@contextlib.contextmanager
def _namespace(
    uid_maps: Sequence[IdMap], gid_maps: Sequence[IdMap], path: str | None = ""
) -> Iterator[int]:
    """A descriptor of the namespace at ``path``, or of a new one with these maps."""
    try:
        if path:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        else:
            fd = new_user_namespace(uid_maps, gid_maps)
    except OSError as error:
        raise errors.FailedPrecondition(
            f"no user namespace with these maps: {error}", kind="namespace", ref=path or "user"
        ) from error
    try:
        yield fd
    finally:
        os.close(fd)


def as_root_inside(ids: Ids | None) -> AbstractContextManager[None]:
    """What the calling thread makes belongs to root of the container's user namespace."""
    return contextlib.nullcontext() if ids is None else acting_as(ids.uid, ids.gid)


def check_search(path: str, ids: Ids) -> None:
    """Raises FailedPrecondition for a directory above ``path`` that root inside may not search."""
    folder = os.path.dirname(path)
    while True:
        found = os.stat(folder)
        if not found.st_mode & (stat.S_IXGRP if found.st_gid == ids.gid else stat.S_IXOTH):
            raise errors.FailedPrecondition(
                f"root of the user namespace may not search {folder}, where LXC mounts from",
                kind="directory",
                ref=folder,
                hint=f"chmod o+x {folder}, or put graph and state elsewhere",
            )
        if folder == "/":
            return
        folder = os.path.dirname(folder)


def bind_devices(document: dict[str, Any]) -> None:
    """Device nodes as binds of the host's: root of a user namespace may make none.

    Raises FailedPrecondition for one that the host has no node of.
    """
    linux = document["linux"]
    kept = []
    for device in linux.pop("devices", ()):
        if device["type"] == "p":
            kept.append(device)
        elif device["path"] not in _STREAMS:
            bind = {"destination": device["path"], "type": "bind", "source": _node(device)}
            document["mounts"].append({**bind, "options": ["bind", "rprivate", "rw"]})
    if kept:
        linux["devices"] = kept


def _node(device: dict[str, Any]) -> str:
    where = str(device["path"])
    wanted = os.makedev(device["major"], device["minor"])
    kind = stat.S_IFBLK if device["type"] == "b" else stat.S_IFCHR
    names = (f"{folder}/{name}" for folder, _, found in os.walk("/dev") for name in found)
    for path in itertools.chain([where], names):
        with contextlib.suppress(OSError):
            found = os.stat(path, follow_symlinks=False)
            if found.st_rdev == wanted and stat.S_IFMT(found.st_mode) == kind:
                return path
    raise errors.FailedPrecondition(
        f"device {where} has no node on the host that a container with a user namespace "
        "could be given",
        kind="device",
        ref=where,
    )


def reachable(document: dict[str, Any], run_dir: str) -> None:
    """Binds every source of ``document`` into the run directory.

    LXC mounts as root of the user namespace, who may not search directories of the host's.
    """
    places = f"{run_dir}/mounts"
    for number, mount in enumerate(document["mounts"]):
        if mount["type"] == "bind" and not mount["source"].startswith(f"{places}/"):
            place = f"{places}/b{number}"
            with mounts.copied(mount["source"]) as fd:
                mounts.attach(fd, place)
            mount["source"] = place


# mounts


def stage(settings: Settings, run_dir: str, layers: LayerStore, ids: Ids | None) -> list[Mount]:
    """The mounts of a container as a runtime can do them; a missing source is made.

    Raises FailedPrecondition naming what a source lacks, Unimplemented naming the kernel's
    feature, NotFound for a path that an image does not have.
    """
    found = []
    for number, mount in enumerate(settings.mounts):
        place = f"{run_dir}/mounts/{number}"
        if mount.kind == "image":
            found.append(_image_volume(mount, place, layers, ids))
            continue
        if mount.kind == "bind" and not os.path.exists(mount.source):
            os.makedirs(os.path.realpath(mount.source), 0o755, exist_ok=True)
        flags = mount.kind == "bind" and any(map(_FLAGS.get, mount.options))
        if mount.recursive_read_only or mount.uid_maps or flags:
            _stage_bind(settings, mount, place)
            mount = replace(mount, source=place)
        found.append(mount)
    return found


def _stage_bind(settings: Settings, mount: Mount, place: str) -> None:
    private = mount.propagation in ("", "private", "rprivate")
    flags = [_FLAGS[option] for option in mount.options if option in _FLAGS]
    try:
        with mounts.copied(mount.source) as fd:
            if private:
                syscalls.mount_setattr(fd, 0, propagation=syscalls.MS_PRIVATE)
            if mount.uid_maps:
                path = ""
                if list(mount.uid_maps) == settings.uid_maps:
                    path = settings.join.get("user") or ""
                with _namespace(mount.uid_maps, mount.gid_maps, path) as userns:
                    _map(mount, fd, userns)
            if mount.recursive_read_only:
                syscalls.mount_setattr(fd, syscalls.MOUNT_ATTR_RDONLY)
            # LXC heeds flags of a bind only when it is read-only
            attributes = sum(attribute for attribute, _ in flags)
            syscalls.mount_setattr(fd, attributes, recursive=False)
            mounts.attach(fd, place)
    except OSError as error:
        if mount.uid_maps:
            raise errors.Unimplemented(
                f"the kernel cannot map the ids of {mount.source}: {error.strerror}",
                kind="mount",
                ref=mount.source,
                hint="it needs mount_setattr(2), Linux 5.12",
            ) from error
        if error.errno not in _NO_NEW_CALLS:
            raise errors.FailedPrecondition(
                f"{mount.source} cannot be mounted: {error.strerror}",
                kind="mount",
                ref=mount.source,
            ) from error
        classic = sum(flag for _, flag in flags)
        read_only = mount.recursive_read_only
        mounts.bind_in_steps(mount.source, place, classic, private=private, read_only=read_only)


def _map(mount: Mount, fd: int, userns: int) -> None:
    """Ids of everything below too, or of the source alone where something below cannot."""
    for recursive in (True, False):
        try:
            mounts.map_ids(fd, userns, recursive=recursive)
        except OSError as error:
            problem = error
        else:
            return
    raise errors.FailedPrecondition(
        f"{mount.source} cannot be mounted with ids of a user namespace: its file system, "
        f"{backing_filesystem(mount.source)}, has no id-mapped mounts ({problem.strerror})",
        kind="mount",
        ref=mount.source,
        hint="use a volume on ext4, xfs, btrfs or tmpfs, or set hostUsers to true",
    ) from problem


def _image_volume(mount: Mount, place: str, layers: LayerStore, ids: Ids | None) -> Mount:
    """The image's files, read-only whatever was asked for, as a bind."""
    if ".." in mount.sub_path.split("/"):
        raise errors.InvalidArgument(
            f"path {mount.sub_path} in an image must not go up", kind="mount", ref=mount.sub_path
        )
    tree = f"{place}.image"
    dirs = layers.dirs([ChainId(layer) for layer in mount.layers])
    root = layers.driver.image(tree, dirs, ids)
    try:
        source = paths.resolve_in_root(root, mount.sub_path)
        if not os.path.lexists(source):
            raise errors.NotFound(
                f"image {mount.image[:12]} has no {mount.sub_path} to mount on {mount.target}",
                kind="mount",
                ref=mount.sub_path,
            )
        _bind_read_only(source, place)
    finally:
        mounts.detach(tree)
    return replace(mount, kind="bind", source=place, read_only=True, propagation="rprivate")


def _bind_read_only(source: str, place: str) -> None:
    """Also before Linux 5.2: with mount(2), which takes two calls."""
    os.makedirs(os.path.dirname(place), 0o711, exist_ok=True)
    if os.path.isdir(source):
        os.mkdir(place, 0o711)
    else:
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    syscalls.mount(source, place, "none", syscalls.MS_BIND)
    syscalls.mount("", place, "", syscalls.MS_PRIVATE)
    again = syscalls.MS_BIND | syscalls.MS_REMOUNT
    syscalls.mount("", place, "", again | syscalls.MS_RDONLY)


def check_volumes(settings: Settings, scratch: str, layers: LayerStore) -> None:
    """Raises NotFound for an image volume whose path its image does not have.

    ``scratch`` is a directory that may be made, and is gone afterwards.
    """
    try:
        for number, mount in enumerate(settings.mounts):
            if mount.kind == "image" and mount.sub_path:
                _image_volume(mount, f"{scratch}/mounts/{number}", layers, None)
    finally:
        clear(scratch)


def check_shared(settings: Settings) -> None:
    """Raises FailedPrecondition for a bind whose propagation its source does not have."""
    for mount in settings.mounts:
        wanted = mount.propagation.removeprefix("r")
        if mount.kind != "bind" or wanted not in ("shared", "slave"):
            continue
        point, shared, slave = sharing(mount.source)
        if shared or (slave and wanted == "slave"):
            continue
        kinds = "shared" if wanted == "shared" else "shared or slave"
        raise errors.FailedPrecondition(
            f'path "{mount.source}" is mounted on "{point}" but it is not a {kinds} mount',
            kind="mount",
            ref=mount.source,
            hint=f"mount --make-rshared {point}",
        )


# the end


def unstage(run_dir: str) -> None:
    """Takes away what :func:`stage` and :func:`reachable` made; nothing there is fine."""
    with contextlib.suppress(FileNotFoundError), os.scandir(f"{run_dir}/mounts") as entries:
        for entry in entries:
            mounts.detach(entry.path)


def clear(run_dir: str) -> None:
    """Deletes a run directory, unless something stays mounted there; absent is fine."""
    unstage(run_dir)
    left = mounts.below(run_dir) if os.path.isdir(f"{run_dir}/mounts") else []
    if left:
        _log.error("%s stays: %s is mounted there", run_dir, left[0])
        return
    remove_tree(run_dir)
