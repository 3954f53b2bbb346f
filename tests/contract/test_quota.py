"""Limits of writable layers on every file system that keeps them, by either system call."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.snapshot import Driver, StorageOptions, driver_class
from isula_edge.snapshot.quota import ProjectQuota
from isula_edge.sys import syscalls
from tests.disks import disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.root

MB = 1 << 20
SIZE = 8 * MB


@pytest.fixture(scope="module", params=["ext4", "xfs"])
def point(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    with disk(tmp_path_factory.mktemp("quota"), request.param, quota=True) as found:
        yield found


@pytest.fixture(params=["overlay", "overlay1"])
def driver(request: pytest.FixtureRequest, point: Path) -> Iterator[Driver]:
    home = point / f"{request.node.name}"
    for name in ("rw", "below"):
        (home / name).mkdir(parents=True)
    (home / "below/image").write_bytes(b"x" * MB)
    made = driver_class(request.param)(str(home))
    yield made
    for name in os.listdir(home / "rw"):
        made.remove(name)


def limited(driver: Driver, name: str, size: int = SIZE) -> str:
    driver.create(name, ["below"], size=size)
    return driver.mount(name, ["below"]).path


def fill(path: str) -> int:
    """Writes until it is refused; how many bytes were taken."""
    taken, refusal = 0, 0
    with open(path, "wb", buffering=0) as file:
        try:
            while taken < 64 * MB:
                taken += file.write(b"x" * (64 << 10))
        except OSError as error:
            refusal = error.errno or 0
    assert refusal in (errno.EDQUOT, errno.ENOSPC)
    return taken


def project(driver: Driver, name: str) -> int:
    return ProjectQuota(driver.home).project(f"{driver.home}/rw/{name}")


def test_root_cannot_exceed_it_and_what_is_below_does_not_count(driver: Driver) -> None:
    root = limited(driver, "one")
    assert SIZE - MB <= fill(f"{root}/file") <= SIZE
    os.unlink(f"{root}/file")
    # the image's file is copied up by the first write, and counts then
    with open(f"{root}/image", "ab") as file:
        file.write(b"x")
    assert fill(f"{root}/file") <= SIZE - MB


def test_a_container_sees_the_size_as_that_of_its_disk(driver: Driver) -> None:
    found = os.statvfs(limited(driver, "one"))
    assert found.f_blocks * found.f_frsize == SIZE


def test_others_are_not_bound_by_it(driver: Driver) -> None:
    one, two, free = limited(driver, "one"), limited(driver, "two", 2 * SIZE), ""
    free = limited(driver, "free", 0)
    assert len({project(driver, name) for name in ("one", "two", "free")}) == 3
    assert project(driver, "free") == 0
    fill(f"{one}/file")
    assert fill(f"{two}/file") > SIZE
    with open(f"{free}/file", "wb") as file:
        file.write(b"x" * (3 * SIZE))


def test_another_engine_finds_the_numbers_that_are_taken(driver: Driver) -> None:
    limited(driver, "one")
    again = driver_class(driver.name)(driver.home)
    again.create("two", ["below"], size=SIZE)
    assert project(again, "one") != project(again, "two") != 0


def test_removal_frees_the_number(driver: Driver) -> None:
    root = limited(driver, "one")
    fill(f"{root}/file")
    number = project(driver, "one")
    driver.remove("one")
    assert os.listdir(f"{driver.home}/rw") == []
    assert fill(f"{limited(driver, 'two', 2 * SIZE)}/file") > SIZE
    assert project(driver, "two") == number


def test_a_removal_that_a_crash_has_cut_off_frees_it_too(driver: Driver) -> None:
    limited(driver, "one")
    number = project(driver, "one")
    driver.unmount("one")
    os.rename(f"{driver.home}/rw/one", f"{driver.home}/rw/dead-one")
    driver.remove("one")
    limited(driver, "two")
    assert project(driver, "two") == number


def test_a_default_holds_for_every_container(driver: Driver) -> None:
    made = driver_class(driver.name)(driver.home, "overlay", StorageOptions(SIZE))
    made.create("one", ["below"])
    made.create("two", ["below"], size=2 * SIZE)
    for name, size in (("one", SIZE), ("two", 2 * SIZE)):
        found = os.statvfs(made.mount(name, ["below"]).path)
        assert found.f_blocks * found.f_frsize == size
    assert dict(made.status())["Project Quota"] == "true"


def test_the_older_call_does_the_same(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_arguments: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(syscalls, "quotactl_fd", absent)
    root = limited(driver, "one")
    number = project(driver, "one")
    assert SIZE - MB <= fill(f"{root}/file") <= SIZE
    driver.remove("one")
    limited(driver, "two")
    assert project(driver, "two") == number


@pytest.mark.parametrize("kind", ["ext4", "xfs", "tmpfs"])
def test_where_no_quota_is_kept_a_size_is_refused(tmp_path: Path, kind: str) -> None:
    with disk(tmp_path, kind) as found:
        (found / "rw").mkdir()
        made = driver_class("overlay")(str(found))
        with pytest.raises(errors.Unimplemented, match="size is supported only") as caught:
            made.create("one", [], size=SIZE)
        assert "prjquota" in caught.value.hint
        assert os.listdir(found / "rw") == []
        assert dict(made.status())["Project Quota"].startswith("false (")
        with pytest.raises(errors.Unimplemented, match=r"overlay2\.size is supported only"):
            driver_class("overlay")(str(found), "overlay", StorageOptions(SIZE))


def test_a_limit_that_is_kept_no_more_is_not_ignored(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(driver, "one")
    driver.unmount("one")
    monkeypatch.setattr(ProjectQuota, "why_not", lambda _self: "mounted without prjquota")
    with pytest.raises(errors.FailedPrecondition, match="size limit of container one"):
        driver.mount("one", ["below"])
