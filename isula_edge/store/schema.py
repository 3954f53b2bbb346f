"""Schema versions of each kind of record, and the migrations between them.

====================  =======  =====================================================
kind                  version  keys
====================  =======  =====================================================
engine                1        driver
image                 1        id config manifest manifest_digest media_type names
                               digests chain_ids size created_ns loaded_ns pinned
layer                 2        chain_id parent diff_id digest compressed_size size dir
                               recipe
container             1        id name created_ns image image_id runtime config host
                               rootfs state
pod                   1        id created_ns boot spec
pod-state             1        ready network namespaces ips pause exited_ns
====================  =======  =====================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isula_edge import errors

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CURRENT", "MIGRATIONS", "NewerRecord", "migrate"]

CURRENT = {"engine": 1, "image": 1, "layer": 2, "container": 1, "pod": 1, "pod-state": 1}
MIGRATIONS: dict[tuple[str, int], Callable[[dict[str, Any]], dict[str, Any]]] = {
    # layers from before recipes have none
    ("layer", 1): lambda old: {**old, "recipe": 0},
}
"""(kind, version) -> function that turns a payload of that version into the next one."""


class NewerRecord(errors.FailedPrecondition):
    """A whole record in a layout that only a newer engine knows."""


def migrate(kind: str, version: int, payload: dict[str, Any]) -> dict[str, Any]:
    """``payload`` in the current layout; NewerRecord for a version from the future."""
    current = CURRENT[kind]
    if version > current:
        raise NewerRecord(
            f"{kind} record has schema {version}, this engine reads up to {current}",
            kind=kind,
            hint="the graph was written by a newer isulad; use that version",
        )
    while version < current:
        if (kind, version) not in MIGRATIONS:
            raise errors.DamagedRecord(f"{kind} record has unknown schema {version}", kind=kind)
        payload = MIGRATIONS[kind, version](payload)
        version += 1
    return payload
