"""What every storage driver does, whatever a layer is made of below it."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from isula_edge.snapshot import Driver, LayerStore, choose_driver, driver_class
from isula_edge.snapshot.overlay import why_not
from isula_edge.sys import syscalls
from isula_edge.types import ChainId, Digest
from tests.disks import disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from _pytest.mark import ParameterSet

# a test of an overlay driver mounts; mount(2) of overlay is the kernel's own, also where
# the processor is emulated
DRIVERS = ("overlay", "overlay1", "vfs")
DIFF = Digest("sha256:" + "f" * 64)


class Graph:
    """A graph with layers made by hand."""

    def __init__(self, path: str, name: str, driver: Driver | None = None) -> None:
        self.path = path
        os.makedirs(f"{path}/storage/{name}/rw", exist_ok=True)
        self.store = LayerStore(path, name, driver)
        self.driver: Driver = self.store.driver
        self.chain: list[ChainId] = []

    def layer(self, files: Mapping[str, str | None], mode: int = 0o755) -> None:
        """A layer on the one before it; None removes what lies below, ``name/`` is opaque."""
        parent = self.chain[-1] if self.chain else None
        ingest = self.store.begin(parent)
        for name, text in files.items():
            path = f"{ingest.path}/{name}"
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if text is not None:
                # as unpacking does: a file that is there may be a lower layer's
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                with open(path, "w") as file:
                    file.write(text)
            elif ingest.style == "overlay":
                os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
            else:
                os.unlink(path)
        os.chmod(ingest.path, mode)
        chain = ChainId(f"sha256:{len(self.chain):024x}{0:040x}")
        ingest.commit(chain, DIFF)
        self.chain.append(chain)

    @property
    def lowers(self) -> list[str]:
        return self.store.dirs(self.chain)

    def mounted(self, container: str) -> str:
        self.driver.create(container, self.lowers)
        return self.driver.mount(container, self.lowers).path

    def layers(self) -> dict[str, tuple[int, str]]:
        """Type and content of everything in every layer."""
        found = {}
        for lower in self.lowers:
            for folder, folders, files in os.walk(f"{self.driver.home}/{lower}"):
                for name in (*folders, *files):
                    path = f"{folder}/{name}"
                    mode = os.lstat(path).st_mode
                    text = ""
                    if stat.S_ISREG(mode):
                        with open(path) as file:
                            text = file.read()
                    found[path] = (mode, text)
        return found


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """A directory on a file system of a kind; made when it is first asked for."""
    made: dict[str, Path] = {}
    with contextlib.ExitStack() as stack:

        def get(kind: str) -> Path:
            if kind not in made:
                folder = tmp_path_factory.mktemp(kind)
                made[kind] = stack.enter_context(disk(folder, kind))
            return made[kind]

        yield get


def on(driver: str, kind: str) -> ParameterSet:
    marks = [] if (driver, kind) == ("vfs", "") else [pytest.mark.root]
    return pytest.param((driver, kind), marks=marks, id=f"{driver}-{kind}" if kind else driver)


@pytest.fixture(
    params=[
        *(on(driver, "") for driver in DRIVERS),
        *(on(driver, kind) for driver in DRIVERS for kind in ("ext4", "xfs", "tmpfs")),
    ]
)
def graph(
    request: pytest.FixtureRequest, tmp_path: Path, disks: Callable[[str], Path]
) -> Iterator[Graph]:
    """A graph of each driver on each file system, and on that of the tests.

    The latter is a tmpfs where overlay cannot be mounted on it.
    """
    name, kind = request.param
    folder = Path(tempfile.mkdtemp(dir=disks(kind))) if kind else tmp_path
    own_mount = not kind and name != "vfs" and bool(why_not(str(folder), "overlay"))
    if own_mount:
        syscalls.mount("tmpfs", str(folder), "tmpfs", 0, "mode=755")
    why = name != "vfs" and why_not(str(folder), "overlay")
    if why:
        if own_mount:
            syscalls.umount(str(folder), syscalls.MNT_DETACH)
        pytest.skip(f"this kernel does not mount overlay: {why}")
    made = Graph(str(folder / "graph"), name)
    try:
        yield made
    finally:
        for container in os.listdir(f"{made.driver.home}/rw"):
            made.driver.unmount(container)
        if own_mount:
            syscalls.umount(str(folder), syscalls.MNT_DETACH)


def read(path: str) -> str:
    with open(path) as file:
        return file.read()


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def test_a_container_sees_its_layers_the_upper_ones_first(graph: Graph) -> None:
    graph.layer({"a": "0", "b": "0", "c": "0", "only": "0"})
    graph.layer({"b": "1", "c": "1"})
    graph.layer({"c": "2", "folder/d": "2"})
    root = graph.mounted("one")
    assert [read(f"{root}/{name}") for name in "abc"] == ["0", "1", "2"]
    assert read(f"{root}/folder/d") == "2"
    assert sorted(os.listdir(root)) == ["a", "b", "c", "folder", "only"]


def test_what_an_upper_layer_removed_is_gone(graph: Graph) -> None:
    graph.layer({"keep": "0", "gone": "0", "folder/x": "0", "folder/y": "0"})
    graph.layer({"gone": None, "folder/x": None})
    root = graph.mounted("one")
    assert sorted(os.listdir(root)) == ["folder", "keep"]
    assert os.listdir(f"{root}/folder") == ["y"]


def test_what_was_removed_may_come_back_above(graph: Graph) -> None:
    graph.layer({"a": "0"})
    graph.layer({"a": None})
    graph.layer({"a": "2"})
    assert read(f"{graph.mounted('one')}/a") == "2"


def test_writes_of_a_container_change_no_layer(graph: Graph) -> None:
    graph.layer({"a": "0", "folder/b": "0", "c": "0"})
    graph.layer({"a": "1"})
    before = graph.layers()
    root = graph.mounted("one")
    write(f"{root}/a", "changed")
    write(f"{root}/new", "new")
    with open(f"{root}/folder/b", "a") as file:
        file.write("appended")
    os.unlink(f"{root}/c")
    os.chmod(f"{root}/folder", 0o700)
    assert graph.layers() == before
    assert read(f"{root}/folder/b") == "0appended"
    assert not os.path.exists(f"{root}/c")


def test_containers_do_not_see_each_other(graph: Graph) -> None:
    graph.layer({"a": "0"})
    one, two = graph.mounted("one"), graph.mounted("two")
    write(f"{one}/a", "one")
    write(f"{two}/b", "two")
    assert read(f"{two}/a") == "0"
    assert not os.path.exists(f"{one}/b")


def test_what_was_written_is_there_after_unmounting_and_mounting(graph: Graph) -> None:
    graph.layer({"a": "0", "b": "0"})
    root = graph.mounted("one")
    write(f"{root}/a", "changed")
    os.unlink(f"{root}/b")
    graph.driver.unmount("one")
    assert graph.driver.mount("one", graph.lowers).path == root
    assert read(f"{root}/a") == "changed"
    assert os.listdir(root) == ["a"]


def test_the_root_directory_has_the_mode_of_the_image(graph: Graph) -> None:
    graph.layer({"a": "0"})
    graph.layer({"b": "1"}, mode=0o711)
    assert stat.S_IMODE(os.stat(graph.mounted("one")).st_mode) == 0o711


def test_mounting_twice_is_mounting_once(graph: Graph) -> None:
    graph.layer({"a": "0"})
    root = graph.mounted("one")
    write(f"{root}/new", "x")
    assert graph.driver.mount("one", graph.lowers).path == root
    graph.driver.unmount("one")
    graph.driver.unmount("one")
    assert not os.path.ismount(root)


def test_unmounting_what_never_was_is_fine(graph: Graph) -> None:
    graph.driver.unmount("absent")


def test_removing_takes_everything_and_may_be_repeated(graph: Graph) -> None:
    graph.layer({"a": "0"})
    before = graph.layers()
    root = graph.mounted("one")
    graph.mounted("two")
    write(f"{root}/new", "x")
    for _ in range(2):
        graph.driver.remove("one")
        assert os.listdir(f"{graph.driver.home}/rw") == ["two"]
    graph.driver.remove("two")
    assert os.listdir(f"{graph.driver.home}/rw") == []
    assert graph.layers() == before


def test_a_file_that_is_open_does_not_keep_a_container(graph: Graph) -> None:
    graph.layer({"a": "0"})
    root = graph.mounted("one")
    with open(f"{root}/a") as file:
        graph.driver.remove("one")
        assert file.read() == "0"
    assert not os.path.exists(root)


def test_a_name_can_be_used_again_after_removal(graph: Graph) -> None:
    graph.layer({"a": "0"})
    write(f"{graph.mounted('one')}/a", "old")
    graph.driver.remove("one")
    assert read(f"{graph.mounted('one')}/a") == "0"


def test_two_containers_of_one_name_are_refused(graph: Graph) -> None:
    graph.layer({"a": "0"})
    root = graph.mounted("one")
    with pytest.raises(FileExistsError):
        graph.driver.create("one", graph.lowers)
    assert read(f"{root}/a") == "0"


def test_a_container_without_layers_is_empty_and_writable(graph: Graph) -> None:
    root = graph.mounted("one")
    assert os.listdir(root) == []
    write(f"{root}/a", "x")
    graph.driver.unmount("one")
    assert read(f"{graph.driver.mount('one', []).path}/a") == "x"


def test_creating_shows_where_it_will_be_mounted(graph: Graph) -> None:
    graph.layer({"a": "0"})
    made = graph.driver.create("one", graph.lowers)
    assert made == graph.driver.rootfs("one", graph.lowers)
    assert made == graph.driver.mount("one", graph.lowers)
    assert made.data["MergedDir"] == made.path


@pytest.mark.parametrize("count", [60, 127, 200])
def test_many_layers_fit(graph: Graph, count: int) -> None:
    for number in range(count):
        graph.layer({"number": str(number), f"file{number}": "x"})
    root = graph.mounted("one")
    assert read(f"{root}/number") == str(count - 1)
    assert len(os.listdir(root)) == count + 1


def test_layers_do_without_the_newer_mount_calls(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(_fstype: str) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(syscalls, "fsopen", denied)
    for number in range(200):
        graph.layer({"number": str(number), f"file{number}": "x"})
    root = graph.mounted("one")
    write(f"{root}/new", "x")
    graph.driver.unmount("one")
    assert len(os.listdir(graph.driver.mount("one", graph.lowers).path)) == 202
    graph.driver.remove("one")
    assert os.listdir(f"{graph.driver.home}/rw") == []


def test_a_volatile_container_is_mounted_again_in_the_same_boot(graph: Graph) -> None:
    graph.layer({"a": "0"})
    graph.driver.create("one", graph.lowers)
    for number in range(3):
        root = graph.driver.mount("one", graph.lowers, volatile=True).path
        assert sorted(os.listdir(root)) == ["a", *(f"new{before}" for before in range(number))]
        write(f"{root}/new{number}", "x")
        graph.driver.unmount("one")
    assert read(f"{graph.driver.mount('one', graph.lowers).path}/new2") == "x"


def test_a_restart_removes_what_a_crash_left_and_nothing_else(graph: Graph) -> None:
    graph.layer({"a": "0"})
    root = graph.mounted("one")
    write(f"{root}/a", "changed")
    graph.store.begin(graph.chain[-1])
    os.makedirs(f"{graph.driver.home}/dead-x/y")
    again = LayerStore(graph.path, graph.driver.name)
    assert again.sweep(set(again.all())) == 2
    assert sorted(os.listdir(graph.driver.home)) == sorted([graph.lowers[0], "rw"])
    again.driver.unmount("one")
    assert read(f"{again.driver.mount('one', graph.lowers).path}/a") == "changed"


def test_a_container_whose_creation_was_interrupted_can_be_removed(graph: Graph) -> None:
    os.makedirs(f"{graph.driver.home}/rw/half")
    os.makedirs(f"{graph.driver.home}/rw/dead-other/diff")
    graph.driver.remove("half")
    graph.driver.remove("other")
    assert os.listdir(f"{graph.driver.home}/rw") == []


def test_info_tells_the_file_system(graph: Graph) -> None:
    status = dict(graph.driver.status())
    assert status["Backing Filesystem"]
    assert status["Supports d_type"] == "true"


@pytest.mark.parametrize("name", DRIVERS)
def test_a_driver_begins_a_layer_in_its_own_style(tmp_path: Path, name: str) -> None:
    graph = Graph(str(tmp_path), name)
    graph.layer({"a": "0"})
    ingest = graph.store.begin(graph.chain[-1])
    assert ingest.style == driver_class(name)("", "overlay").style
    assert os.listdir(ingest.path) == ([] if ingest.style == "overlay" else ["a"])


@pytest.mark.root
def test_overlay_can_be_mounted_read_only(tmp_path: Path) -> None:
    why = why_not(str(tmp_path), "overlay")
    if why:
        pytest.skip(f"overlay cannot be mounted below {tmp_path}: {why}")
    graph = Graph(str(tmp_path / "graph"), "overlay")
    graph.layer({"a": "0"})
    graph.driver.create("one", graph.lowers)
    root = graph.driver.mount("one", graph.lowers, read_only=True).path
    try:
        with pytest.raises(OSError, match="Read-only"):
            write(f"{root}/new", "x")
    finally:
        graph.driver.remove("one")


@pytest.mark.root
def test_what_was_not_synced_before_a_crash_is_dropped(tmp_path: Path) -> None:
    """The kernel's mark of a volatile mount, and the boot id of a boot that was before."""
    why = why_not(str(tmp_path), "overlay")
    if why:
        pytest.skip(f"overlay cannot be mounted below {tmp_path}: {why}")
    graph = Graph(str(tmp_path / "graph"), "overlay")
    graph.layer({"a": "0"}, mode=0o711)
    graph.driver.create("one", graph.lowers)
    root = graph.driver.mount("one", graph.lowers, volatile=True).path
    write(f"{root}/a", "perhaps only zeros now")
    graph.driver.unmount("one")
    base = f"{graph.driver.home}/rw/one"
    os.makedirs(f"{base}/work/work/incompat/volatile", exist_ok=True)
    write(f"{base}/boot", "00000000-0000-0000-0000-000000000000")
    try:
        assert graph.driver.mount("one", graph.lowers).path == root
        assert read(f"{root}/a") == "0"
        assert stat.S_IMODE(os.stat(root).st_mode) == 0o711
    finally:
        graph.driver.remove("one")


