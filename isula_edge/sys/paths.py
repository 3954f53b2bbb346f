"""Paths inside a root file system, resolved as a process inside it would see them.

Symbolic links of an image are hostile input: ``/etc/resolv.conf -> /proc/1/root/etc/shadow``
must never lead the engine out of the container's root.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from isula_edge import errors

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ensure_target", "find_program", "resolve", "resolve_in_root"]

_MAX_LINKS = 40


def resolve_in_root(root: str, path: str) -> str:
    """``path`` with every link resolved inside ``root``, as a host path below ``root``.

    Components that do not exist are kept as they are, so the answer can be created.
    Raises InvalidArgument when there are more than 40 links (a loop).
    """
    todo = [part for part in path.split("/") if part not in ("", ".")]
    todo.reverse()
    done: list[str] = []
    links = 0
    while todo:
        part = todo.pop()
        if part == ".":
            continue
        if part == "..":
            if done:
                done.pop()
            continue
        here = "/".join((root, *done, part))
        try:
            target = os.readlink(here)
        except OSError:
            done.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise errors.InvalidArgument(f"too many symbolic links in {path}", ref=path)
        if target.startswith("/"):
            done = []
        todo.extend(p for p in reversed(target.split("/")) if p not in ("", "."))
    return "/".join((root, *done))


def ensure_target(root: str, path: str, *, directory: bool) -> str:
    """The resolved host path of mount target ``path`` in ``root``, made when missing.

    Missing parents and a missing directory are made 0755, a missing file 0644 and empty.
    Raises FailedPrecondition when a file is in the way of a directory or the reverse.
    """
    target = resolve_in_root(root, path)
    parent = target if directory else os.path.dirname(target)
    try:
        os.makedirs(parent, 0o755, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise errors.FailedPrecondition(
            f"cannot mount on {path}: a file is in the way", ref=path
        ) from error
    if directory:
        return target
    try:
        fd = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
        os.close(fd)
    except FileExistsError:
        if stat.S_ISDIR(os.lstat(target).st_mode):
            raise errors.FailedPrecondition(
                f"cannot mount a file on {path}: it is a directory", ref=path
            ) from None
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
    return target


def resolve(root: str, path: str, mounts: Sequence[tuple[str, str]] = ()) -> str:
    """As :func:`resolve_in_root`, with ``mounts`` over the root: (path inside, host's path).

    '' when ``path`` lies on a mount that is no bind of a host's path.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    inside = "/" + "/".join(parts)
    if ".." in parts:
        inside = resolve_in_root(root, inside)[len(root) :] or "/"
    # the deepest one that covers a path is what is seen
    deepest = sorted(mounts, key=lambda item: len(item[0]), reverse=True)
    for _ in range(_MAX_LINKS):
        for target, source in deepest:
            if inside == target or inside.startswith(target.rstrip("/") + "/"):
                rest = inside[len(target) :]
                return (resolve_in_root(source, rest) if rest else source) if source else ""
        found = resolve_in_root(root, inside)
        following = found[len(root) :] or "/"
        if following == inside:
            return found
        inside = following
    return ""


def find_program(
    root: str,
    program: str,
    search_path: str,
    cwd: str = "/",
    mounts: Sequence[tuple[str, str]] = (),
) -> tuple[str, str]:
    """Where execvp(3) inside ``root`` finds ``program``: path inside, and the host's path.

    ``mounts`` as for :func:`resolve`; the host's path is '' for the first candidate that
    lies on one of which nothing is known.  Raises CommandNotFound, or CommandNotExecutable
    when it is there without execute permission or is a directory.
    """
    base = cwd.rstrip("/")
    if "/" in program:
        candidates = [program if program.startswith("/") else f"{base}/{program}"]
    elif program:
        # an empty or relative part is one of the working directory
        folders = [
            part if part.startswith("/") else f"{base}/{part}" for part in search_path.split(":")
        ]
        candidates = [f"{folder.rstrip('/')}/{program}" for folder in folders]
    else:
        candidates = []
    blocked = ""
    for inside in candidates:
        host = resolve(root, inside, mounts)
        if not host:
            return inside, ""
        try:
            mode = os.stat(host, follow_symlinks=False).st_mode
        except OSError:
            continue
        if stat.S_ISREG(mode) and mode & 0o111:
            return inside, host
        blocked = "is a directory" if stat.S_ISDIR(mode) else "permission denied"
    if blocked:
        raise errors.CommandNotExecutable(
            f'exec: "{program}": {blocked}', kind="command", ref=program
        )
    where = "no such file or directory" if "/" in program else "executable file not found in $PATH"
    raise errors.CommandNotFound(f'exec: "{program}": {where}', kind="command", ref=program)
