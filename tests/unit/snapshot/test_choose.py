"""Which driver a graph uses (case A23): what is recorded wins, and nothing is silent."""

from __future__ import annotations

import pytest

from isula_edge import errors
from isula_edge.snapshot import choose_driver, driver_class
from isula_edge.snapshot.overlay import Overlay
from isula_edge.snapshot.vfs import Vfs

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


REFUSED = [
    ("vfs", "overlay", "overlay", errors.FailedPrecondition, "of storage driver overlay"),
    ("overlay", "vfs", "overlay", errors.FailedPrecondition, "of storage driver vfs"),
    ("overlay2", "vfs", "overlay", errors.FailedPrecondition, "of storage driver vfs"),
    ("", "overlay", None, errors.FailedPrecondition, "cannot be used"),
    ("overlay", "", None, errors.FailedPrecondition, "cannot be used"),
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
    [("overlay", Overlay), ("overlay2", Overlay), ("overlayfs", Overlay), ("vfs", Vfs)],
)
def test_names_of_drivers(name: str, driver: type) -> None:
    assert type(driver_class(name)("/home", "overlay")) is driver


@pytest.mark.parametrize("name", ["", "zfs", "Overlay"])
def test_there_is_no_other_driver(name: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        driver_class(name)
