"""How an overlay is mounted: one page of options, else one by one, else by short links (A24)."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.snapshot import overlay_mount
from isula_edge.snapshot.overlay_mount import MAX_LOWERS, Mounter, Request, short_names
from isula_edge.sys import syscalls

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BASE = "rw/" + "c" * 64
PAGE = os.sysconf("SC_PAGE_SIZE")
SET, FLAG = syscalls.FSCONFIG_SET_STRING, syscalls.FSCONFIG_SET_FLAG


def lowers(count: int) -> tuple[str, ...]:
    return tuple(f"{number:024x}" for number in range(count))


def failing(number: int) -> Callable[..., int]:
    def call(*_arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    return call


class Kernel:
    """Remembers what it was asked to mount, and from which directory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        self.home = home
        self.mounts: list[tuple[str, str, int, str]] = []
        self.options: list[tuple[int, str, str]] = []
        self.attributes: list[int] = []
        self.moves: list[str] = []
        self.opened: list[int] = []
        self.dropped: list[int] = []
        self._calls = {
            "mount": self._mount,
            "fsopen": self._fsopen,
            "fsconfig": lambda _fd, command, key="", value="": self.options.append(
                (command, key, value)
            ),
            "fsmount": self._fsmount,
            "move_mount": lambda _fd, target: self.moves.append(target),
            "unshare": lambda _flags: None,
            "drop_effective": self.dropped.append,
        }
        for name, call in self._calls.items():
            monkeypatch.setattr(syscalls, name, call)

    def _mount(self, _source: str, target: str, _type: str, flags: int, data: str) -> None:
        self.mounts.append((os.path.relpath(os.getcwd(), self.home), target, flags, data))

    def _fsopen(self, _fstype: str) -> int:
        self.opened.append(os.open("/", os.O_RDONLY))
        return self.opened[-1]

    def _fsmount(self, _fd: int, attributes: int) -> int:
        self.attributes.append(attributes)
        return self._fsopen("")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Kernel:
    (tmp_path / BASE).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return Kernel(monkeypatch, tmp_path)


@pytest.fixture
def mount(kernel: Kernel, tmp_path: Path) -> Any:
    mounter = Mounter(str(tmp_path), "overlay")
    yield mounter.mount
    mounter.close()
    for fd in kernel.opened:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_options_are_relative_names(kernel: Kernel, mount: Callable[[Request], None]) -> None:
    mount(Request(BASE, ("a", "b"), syscalls.MS_RDONLY, ("index=off",)))
    data = f"lowerdir=a:b,upperdir={BASE}/diff,workdir={BASE}/work,index=off"
    assert kernel.mounts == [(".", f"{BASE}/merged", syscalls.MS_RDONLY, data)]
    assert not kernel.opened


def test_127_layers_fit_a_page_whatever_the_graph_is_called(
    kernel: Kernel, mount: Callable[[Request], None]
) -> None:
    mount(Request(BASE, lowers(127)))
    assert len(kernel.mounts) == 1
    assert len(kernel.mounts[0][3]) < PAGE


def test_a_page_is_enough_to_the_last_byte() -> None:
    empty = Request(BASE, ("",))
    room = PAGE - 1 - len(empty.data())
    assert Request(BASE, ("x" * room,)).fits()
    assert not Request(BASE, ("x" * (room + 1),)).fits()
    assert not Request(BASE, ("é" * (room // 2 + 1),)).fits()


def test_more_are_given_one_by_one(kernel: Kernel, mount: Callable[[Request], None]) -> None:
    names = lowers(MAX_LOWERS)
    flags = syscalls.MS_RDONLY | syscalls.MS_NODEV
    mount(Request(BASE, names, flags, ("metacopy=off", "volatile")))
    assert not kernel.mounts
    assert [value for _, key, value in kernel.options if key == "lowerdir+"] == list(names)
    rest = [option for option in kernel.options if option[1] != "lowerdir+"]
    assert rest == [
        (SET, "source", "overlay"),
        (SET, "upperdir", f"{BASE}/diff"),
        (SET, "workdir", f"{BASE}/work"),
        (SET, "metacopy", "off"),
        (FLAG, "volatile", ""),
        (FLAG, "ro", ""),
        (syscalls.FSCONFIG_CMD_CREATE, "", ""),
    ]
    assert kernel.attributes == [1 | 4]
    assert kernel.moves == [f"{BASE}/merged"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
@pytest.mark.parametrize("call", ["fsopen", "fsconfig"])
def test_where_that_is_denied_names_are_made_short(
    kernel: Kernel,
    mount: Callable[[Request], None],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    call: str,
) -> None:
    monkeypatch.setattr(syscalls, call, failing(number))
    names = lowers(MAX_LOWERS)
    mount(Request(BASE, names))
    ((here, target, _, data),) = kernel.mounts
    assert (here, target) == (f"{BASE}/lower", "../merged")
    listed = data.removeprefix("lowerdir=").partition(",")[0].split(":")
    assert data.endswith(",upperdir=../diff,workdir=../work")
    assert len(data) < 4096
    home = kernel.home
    found = [os.path.normpath(home / here / os.readlink(home / here / name)) for name in listed]
    assert found == [str(home / name) for name in names]


def test_an_old_kernel_knows_no_lowerdir_plus(
    kernel: Kernel, mount: Callable[[Request], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syscalls, "fsconfig", failing(errno.EINVAL))
    mount(Request(BASE, lowers(200)))
    assert [here for here, *_ in kernel.mounts] == [f"{BASE}/lower"]


def test_links_of_an_earlier_mount_are_put_right(
    kernel: Kernel, mount: Callable[[Request], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syscalls, "fsopen", failing(errno.ENOSYS))
    folder = kernel.home / BASE / "lower"
    folder.mkdir()
    (folder / "0").symlink_to("elsewhere")
    names = lowers(300)
    for _ in range(2):
        mount(Request(BASE, names))
        assert [os.readlink(folder / name) for name in short_names(300)] == [
            f"../../../{name}" for name in names
        ]
    assert len(kernel.mounts) == 2


def test_what_goes_wrong_later_is_not_hidden(
    kernel: Kernel, mount: Callable[[Request], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syscalls, "move_mount", failing(errno.EBUSY))
    with pytest.raises(OSError, match="busy"):
        mount(Request(BASE, lowers(300)))
    assert not kernel.mounts


def test_more_than_the_kernel_takes_is_refused_by_name(
    kernel: Kernel, mount: Callable[[Request], None]
) -> None:
    with pytest.raises(errors.Unimplemented, match="501 layers, the kernel mounts 500") as caught:
        mount(Request(BASE, lowers(MAX_LOWERS + 1)))
    assert caught.value.hint
    assert not kernel.mounts


def test_the_mounting_thread_is_bound_by_quotas_and_the_caller_stays_where_it_is(
    kernel: Kernel, mount: Callable[[Request], None], tmp_path: Path
) -> None:
    mount(Request(BASE, ("a",)))
    mount(Request(BASE, ("b",)))
    assert kernel.dropped == [24]


def test_short_names_are_different_and_short() -> None:
    found = short_names(MAX_LOWERS)
    assert len(set(found)) == MAX_LOWERS
    assert max(map(len, found)) == 2
    assert overlay_mount.MAX_LOWERS <= 36 + 36 * 36
