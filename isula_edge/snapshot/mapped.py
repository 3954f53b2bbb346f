"""Root file systems whose files belong to users of a user namespace.

On the disk everything keeps the number that it has inside: layers are shared with other
containers, and a writable layer can be started with other ids, or exported.  The kernel
translates: at a bind of a whole tree, or at every layer of an overlay (Linux 5.19).

Binds of layers exist only in the mount namespace of a thread that ends at once: what a
crash leaves can then never be taken for a directory and deleted with everything in it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.snapshot.base import Ids, rw_dir
from isula_edge.snapshot.overlay_mount import enter, new_overlay, short_names
from isula_edge.sys import mounts, syscalls
from isula_edge.sys.userns import acting_as, new_user_namespace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isula_edge.snapshot.base import Driver
    from isula_edge.snapshot.overlay_mount import Request

__all__ = ["bind_mapped", "let_in", "mount_mapped", "whole_image", "why_not_mapped"]

_UP = "up"
_VALUE = 255
"""The longest value that fsconfig(2) takes."""


def bind_mapped(source: str, place: str, ids: Ids) -> None:
    """Binds the tree at ``source`` to ``place``; Unimplemented where its ids cannot be mapped."""
    try:
        mounts.bind(source, place, ids.userns)
    except OSError as error:
        raise _refused("id-mapped mounts of the graph directory", error) from error


def let_in(folder: str, gid: int) -> None:
    """Root of a user namespace, whose group is ``gid``, and no other user may search it."""
    os.chown(folder, 0, gid)
    os.chmod(folder, 0o710)  # noqa: S103  # its group is that root's alone


def why_not_mapped(driver: Driver) -> str:
    """Why root file systems cannot be shown with other ids; '' if they can.  It is tried."""
    name = f"try-{os.urandom(4).hex()}"
    maps = [(0, 100_000, 65_536)]
    try:
        userns = new_user_namespace(maps, maps)
    except OSError as error:
        return error.strerror or str(error)
    try:
        driver.create(name, ())
        base = rw_dir(driver.home, name)
        lowers = [f"rw/{name}/{part}" for part in ("a", "b")]
        for lower in lowers:
            os.mkdir(f"{driver.home}/{lower}")
        seen = driver.mount(name, lowers, ids=Ids(userns, 100_000, 100_000)).path
        return "" if os.stat(seen).st_uid == 100_000 else f"{base} keeps its ids"
    except errors.Unimplemented as error:
        return error.message
    finally:
        os.close(userns)
        driver.remove(name)


def whole_image(home: str, place: str, lowers: Sequence[str], ids: Ids | None) -> str:
    """The tree of an image of one layer, or none, bound to ``place`` only to map its ids."""
    if not lowers:
        os.makedirs(place, 0o755, exist_ok=True)
        return place
    source = f"{home}/{lowers[0]}"
    if ids is None:
        return source
    bind_mapped(source, place, ids)
    return place


def mount_mapped(home: str, fstype: str, request: Request, ids: Ids) -> None:
    """Mounts as the request says, with the ids of all layers mapped."""
    found: list[int | OSError] = []

    def work() -> None:
        try:
            found.append(_overlay(home, fstype, request, ids))
        except OSError as error:
            found.append(error)

    # a mount namespace of its own, which goes with it
    thread = threading.Thread(target=work, name="mapped")
    thread.start()
    thread.join()
    made = found[0]
    if isinstance(made, OSError):
        raise _refused("overlay over id-mapped layers", made) from made
    try:
        syscalls.move_mount(made, os.path.join(home, request.target))
    finally:
        os.close(made)


def _overlay(home: str, fstype: str, request: Request, ids: Ids) -> int:
    enter()
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", "", syscalls.MS_PRIVATE | syscalls.MS_REC)
    sources = [f"{home}/{lower}" for lower in request.lowers]
    names = short_names(len(sources))
    if not request.place:
        sources.append(f"{home}/{request.base}")
        names.append(_UP)
    with contextlib.ExitStack() as stack:
        copies = [stack.enter_context(mounts.copied(path, recursive=False)) for path in sources]
        # it hides the directory that the copies were made of, for this thread alone
        syscalls.mount("none", home, "tmpfs", 0, "mode=711")
        os.chdir(home)
        for fd, name in zip(copies, names, strict=True):
            mounts.map_ids(fd, ids.userns, recursive=False)
            mounts.attach(fd, f"{home}/{name}")
        return _made(fstype, request, names[: len(request.lowers)], ids)


def _made(fstype: str, request: Request, lowers: Sequence[str], ids: Ids) -> int:
    joined = ":".join(lowers)
    each = [("lowerdir+", name) for name in lowers]
    words = [("lowerdir", joined)] if len(joined) <= _VALUE else each
    # the kernel does the container's writing as whoever mounts, and makes a directory now
    with acting_as(ids.uid, ids.gid):
        return new_overlay(fstype, request, [*words, *request.above(_UP)])


def _refused(what: str, error: OSError) -> errors.Unimplemented:
    return errors.Unimplemented(
        f"a container with a user namespace needs {what}: {error.strerror}",
        kind="feature",
        ref="user-namespaces",
        hint="Linux 5.19 on ext4, xfs, btrfs or tmpfs has it; else set hostUsers to true",
    )
