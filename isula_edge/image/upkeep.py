"""What a worker does for ``system df`` and ``system check``: it reads much and changes nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.image.recipe import verify_layer
from isula_edge.store.records import read_record
from isula_edge.sys.usage import survey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isula_edge.image.job import Job
    from isula_edge.snapshot.layers import LayerStore
    from isula_edge.types import ChainId

__all__ = ["check_layers", "measure"]


def measure(request: dict[str, Any], job: Job) -> dict[str, Any]:
    """``{"bytes": {path: bytes on disk}}`` for ``roots``, ``[{"top": path, "parts": [path]}]``."""
    found: dict[str, int] = {}
    for root in request["roots"]:
        found |= survey(str(root["top"]), map(str, root["parts"]), job.check)
    return {"bytes": found}


def check_layers(
    store: LayerStore, job: Job, chain_ids: Sequence[ChainId], *, quick: bool
) -> dict[str, Any]:
    """``{"bad": {chain id: what is wrong}, "unverified": [chain id]}``.

    ``quick`` looks whether records and trees are there; otherwise the content of every
    layer is compared with its diff_id.  Layers that were unpacked before there were recipes
    cannot be compared: they are the unverified ones.
    """
    bad: dict[str, str] = {}
    unverified: list[str] = []
    for number, chain_id in enumerate(chain_ids, 1):
        job.check()
        try:
            _check_record(store, chain_id)
            if not quick:
                verify_layer(store, chain_id, job.check)
        except errors.Aborted:
            raise
        except (errors.EngineError, OSError) as error:
            if isinstance(error, errors.NotFound) and error.kind == "recipe":
                unverified.append(chain_id)
            else:
                bad[chain_id] = str(error)
        job.emit(
            {"v": {"id": chain_id, "status": "Checked", "current": number, "total": len(chain_ids)}}
        )
    return {"bad": bad, "unverified": unverified}


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
