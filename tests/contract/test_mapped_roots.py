"""Root file systems that belong to users of a user namespace, with every storage driver."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from isula_edge.snapshot import Driver, driver_class
from isula_edge.snapshot.base import Ids
from isula_edge.snapshot.mapped import why_not_mapped
from isula_edge.sys import mounts
from isula_edge.sys.userns import acting_as, new_user_namespace
from tests.disks import disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.root
DRIVERS = ("overlay", "overlay1", "vfs")
LOWERS = ["upper", "lower"]
HOST = 200_000
MAPS = [(0, HOST, 65_536)]


@pytest.fixture(scope="module", params=["tmpfs", "ext4", "xfs"])
def space(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    with disk(tmp_path_factory.mktemp(request.param), request.param) as folder:
        yield folder


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest, space: Path) -> Iterator[Driver]:
    """Two layers, of which the topmost is whole where a driver wants that."""
    home = space / f"{request.param}-{os.urandom(4).hex()}"
    (home / "rw").mkdir(parents=True)
    found = driver_class(request.param)(str(home))
    for layer in LOWERS:
        (home / layer / "folder").mkdir(parents=True)
    whole = found.style == "merge"
    for layer, name in (("lower", "below"), ("upper", "above"), ("upper", "below")):
        if name == "above" or layer == "lower" or whole:
            path = home / layer / "folder" / name
            path.write_text(name)
            os.chown(path, 1000, 1001)
    why = why_not_mapped(found)
    if why:
        pytest.skip(why)
    found.create("one", LOWERS)
    try:
        yield found
    finally:
        found.remove("one")


@pytest.fixture
def ids() -> Iterator[Ids]:
    fd = new_user_namespace(MAPS, MAPS)
    yield Ids(fd, HOST, HOST)
    os.close(fd)


def owner(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_uid, found.st_gid


def test_files_belong_to_users_of_the_namespace(driver: Driver, ids: Ids) -> None:
    root = driver.mount("one", LOWERS, ids=ids).path
    assert owner(root) == (HOST, HOST)
    for name in ("above", "below"):
        assert owner(f"{root}/folder/{name}") == (HOST + 1000, HOST + 1001)


def test_on_the_disk_ids_are_those_inside(driver: Driver, ids: Ids) -> None:
    root = driver.mount("one", LOWERS, ids=ids).path
    with acting_as(HOST, HOST):
        os.mkdir(f"{root}/made")
        os.unlink(f"{root}/folder/above")
        with open(f"{root}/folder/below", "a") as file:
            file.write("!")
    driver.unmount("one")
    plain = driver.mount("one", LOWERS).path
    assert owner(f"{plain}/made") == (0, 0)
    assert owner(f"{plain}/folder/below") == (1000, 1001)
    assert os.listdir(f"{plain}/folder") == ["below"]


def test_layers_stay_as_they_are(driver: Driver, ids: Ids) -> None:
    root = driver.mount("one", LOWERS, ids=ids).path
    with acting_as(HOST, HOST):
        os.unlink(f"{root}/folder/above")
        with open(f"{root}/folder/below", "a") as file:
            file.write("!")
    driver.unmount("one")
    for layer, name in (("upper", "above"), ("lower", "below")):
        path = f"{driver.home}/{layer}/folder/{name}"
        assert owner(path) == (1000, 1001)
        with open(path) as file:
            assert file.read() == name


def test_root_of_the_host_makes_nothing_there(driver: Driver, ids: Ids) -> None:
    root = driver.mount("one", LOWERS, ids=ids).path
    with pytest.raises(OSError, match="too large"):
        os.mkdir(f"{root}/made")


def test_only_that_group_searches_the_writable_layer(driver: Driver, ids: Ids) -> None:
    driver.mount("one", LOWERS, ids=ids)
    found = os.stat(f"{driver.home}/rw/one")
    assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (0o710, 0, HOST)


def test_nothing_but_the_root_is_mounted(driver: Driver, ids: Ids) -> None:
    root = driver.mount("one", LOWERS, ids=ids).path
    assert mounts.below(driver.home) == [root]
    assert driver.mount("one", LOWERS, ids=ids).path == root
    assert mounts.below(driver.home) == [root]
    driver.unmount("one")
    assert mounts.below(driver.home) == []


def test_a_hundred_layers(driver: Driver, ids: Ids) -> None:
    names = [f"layer-{number}" for number in range(100)]
    for name in names:
        os.makedirs(f"{driver.home}/{name}/{name}")
    driver.create("many", names)
    try:
        root = driver.mount("many", names, ids=ids).path
        assert owner(f"{root}/layer-0") == (HOST, HOST)
    finally:
        driver.remove("many")


def test_an_export_has_the_ids_that_are_inside(driver: Driver, ids: Ids) -> None:
    """A process in a mount namespace of its own looks on while the container runs."""
    root = driver.mount("one", LOWERS, ids=ids).path
    with acting_as(HOST, HOST):
        os.mkdir(f"{root}/made")
    code = (
        "import os, sys; from isula_edge.snapshot import driver_class;"
        "from isula_edge.image.export import mounted;"
        "root = mounted(driver_class(sys.argv[1])(sys.argv[2]), 'one', sys.argv[3:]);"
        "print(*(os.stat(f'{root}/{name}').st_uid for name in ('made', 'folder/below')))"
    )
    words = [sys.executable, "-c", code, driver.name, driver.home, *LOWERS]
    assert subprocess.run(words, check=True, capture_output=True).stdout == b"0 1000\n"
    with acting_as(HOST, HOST), open(f"{root}/folder/below", "a") as file:
        file.write("the container goes on")
    assert owner(root) == (HOST, HOST)


def test_an_image_alone(driver: Driver, ids: Ids, tmp_path: Path) -> None:
    for given, first in ((None, 0), (ids, HOST)):
        place = str(tmp_path / f"place-{first}")
        root = driver.image(place, LOWERS, given)
        try:
            assert sorted(os.listdir(f"{root}/folder")) == ["above", "below"]
            assert owner(f"{root}/folder/above") == (first + 1000, first + 1001)
        finally:
            mounts.detach(place)


def test_an_image_without_layers(driver: Driver, tmp_path: Path) -> None:
    assert os.listdir(driver.image(str(tmp_path / "place"), [])) == []
