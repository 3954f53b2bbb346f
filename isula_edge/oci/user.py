"""Users and groups as the container's own /etc/passwd and /etc/group have them."""

from __future__ import annotations

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
    try:
        with open(resolve_in_root(root, path), encoding="utf-8", errors="surrogateescape") as file:
            text = file.read(_MAX_FILE)
    except OSError:
        return []
    return [line.split(":") for line in text.splitlines() if line and line[0] != "#"]


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and int(text) <= _MAX_ID else None


def resolve_user(root: str, text: str, group_add: Iterable[str] = ()) -> User:
    """``user[:group]`` (names or numbers) as numbers, read below ``root``.

    Supplementary groups are those that /etc/group lists for the user, none of them when a
    group was given, as Docker and runc do (case A31j).  Raises InvalidArgument for a name
    that is in neither file.
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
    uid = _number(entry[2]) if entry else number
    gid = _number(entry[3]) if entry else 0
    home = (entry[5] if entry else "") or "/"
    extra: set[int] = set()
    if group:
        gid = _find_group(groups, group)
    elif entry is not None:
        for row in groups:
            value = _number(row[2])
            members = row[3].split(",") if len(row) > 3 else []
            if value is not None and entry[0] in members:
                extra.add(value)
    for item in group_add:
        extra.add(_find_group(groups, item))
    return User(uid or 0, gid or 0, tuple(sorted(extra)), home)


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
