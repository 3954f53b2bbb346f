"""Paths inside a root: hostile links never lead out of it, programs are found as inside."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isula_edge import errors
from isula_edge.sys.paths import ensure_target, find_program, resolve_in_root

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with links of every kind, and a secret beside it."""
    (tmp_path / "secret").write_text("secret")
    top = tmp_path / "root"
    for folder in ("etc", "usr/bin", "a/b/c"):
        (top / folder).mkdir(parents=True)
    links = {
        "bin": "usr/bin",
        "absolute": "/etc",
        "up": "../../../../secret",
        "etc/out": "../../secret",
        "host": "/proc/1/root/etc/shadow",
        "dot": ".",
        "chain": "absolute",
        "loop": "loop",
        "ping": "pong",
        "pong": "ping",
        "slashes": "//etc///",
        "a/b/c/back": "../../..",
        "dangling": "/new/place",
        "exact": str(tmp_path / "secret"),
    }
    for name, target in links.items():
        (top / name).symlink_to(target)
    (top / "etc/passwd").write_text("")
    return top


RESOLVED = {
    "": "",
    "/": "",
    ".": "",
    "etc/passwd": "/etc/passwd",
    "/etc//./passwd/": "/etc/passwd",
    "..": "",
    "../../../etc": "/etc",
    "/etc/../../../etc": "/etc",
    "bin/sh": "/usr/bin/sh",
    "absolute/passwd": "/etc/passwd",
    "chain/passwd": "/etc/passwd",
    "slashes/passwd": "/etc/passwd",
    "dot/dot/dot/etc": "/etc",
    "up": "/secret",
    "etc/out": "/secret",
    "host": "/proc/1/root/etc/shadow",
    "a/b/c/back/etc": "/etc",
    "bin/../lib": "/usr/lib",
    "dangling/file": "/new/place/file",
    "missing/x/../y": "/missing/y",
}


@pytest.mark.parametrize("path", RESOLVED)
def test_a_path_is_resolved_as_inside_the_root(root: Path, path: str) -> None:
    assert resolve_in_root(str(root), path) == f"{root}{RESOLVED[path]}"


def test_an_absolute_link_to_a_path_of_the_host_stays_inside(root: Path, tmp_path: Path) -> None:
    assert resolve_in_root(str(root), "exact") == f"{root}{tmp_path}/secret"


@pytest.mark.parametrize("path", ["loop", "ping", "etc/../loop/x"])
def test_a_loop_of_links_is_refused(root: Path, path: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="too many symbolic links"):
        resolve_in_root(str(root), path)


@pytest.mark.parametrize(("count", "fine"), [(40, True), (41, False)])
def test_forty_links_are_the_limit(tmp_path: Path, count: int, fine: bool) -> None:
    for number in range(count):
        (tmp_path / str(number)).symlink_to(str(number + 1))
    if fine:
        assert resolve_in_root(str(tmp_path), "0") == f"{tmp_path}/{count}"
    else:
        with pytest.raises(errors.InvalidArgument):
            resolve_in_root(str(tmp_path), "0")


PARTS = st.sampled_from(["..", ".", "", "etc", "bin", "up", "host", "absolute", "a", "b", "back"])


@given(parts=st.lists(PARTS, max_size=12))
@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_no_path_leads_out(root: Path, parts: list[str]) -> None:
    found = resolve_in_root(str(root), "/".join(parts))
    assert found == str(root) or found.startswith(f"{root}/")
    assert ".." not in found[len(str(root)) :].split("/")
    assert os.path.realpath(found) == found


def test_a_missing_directory_is_made_through_links_inside(root: Path) -> None:
    assert ensure_target(str(root), "/dangling/x", directory=True) == f"{root}/new/place/x"
    assert (root / "new/place/x").is_dir()


def test_a_missing_file_is_made_empty(root: Path) -> None:
    found = ensure_target(str(root), "/var/lib/resolv.conf", directory=False)
    assert found == f"{root}/var/lib/resolv.conf"
    assert stat.S_ISREG(os.lstat(found).st_mode)
    assert os.path.getsize(found) == 0


