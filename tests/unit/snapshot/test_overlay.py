"""What the overlay drivers ask the kernel to mount, and what they make of its answers."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.snapshot import StorageOptions, overlay
from isula_edge.snapshot.base import remove_tree
from isula_edge.snapshot.overlay import Overlay, OverlayOne
from isula_edge.snapshot.overlay_mount import Mounter, Request
from isula_edge.sys import syscalls
from isula_edge.sys.boot import boot_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOWERS = ["top", "middle", "base"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("rw", *LOWERS):
        (tmp_path / name).mkdir()
    (tmp_path / "parameters").mkdir()
    monkeypatch.setattr(overlay, "_PARAMETERS", str(tmp_path / "parameters"))
    return tmp_path


class Asked(list[Request]):
    """What was to be mounted; ``refuse`` decides what is not."""

    def __init__(self) -> None:
        super().__init__()
        self.refuse: Callable[[Request], int] = lambda _request: 0


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    found = Asked()

    def mount(_self: Mounter, request: Request) -> None:
        found.append(request)
        number = found.refuse(request)
        if number:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Mounter, "mount", mount)
    return found


def made(home: Path, *words: str, flags: int = 0, one: bool = False) -> Overlay:
    driver = (OverlayOne if one else Overlay)(str(home), "overlay", StorageOptions(0, flags, words))
    driver.create("one", LOWERS)
    return driver


def test_layers_are_mounted_topmost_first(home: Path, asked: Asked) -> None:
    made(home).mount("one", LOWERS)
    assert asked == [Request("rw/one", tuple(LOWERS))]


def test_of_whole_trees_only_the_topmost(home: Path, asked: Asked) -> None:
    driver = made(home, one=True)
    found = driver.mount("one", LOWERS)
    assert asked == [Request("rw/one", ("top",))]
    assert found.data["LowerDir"] == f"{home}/top"


def test_what_a_distribution_has_switched_on_is_off(home: Path, asked: Asked) -> None:
    for name, value in (("metacopy", "Y"), ("redirect_dir", "N"), ("index", "Y"), ("xino", "Y")):
        (home / "parameters" / name).write_text(value + "\n")
    made(home).mount("one", LOWERS)
    assert asked[0].options == ("metacopy=off", "index=off")


def test_what_the_administrator_has_switched_on_stays_on(home: Path, asked: Asked) -> None:
    for name in ("metacopy", "index"):
        (home / "parameters" / name).write_text("Y\n")
    driver = made(home, "metacopy=on", flags=syscalls.MS_NODEV)
    driver.mount("one", LOWERS, read_only=True)
    assert asked[0].options == ("index=off", "metacopy=on")
    assert asked[0].flags == syscalls.MS_NODEV | syscalls.MS_RDONLY


def test_volatile_is_asked_for_and_the_boot_noted(home: Path, asked: Asked) -> None:
    made(home).mount("one", LOWERS, volatile=True)
    assert [request.options for request in asked] == [("volatile",)]
    assert (home / "rw/one/boot").read_text() == boot_id()


def test_a_kernel_that_cannot_is_asked_once(home: Path, asked: Asked) -> None:
    asked.refuse = lambda request: errno.EINVAL if "volatile" in request.options else 0
    driver = made(home)
    driver.create("two", LOWERS)
    driver.mount("one", LOWERS, volatile=True)
    driver.mount("two", LOWERS, volatile=True)
    assert [request.options for request in asked] == [("volatile",), (), ()]


def test_a_full_disk_is_no_reason_not_to_mount(
    home: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: str, *_arguments: object, **_options: object) -> None:
        raise errors.NoSpace(f"no space for {path}")

    driver = made(home)
    monkeypatch.setattr("isula_edge.sys.atomic.write", full)
    driver.mount("one", LOWERS, volatile=True)
    assert [request.options for request in asked] == [()]


def mark(home: Path, boot: str | None) -> Path:
    """The upper layer of a container that was mounted volatile in ``boot``."""
    (home / "rw/one/work/work/incompat/volatile").mkdir(parents=True)
    if boot is not None:
        (home / "rw/one/boot").write_text(boot)
    written = home / "rw/one/diff/written"
    written.write_text("x")
    return written


def test_in_the_same_boot_nothing_is_lost(home: Path, asked: Asked) -> None:
    driver = made(home)
    written = mark(home, boot_id())
    driver.mount("one", LOWERS)
    assert written.read_text() == "x"
    assert not (home / "rw/one/work/work/incompat/volatile").exists()
    assert len(asked) == 1


@pytest.mark.parametrize("boot", ["another", "", None])
def test_after_a_crash_the_layer_is_new(
    home: Path, asked: Asked, boot: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    (home / "top").chmod(0o711)
    driver = made(home)
    written = mark(home, boot)
    driver.mount("one", LOWERS)
    assert not written.exists()
    assert os.stat(home / "rw/one/diff").st_mode & 0o7777 == 0o711
    assert not (home / "rw/one/work/work/incompat").exists()
    assert "was not synced: gone" in caplog.text
    assert len(asked) == 1


def test_a_crash_in_the_middle_of_that_repeats_it(
    home: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = made(home)
    written = mark(home, "another")

    def crash(path: str) -> None:
        remove_tree(path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("isula_edge.snapshot.overlay.remove_tree", crash)
        with pytest.raises(KeyboardInterrupt):
            driver.mount("one", LOWERS)
    driver.mount("one", LOWERS)
    assert not written.exists()
    assert (home / "rw/one/diff").is_dir()
    assert not (home / "rw/one/work/work/incompat").exists()


@pytest.mark.parametrize("number", [errno.ENODEV, errno.EPERM])
def test_a_kernel_without_overlay_is_named(home: Path, asked: Asked, number: int) -> None:
    asked.refuse = lambda _request: number
    with pytest.raises(errors.Unimplemented, match="does not mount overlay") as caught:
        made(home).mount("one", LOWERS)
    assert "vfs" in caught.value.hint


def test_before_there_were_work_directories(home: Path, asked: Asked) -> None:
    asked.refuse = lambda request: errno.EINVAL if request.workdir else 0
    driver = OverlayOne(str(home), "overlayfs")
    driver.create("one", LOWERS)
    driver.mount("one", LOWERS)
    assert [request.workdir for request in asked] == [True, False]
    assert asked[1].data() == "lowerdir=top,upperdir=rw/one/diff"


def test_today_that_is_an_error(home: Path, asked: Asked) -> None:
    asked.refuse = lambda _request: errno.EINVAL
    with pytest.raises(OSError, match="Invalid argument"):
        made(home, one=True).mount("one", LOWERS)
    assert len(asked) == 1


def test_status_tells_what_is_in_effect(home: Path) -> None:
    found = dict(made(home, "metacopy=on", "userxattr").status())
    assert found["Using metacopy"] == found["userxattr"] == "true"
    assert found["Native Overlay Diff"] == "false"
    plain = dict(Overlay(str(home)).status())
    assert plain["Using metacopy"] == plain["userxattr"] == "false"
    assert plain["Native Overlay Diff"] == plain["Supports d_type"] == "true"
    assert plain["Project Quota"].startswith(("true", "false ("))
    assert sorted(os.listdir(home)) == sorted([*LOWERS, "parameters", "rw"])
