"""Level 3: metadata records on disk.

Every record is one file, ``<name>.cbor``::

    magic   "ISR1"                    4 bytes
    schema  u16, version of the kind's layout
    length  u32, bytes of payload     (all big-endian)
    crc     u32, CRC-32 of the payload
    payload one CBOR map (RFC 8949)

``<graph>/`` holds::

    engine.cbor                       Engine record: storage driver of this graph
    images/<image id>.cbor            one image: config, manifest, names, layers
    layers/<chain id hex>.cbor        one unpacked layer (written by isula_edge.snapshot)
    engines/<runtime>/<id>/container.cbor   one container: configuration and last state
    quarantine/                       damaged records, kept for inspection, never read

Invariant: a record is written only after the data it names is durable, and removed before
that data is removed; the reverse order of a crash leaves data without a record, which is
found and removed, never a record without data.
A layout change is a new schema version with a migration in :mod:`isula_edge.store.schema`.
"""

from __future__ import annotations

from isula_edge.store.records import RecordStore, read_record, write_record

__all__ = ["RecordStore", "read_record", "write_record"]
