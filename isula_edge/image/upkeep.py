"""What a worker does for ``system df`` and ``system check``: it reads much and changes nothing."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.image.recipe import verify_layer
from isula_edge.store.records import read_record
from isula_edge.store.schema import NewerRecord
from isula_edge.sys.usage import survey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isula_edge.image.job import Job
    from isula_edge.snapshot.layers import LayerStore
    from isula_edge.types import ChainId

__all__ = ["check_layers", "measure"]

# these say nothing about what is stored
_PASSING = (
    errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN, errno.EIO,
    errno.ETIMEDOUT, errno.ESTALE,
)  # fmt: skip


def measure(request: dict[str, Any], job: Job) -> dict[str, Any]:
    """``{"bytes": {path: bytes on disk}}`` for ``roots``, ``[{"top": path, "parts": [path]}]``."""
    found: dict[str, int] = {}
    for root in request["roots"]:
        found |= survey(str(root["top"]), map(str, root["parts"]), job.check)
    return {"bytes": found}


def check_layers(
    store: LayerStore, job: Job, chain_ids: Sequence[ChainId], *, quick: bool
) -> dict[str, Any]:
    """``{"bad": …, "recipes": …, "unread": …, "unverified": [chain id]}``.

    The first three are ``{chain id: what is wrong}``: of layers that are bad, of those whose
    recipe is, which says nothing of their files, and of those that could not be read now.
    ``quick`` looks whether records and trees are there; otherwise the content of every
    layer is compared with its diff_id.  Layers that were unpacked before there were recipes
    cannot be compared, nor those of a newer engine: they are the unverified ones.
    """
    found: dict[str, dict[str, str]] = {"bad": {}, "recipes": {}, "unread": {}}
    unverified: list[str] = []
    for number, chain_id in enumerate(chain_ids, 1):
        job.check()
        try:
            _check_record(store, chain_id)
            if not quick:
                verify_layer(store, chain_id, job.check)
        except errors.Aborted:
            raise
        except (errors.EngineError, OSError, MemoryError) as error:
            kind = _kind(error)
            if kind:
                found[kind][chain_id] = str(error) or "out of memory"
            else:
                unverified.append(chain_id)
        job.emit(
            {"v": {"id": chain_id, "status": "Checked", "current": number, "total": len(chain_ids)}}
        )
    return {**found, "unverified": unverified}


def _kind(error: Exception) -> str:
    """Under which key of a check's result a layer belongs; '' for the unverified ones."""
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(error, MemoryError) or (isinstance(cause, OSError) and cause.errno in _PASSING):
        return "unread"
    if isinstance(error, NewerRecord):
        return ""
    if isinstance(error, errors.EngineError) and error.kind == "recipe":
        return "" if isinstance(error, errors.NotFound) else "recipes"
    return "bad"


def _check_record(store: LayerStore, chain_id: ChainId) -> None:
    """Without putting a damaged record aside, as the store itself does."""
    path = store.records.path(chain_id.partition(":")[2])
    try:
        record = read_record(path, "layer")
    except FileNotFoundError:
        raise errors.NotFound(
            f"layer {chain_id} has no record", kind="layer", ref=chain_id
        ) from None
    if record.get("chain_id") != chain_id:
        raise errors.DataLoss(f"{path} is the record of another layer", kind="layer", ref=chain_id)
    if not os.path.isdir(store.tree(chain_id)):
        raise errors.NotFound(f"layer {chain_id} has no tree", kind="layer", ref=chain_id)
