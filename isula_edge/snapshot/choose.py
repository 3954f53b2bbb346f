"""Which driver a graph uses (case A23): never both, never silently another."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.snapshot.overlay import Overlay
from isula_edge.snapshot.vfs import Vfs

if TYPE_CHECKING:
    from collections.abc import Callable

    from isula_edge.snapshot.base import Driver

__all__ = ["DRIVERS", "choose_driver", "driver_class"]

DRIVERS: dict[str, Callable[[str, str], Driver]] = {"overlay": Overlay, "vfs": Vfs}
_ALIASES = {"overlay2": "overlay", "overlayfs": "overlay", "": ""}


def driver_class(name: str) -> Callable[[str, str], Driver]:
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


def choose_driver(graph: str, wanted: str, recorded: str, overlay_type: str | None) -> Driver:
    """The driver for ``graph``.

    ``wanted`` is the administrator's word or '', ``recorded`` what ``engine.cbor`` says or
    '', ``overlay_type`` the kernel's name of overlay or None when it cannot be mounted.
    Raises FailedPrecondition when the graph belongs to another driver than the one wanted
    or usable.
    """
    name = _ALIASES.get(wanted, wanted)
    if name:
        driver_class(name)
    if recorded and name and recorded != name:
        raise errors.FailedPrecondition(
            f"{graph} holds images of storage driver {recorded}, {name} was asked for",
            kind="driver",
            ref=name,
            hint=f"set storage-driver to {recorded}, or give isulad another graph directory",
        )
    name = name or recorded or ("overlay" if overlay_type else "vfs")
    if name == "overlay" and overlay_type is None:
        raise errors.FailedPrecondition(
            f"storage driver overlay cannot be used for {graph}: the kernel does not mount it",
            kind="driver",
            ref=name,
            hint="load the overlay module, or use storage-driver vfs with another graph directory",
        )
    home = f"{graph}/storage/{name}"
    os.makedirs(f"{home}/rw", 0o711, exist_ok=True)
    return driver_class(name)(home, overlay_type or "overlay")