@pytest.mark.root
def test_a_kernel_of_old_takes_one_layer_and_no_work_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = why_not(str(tmp_path), "overlay")
    if why:
        pytest.skip(f"overlay cannot be mounted below {tmp_path}: {why}")
    mount, asked = syscalls.mount, list[str]()

    def old(source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
        if fstype != "overlayfs":
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        asked.append(data)
        words = dict(word.split("=") for word in data.split(","))
        if set(words) != {"lowerdir", "upperdir"} or ":" in words["lowerdir"]:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        work = words["upperdir"].replace("diff", "work")
        mount(source, target, "overlay", flags, f"{data},workdir={work}")

    monkeypatch.setattr(syscalls, "mount", old)
    assert why_not(str(tmp_path), "overlayfs", several=False) == ""
    assert why_not(str(tmp_path), "overlayfs") == "Invalid argument"
    driver = choose_driver(str(tmp_path / "graph"), "", "", "overlayfs", several=False)
    graph = Graph(str(tmp_path / "graph"), driver.name, driver)
    for number in range(3):
        graph.layer({"number": str(number), f"file{number}": "x"})
    graph.layer({"file1": None})
    root = graph.mounted("one")
    try:
        assert sorted(os.listdir(root)) == ["file0", "file2", "number"]
        assert read(f"{root}/number") == "2"
        assert asked[-1] == f"lowerdir={graph.lowers[0]},upperdir=rw/one/diff"
    finally:
        graph.driver.remove("one")


@pytest.mark.root
def test_a_kernel_without_overlay_is_told_apart(tmp_path: Path) -> None:
    assert why_not(str(tmp_path), "no-such-filesystem") == "mount: No such device"
    assert os.listdir(tmp_path) == []
