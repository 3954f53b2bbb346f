"""Which driver a graph uses (case A23): what is recorded wins, and nothing is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.snapshot import StorageOptions, choose_driver, driver_class
from isula_edge.snapshot.overlay import Overlay, OverlayOne
from isula_edge.snapshot.vfs import Vfs

if TYPE_CHECKING:
    from pathlib import Path

CHOSEN = [
    # wanted, recorded, the kernel's overlay, driver
    ("", "", "overlay", Overlay),
    ("", "", None, Vfs),
    ("", "overlay", "overlay", Overlay),
    ("", "vfs", "overlay", Vfs),
    ("", "vfs", None, Vfs),
    ("vfs", "", "overlay", Vfs),
    ("vfs", "vfs", None, Vfs),
    ("overlay", "", "overlay", Overlay),
    ("overlay2", "", "overlay", Overlay),
    ("overlay2", "overlay", "overlay", Overlay),
    ("overlayfs", "overlay", "overlayfs", Overlay),
]


@pytest.mark.parametrize(("wanted", "recorded", "kernel", "driver"), CHOSEN)
def test_the_driver_of_a_graph(
    wanted: str, recorded: str, kernel: str | None, driver: type
) -> None:
    found = choose_driver("/graph", wanted, recorded, kernel)
    assert type(found) is driver
    assert found.home == f"/graph/storage/{found.name}"


def test_the_kernels_own_word_for_overlay_is_used() -> None:
    found = choose_driver("/graph", "", "", "overlayfs")
    assert isinstance(found, Overlay)
    assert found.fstype == "overlayfs"


ONE_LOWER = [
    # wanted, recorded, driver of a kernel that takes one lower directory
    ("", "", OverlayOne),
    ("overlay", "", OverlayOne),
    ("overlay2", "", OverlayOne),
    ("overlayfs", "overlay1", OverlayOne),
    ("", "overlay1", OverlayOne),
    ("overlay1", "", OverlayOne),
    ("", "vfs", Vfs),
    ("vfs", "", Vfs),
]


@pytest.mark.parametrize(("wanted", "recorded", "driver"), ONE_LOWER)
@pytest.mark.parametrize("kernel", ["overlay", "overlayfs"])
def test_a_kernel_with_one_lower_directory(
    tmp_path: Path, wanted: str, recorded: str, driver: type, kernel: str
) -> None:
    found = choose_driver(str(tmp_path), wanted, recorded, kernel, several=False)
    assert type(found) is driver
    assert found.style == "merge"


def test_whole_trees_stay_what_they_are_on_a_newer_kernel(tmp_path: Path) -> None:
    for wanted in ("", "overlay", "overlay1"):
        assert choose_driver(str(tmp_path), wanted, "overlay1", "overlay").name == "overlay1"


@pytest.mark.parametrize("wanted", ["", "overlay", "overlay2"])
def test_layers_that_lie_apart_cannot_be_used_with_one_lower_directory(
    tmp_path: Path, wanted: str
) -> None:
    with pytest.raises(errors.FailedPrecondition, match="mounts one layer only") as caught:
        choose_driver(str(tmp_path), wanted, "overlay", "overlay", several=False)
    assert caught.value.hint


def test_a_size_for_whole_copies_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.Unimplemented, match="is supported only for overlay"):
        choose_driver(str(tmp_path), "vfs", "", "overlay", options=StorageOptions(size=1 << 20))


REFUSED = [
    ("vfs", "overlay", "overlay", errors.FailedPrecondition, "of storage driver overlay"),
    ("overlay", "vfs", "overlay", errors.FailedPrecondition, "of storage driver vfs"),
    ("overlay2", "vfs", "overlay", errors.FailedPrecondition, "of storage driver vfs"),
    ("", "overlay", None, errors.FailedPrecondition, "cannot be used"),
    ("overlay", "", None, errors.FailedPrecondition, "cannot be used"),
    ("overlay1", "overlay", "overlay", errors.FailedPrecondition, "of storage driver overlay"),
    ("overlay1", "", None, errors.FailedPrecondition, "cannot be used"),
    ("zfs", "", "overlay", errors.InvalidArgument, "unknown storage driver zfs"),
    ("zfs", "vfs", "overlay", errors.InvalidArgument, "unknown storage driver zfs"),
]


@pytest.mark.parametrize(("wanted", "recorded", "kernel", "error", "text"), REFUSED)
def test_never_silently_another_driver(
    wanted: str,
    recorded: str,
    kernel: str | None,
    error: type[errors.EngineError],
    text: str,
) -> None:
    with pytest.raises(error, match=text) as caught:
        choose_driver("/graph", wanted, recorded, kernel)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "driver"),
    [
        ("overlay", Overlay),
        ("overlay2", Overlay),
        ("overlayfs", Overlay),
        ("overlay1", OverlayOne),
        ("vfs", Vfs),
    ],
)
def test_names_of_drivers(name: str, driver: type) -> None:
    assert type(driver_class(name)("/home", "overlay")) is driver


@pytest.mark.parametrize("name", ["", "zfs", "Overlay"])
def test_there_is_no_other_driver(name: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        driver_class(name)
