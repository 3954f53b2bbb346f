"""Users and groups by the container's own files (case A31j: the same ones for run and exec)."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.oci.user import User, resolve_user

if TYPE_CHECKING:
    from pathlib import Path

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
# comment:x:9:9::/:/bin/sh

app:x:1000:1001:An App:/home/app:/bin/sh
nohome:x:1002:1002:::/bin/sh
4242:x:7:8:a name of digits:/digits:/bin/sh
short:x:5:5
"""
GROUP = """\
root:x:0:
app:x:1001:
audio:x:29:app,other
video:x:44:other,app
wheel:x:10:root
apple:x:50:apple,app2
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    return tmp_path


USERS = [
    ("", User(0, 0, (10,), "/root")),
    ("root", User(0, 0, (10,), "/root")),
    ("0", User(0, 0, (10,), "/root")),
    ("app", User(1000, 1001, (29, 44), "/home/app")),
    ("1000", User(1000, 1001, (29, 44), "/home/app")),
    ("nohome", User(1002, 1002, (), "/")),
    # a name of digits goes before the number
    ("4242", User(7, 8, (), "/digits")),
    # a number that is in no file has the group 0
    ("555", User(555, 0, (), "/")),
    ("4294967294", User(4294967294, 0, (), "/")),
    # with a group given there are no others
    ("app:audio", User(1000, 29, (), "/home/app")),
    ("app:29", User(1000, 29, (), "/home/app")),
    ("app:777", User(1000, 777, (), "/home/app")),
    ("1000:app", User(1000, 1001, (), "/home/app")),
    ("555:audio", User(555, 29, (), "/")),
    ("555:666", User(555, 666, (), "/")),
    (":audio", User(0, 29, (), "/root")),
    ("app:", User(1000, 1001, (29, 44), "/home/app")),
]


def with_primary(user: User) -> User:
    """The same user with its primary group among the others."""
    return User(user.uid, user.gid, tuple(sorted({*user.groups, user.gid})), user.home)


@pytest.mark.parametrize(("text", "expected"), USERS)
def test_users_and_groups(root: Path, text: str, expected: User) -> None:
    assert resolve_user(str(root), text) == with_primary(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", User(0, 0, (), "/")),
        ("0", User(0, 0, (), "/")),
        ("1000", User(1000, 0, (), "/")),
        ("1000:1001", User(1000, 1001, (), "/")),
    ],
)
def test_numbers_need_no_files(tmp_path: Path, text: str, expected: User) -> None:
    assert resolve_user(str(tmp_path), text) == with_primary(expected)


@pytest.mark.parametrize(
    "name", ["nobody", "App", "short", "# comment", "-1", "4294967295", "99999999999", "1000 ", "٣"]
)
def test_a_user_that_is_not_there(root: Path, name: str) -> None:
    with pytest.raises(errors.InvalidArgument) as found:
        resolve_user(str(root), name)
    assert str(found.value) == f"unable to find user {name}: no matching entries in passwd file"
    assert found.value.ref == name


@pytest.mark.parametrize("name", ["nogroup", "-1", "4294967295"])
def test_a_group_that_is_not_there(root: Path, name: str) -> None:
    message = f"unable to find group {name}: no matching entries in group file"
    for text, more in ((f"app:{name}", ()), ("app", (name,))):
        with pytest.raises(errors.InvalidArgument) as found:
            resolve_user(str(root), text, more)
        assert str(found.value) == message


def test_a_name_without_files_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidArgument, match="unable to find user root"):
        resolve_user(str(tmp_path), "root")
    with pytest.raises(errors.InvalidArgument, match="unable to find group root"):
        resolve_user(str(tmp_path), "0:root")


def test_more_groups_are_added_and_sorted(root: Path) -> None:
    assert resolve_user(str(root), "app", ["wheel", "5", "audio"]).groups == (5, 10, 29, 44, 1001)
    assert resolve_user(str(root), "app:app", ["wheel", "5"]).groups == (5, 10, 1001)
    assert resolve_user(str(root), "555", ["video"]).groups == (0, 44)


def test_links_stay_inside_the_root(root: Path) -> None:
    """An image may say /etc/passwd -> /other/passwd, and means its own."""
    (root / "other").mkdir()
    (root / "other/passwd").write_text("inside:x:77:78::/in:/bin/sh\n")
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").symlink_to("/other/passwd")
    assert resolve_user(str(root), "inside").uid == 77
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").symlink_to("../../../../other/passwd")
    assert resolve_user(str(root), "inside").uid == 77


def test_bytes_that_are_no_text_harm_nobody_else(root: Path) -> None:
    (root / "etc/passwd").write_bytes(b"caf\xe9:x:5:5::/:/bin/sh\n" + PASSWD.encode())
    assert resolve_user(str(root), "app").uid == 1000


def test_a_directory_in_place_of_a_file_is_no_file(root: Path) -> None:
    (root / "etc/group").unlink()
    (root / "etc/group").mkdir()
    assert resolve_user(str(root), "app") == with_primary(User(1000, 1001, (), "/home/app"))


@pytest.mark.parametrize("number", ["", "abc", "-5", "4294967295", "1e3", "\u0663", "9" * 5000])
def test_an_entry_without_a_number_is_not_root(root: Path, number: str) -> None:
    (root / "etc/passwd").write_text(f"app:x:{number}:1000::/:/bin/sh\n")
    with pytest.raises(errors.InvalidArgument, match="user app has no valid numbers"):
        resolve_user(str(root), "app")


def test_an_entry_without_a_group_number_is_not_in_roots_group(root: Path) -> None:
    (root / "etc/passwd").write_text("app:x:1000:abc::/:/bin/sh\n")
    assert resolve_user(str(root), "app:audio").gid == 29
    with pytest.raises(errors.InvalidArgument, match="user app has no valid numbers"):
        resolve_user(str(root), "app")


def test_a_fifo_in_place_of_a_file_holds_nobody_up(root: Path) -> None:
    path = root / "etc/passwd"
    path.unlink()
    os.mkfifo(path)
    # open for both, so that opening it does not wait: reading it does
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    found: list[User] = []
    thread = threading.Thread(target=lambda: found.append(resolve_user(str(root), "0")))
    thread.start()
    thread.join(0.5)
    held_up = thread.is_alive()
    os.close(fd)
    thread.join()
    assert not held_up


@pytest.mark.parametrize(
    ("text", "memberships", "groups"),
    [
        ("app", True, (29, 44, 1001)),
        ("app:777", True, (29, 44, 777)),
        ("1000:777", True, (29, 44, 777)),
        ("555:777", True, (777,)),
        ("app", False, (1001,)),
        ("app:777", False, (777,)),
    ],
)
def test_groups_of_kubernetes(
    root: Path, text: str, memberships: bool, groups: tuple[int, ...]
) -> None:
    """Merge and Strict of SupplementalGroupsPolicy."""
    found = resolve_user(str(root), text, ["4"], memberships=memberships)
    assert found.groups == (4, *groups)