def test_what_is_there_is_left_alone(root: Path) -> None:
    (root / "etc/passwd").write_text("root")
    assert ensure_target(str(root), "/etc/passwd", directory=False) == f"{root}/etc/passwd"
    assert ensure_target(str(root), "/etc", directory=True) == f"{root}/etc"
    assert (root / "etc/passwd").read_text() == "root"


def test_a_link_to_the_host_makes_its_target_inside(root: Path, tmp_path: Path) -> None:
    ensure_target(str(root), "/host", directory=False)
    assert (root / "proc/1/root/etc/shadow").is_file()
    assert ensure_target(str(root), "/up", directory=False) == f"{root}/secret"
    assert (tmp_path / "secret").read_text() == "secret"


@pytest.mark.parametrize(
    ("path", "directory"),
    [
        ("/etc/passwd", True),
        ("/etc/passwd/below", True),
        ("/etc/passwd/below", False),
        ("/etc", False),
    ],
)
def test_what_is_in_the_way_is_named(root: Path, path: str, directory: bool) -> None:
    with pytest.raises(errors.FailedPrecondition, match=path) as caught:
        ensure_target(str(root), path, directory=directory)
    assert caught.value.ref == path


@pytest.fixture
def programs(root: Path) -> Path:
    for name, mode in (("usr/bin/sh", 0o755), ("usr/bin/text", 0o644), ("etc/tool", 0o711)):
        (root / name).write_text("")
        (root / name).chmod(mode)
    (root / "etc/text").write_text("")
    (root / "etc/text").chmod(0o755)
    (root / "usr/bin/link").symlink_to("/etc/tool")
    (root / "usr/bin/folder").mkdir()
    return root


FOUND = [
    ("sh", "/bin", "/", "/bin/sh", "/usr/bin/sh"),
    ("sh", "/nowhere:/usr/bin", "/", "/usr/bin/sh", "/usr/bin/sh"),
    ("/bin/sh", "", "/", "/bin/sh", "/usr/bin/sh"),
    ("./sh", "/etc", "/usr/bin", "/usr/bin/./sh", "/usr/bin/sh"),
    ("bin/sh", "/etc", "/usr", "/usr/bin/sh", "/usr/bin/sh"),
    ("link", "/bin", "/", "/bin/link", "/etc/tool"),
    ("tool", "/bin:", "/etc", "/etc/tool", "/etc/tool"),
    # one without permission does not end the search
    ("text", "/usr/bin:/etc", "/", "/etc/text", "/etc/text"),
]


@pytest.mark.parametrize(("program", "search", "cwd", "inside", "host"), FOUND)
def test_a_program_is_found_as_execvp_does(
    programs: Path, program: str, search: str, cwd: str, inside: str, host: str
) -> None:
    found = find_program(str(programs), program, search, cwd)
    assert found == (inside, f"{programs}{host}")


def test_a_relative_part_of_path_is_below_the_working_directory(programs: Path) -> None:
    found = find_program(str(programs), "sh", "bin", "/usr")
    assert found == ("/usr/bin/sh", f"{programs}/usr/bin/sh")
    (programs / "bin").unlink()
    assert find_program(str(programs), "sh", "bin", "/usr")[1] == f"{programs}/usr/bin/sh"


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("absent", "executable file not found in $PATH"),
        ("/bin/absent", "no such file or directory"),
        ("bin/absent", "no such file or directory"),
        ("/etc/passwd/x", "no such file or directory"),
    ],
)
def test_a_command_that_does_not_exist(programs: Path, program: str, text: str) -> None:
    with pytest.raises(errors.CommandNotFound) as caught:
        find_program(str(programs), program, "/bin:/usr/bin")
    assert str(caught.value) == f'exec: "{program}": {text}'
    assert caught.value.exit_status == 127


@pytest.mark.parametrize(
    ("program", "text"),
    [("/bin/text", "permission denied"), ("text", "permission denied"), ("/etc", "is a directory")],
)
def test_a_command_that_cannot_be_executed(programs: Path, program: str, text: str) -> None:
    with pytest.raises(errors.CommandNotExecutable, match=text) as caught:
        find_program(str(programs), program, "/bin")
    assert caught.value.exit_status == 126


def test_an_empty_command_does_not_exist(programs: Path) -> None:
    with pytest.raises(errors.CommandNotFound):
        find_program(str(programs), "", "/bin")
