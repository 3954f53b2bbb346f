"""Level 3: unpacked layers and the root file systems made of them.

``<graph>/`` holds::

    layers/<chain hex>.cbor               record of a committed layer
    storage/<driver>/<dir>/               its tree (dir = first 24 digits of the chain id)
    storage/<driver>/<dir>.recipe         makes its original tar again (isula_edge.image.recipe)
    storage/<driver>/ingest-<random>/     a layer being unpacked; removed at start
    storage/<driver>/rw/<container id>/   writable layer of a container:
        diff/  work/  merged/             upper, work and mount point of overlay (vfs: diff, and
                                          merged where a user namespace wants other ids)
        lower/<0…zz>                      links to layers, only where their names do not fit
        boot                              boot id of a volatile mount

Invariants: a layer's tree never changes after its record is written; a record's parent
has a record; a graph belongs to one driver (``engine.cbor``), never silently to another.
"""

from __future__ import annotations

from isula_edge.snapshot.base import Driver, Rootfs, StorageOptions
from isula_edge.snapshot.choose import choose_driver, driver_class
from isula_edge.snapshot.layers import Ingest, LayerStore

__all__ = [
    "Driver",
    "Ingest",
    "LayerStore",
    "Rootfs",
    "StorageOptions",
    "choose_driver",
    "driver_class",
]
