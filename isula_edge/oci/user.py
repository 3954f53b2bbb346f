"""Users and groups as the container's own /etc/passwd and /etc/group have them."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.sys.paths import resolve_in_root

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["User", "resolve_user"]

_MAX_FILE = 1 << 20
_MAX_ID = 2**32 - 2


@dataclass(frozen=True, slots=True)
class User:
    """Numbers of a user in a container; ``home`` is / when nothing is known."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str = "/"


def _lines(root: str, path: str) -> list[list[str]]:
    """Fields of each line; none where the image has something else than a file."""
    target = resolve_in_root(root, path)
    try:
        # nothing else is opened: a FIFO holds up whoever does, a device may do anything
        if not stat.S_ISREG(os.lstat(target).st_mode):
            return []
        fd = os.open(target, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            text = os.read(fd, _MAX_FILE).decode("utf-8", "surrogateescape")
        finally:
            os.close(fd)
    except OSError:
        return []
    return [line.split(":") for line in text.splitlines() if line and line[0] != "#"]


def _number(text: str) -> int | None:
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        return None
    return int(text) if int(text) <= _MAX_ID else None


def resolve_user(
    root: str, text: str, group_add: Iterable[str] = (), *, memberships: bool | None = None
) -> User:
    """``user[:group]`` (names or numbers) as numbers, read below ``root``.

    Supplementary groups are ``group_add`` and with ``memberships`` those that /etc/group
    lists for the user; None is without them when a group was given, as Docker and runc do
    (case A31j).  Raises InvalidArgument for a name that is in neither file, and for an entry
    whose numbers are none.
    """
    name, _, group = text.partition(":")
    name = name or "0"
    users = [row for row in _lines(root, "/etc/passwd") if len(row) >= 6]
    groups = [row for row in _lines(root, "/etc/group") if len(row) >= 3]
    number = _number(name)
    entry = next((row for row in users if row[0] == name), None)
    if entry is None and number is not None:
        entry = next((row for row in users if row[2] == str(number)), None)
    if entry is None and number is None:
        raise errors.InvalidArgument(
            f"unable to find user {name}: no matching entries in passwd file",
            kind="user",
            ref=name,
        )
    uid = number if entry is None else _number(entry[2])
    home = (entry[5] if entry else "") or "/"
    gid: int | None = 0
    extra: set[int] = set()
    if group:
        gid = _find_group(groups, group)
    elif entry is not None:
        gid = _number(entry[3])
    wanted = not group if memberships is None else memberships
    if entry is not None and wanted:
        extra = _memberships(groups, entry[0])
    if uid is None or gid is None:
        raise errors.InvalidArgument(
            f"user {name} has no valid numbers in its passwd file", kind="user", ref=name
        )
    extra |= {_find_group(groups, item) for item in group_add}
    # the primary group too, as login(1) does: a process that changes its primary group must
    # not get past what a file denies to the old one (CVE-2022-2989)
    extra.add(gid)
    return User(uid, gid, tuple(sorted(extra)), home)


def _memberships(groups: list[list[str]], name: str) -> set[int]:
    found = {_number(row[2]) for row in groups if len(row) > 3 and name in row[3].split(",")}
    return {number for number in found if number is not None}


def _find_group(groups: list[list[str]], text: str) -> int:
    entry = next((row for row in groups if row[0] == text), None)
    found = _number(entry[2]) if entry else _number(text)
    if found is None:
        raise errors.InvalidArgument(
            f"unable to find group {text}: no matching entries in group file",
            kind="group",
            ref=text,
        )
    return found
