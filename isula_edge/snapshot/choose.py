"""Which driver a graph uses (case A23): never both, never silently another."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from isula_edge import errors
from isula_edge.snapshot.overlay import Overlay, OverlayOne
from isula_edge.snapshot.vfs import Vfs

if TYPE_CHECKING:
    from isula_edge.snapshot.base import Driver, StorageOptions

__all__ = ["DRIVERS", "DriverClass", "choose_driver", "driver_class"]


class DriverClass(Protocol):
    """Makes a driver over ``home``; ``fstype`` is the kernel's name of overlay."""

    def __call__(
        self, home: str, fstype: str = ..., options: StorageOptions | None = None
    ) -> Driver:
        """The driver; Unimplemented when the options ask for what cannot be kept."""


DRIVERS: dict[str, DriverClass] = {"overlay": Overlay, "overlay1": OverlayOne, "vfs": Vfs}
_ALIASES = {"overlay2": "overlay", "overlayfs": "overlay", "": ""}
_OVERLAYS = ("overlay", "overlay1")


def driver_class(name: str) -> DriverClass:
    """The driver called ``name`` (``overlay2`` is iSulad's and Docker's word for overlay)."""
    found = DRIVERS.get(_ALIASES.get(name, name))
    if found is None:
        raise errors.InvalidArgument(
            f"unknown storage driver {name}",
            kind="driver",
            ref=name,
            hint=f"storage-driver is one of {', '.join(DRIVERS)}",
        )
    return found


def choose_driver(
    graph: str,
    wanted: str,
    recorded: str,
    overlay_type: str | None,
    *,
    several: bool = True,
    options: StorageOptions | None = None,
) -> Driver:
    """The driver for ``graph``.

    ``wanted`` is the administrator's word or '', ``recorded`` what ``engine.cbor`` says or
    '', ``overlay_type`` the kernel's name of overlay or None when it cannot be mounted,
    ``several`` whether it takes more than one lower directory: if not, a new graph that
    wants overlay is one of ``overlay1``.  Raises FailedPrecondition when the graph belongs
    to another driver than the one wanted or usable.
    """
    name = _ALIASES.get(wanted, wanted)
    if name:
        driver_class(name)
    if name == "overlay" and (recorded == "overlay1" or not (recorded or several)):
        name = "overlay1"
    if recorded and name and recorded != name:
        raise errors.FailedPrecondition(
            f"{graph} holds images of storage driver {recorded}, {name} was asked for",
            kind="driver",
            ref=name,
            hint=f"set storage-driver to {recorded}, or give isulad another graph directory",
        )
    name = name or recorded or _best(overlay_type, several)
    if name in _OVERLAYS and overlay_type is None:
        raise _unusable(graph, name, "the kernel does not mount it")
    if name == "overlay" and not several:
        raise _unusable(graph, name, "the kernel mounts one layer only")
    home = f"{graph}/storage/{name}"
    os.makedirs(f"{home}/rw", 0o711, exist_ok=True)
    return driver_class(name)(home, overlay_type or "overlay", options)


def _best(overlay_type: str | None, several: bool) -> str:
    if overlay_type is None:
        return "vfs"
    return "overlay" if several else "overlay1"


def _unusable(graph: str, name: str, why: str) -> errors.FailedPrecondition:
    return errors.FailedPrecondition(
        f"storage driver {name} cannot be used for {graph}: {why}",
        kind="driver",
        ref=name,
        hint="load the overlay module, or use storage-driver vfs with another graph directory",
    )
