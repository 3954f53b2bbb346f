"""Workers that write archives: their memory does not depend on what they write."""

from __future__ import annotations

import json
import os
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.image.layers import apply_layer
from tests.fakes.jobs import FakeDaemon
from tests.fakes.workers import WorkerProcess, peak_rss_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from isula_edge.snapshot import LayerStore

LARGE = 150 << 20
ALLOWED = 64 << 20
_NEAR_THE_END = 1 << 20


class LargeTar:
    """A tar with one large file, made while it is read."""

    def __init__(self) -> None:
        info = tarfile.TarInfo("large")
        info.size = LARGE
        self._head = info.tobuf()
        self._left = LARGE + 1024

    def read(self, size: int, /) -> bytes:
        """The next bytes."""
        if self._head:
            head, self._head = self._head, b""
            return head
        size = min(size, self._left)
        self._left -= size
        return bytes(size)


def written(request: dict[str, Any], graph: Path) -> tuple[int, int, dict[str, Any]]:
    """How much a worker has written, its peak of memory near the end, and its result."""
    reader, writer = os.pipe()
    total = 0
    with WorkerProcess({**request, "fd": writer}, graph) as worker:
        os.close(writer)
        while total < LARGE - _NEAR_THE_END and (data := os.read(reader, 1 << 20)):
            total += len(data)
        # more than a pipe takes is left: the worker is there
        peak = peak_rss_bytes(worker.process.pid)
        while data := os.read(reader, 1 << 20):
            total += len(data)
        result = worker.result()
    os.close(reader)
    return total, peak, result


def test_save(store: LayerStore, graph: Path) -> None:
    layer = apply_layer(store, FakeDaemon().job, LargeTar(), parent=None, diff_id=None)
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [layer.diff_id]}}).encode()
    image = {"config": config, "chain_ids": [layer.chain_id], "names": ["a:1"]}
    request = {"op": "save", "images": [image], "excluded": [], "kind": ""}
    total, peak, result = written(request, graph)
    assert result == {"size": total}
    assert total > LARGE
    assert peak < ALLOWED


def test_export(graph: Path, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    with (tmp_path / "root" / "large").open("wb") as file:
        file.truncate(LARGE)
    request = {"op": "export", "path": str(tmp_path / "root")}
    total, peak, result = written(request, graph)
    assert result == {"size": total}
    assert total > LARGE
    assert peak < ALLOWED


def test_a_reader_that_leaves_ends_the_worker(graph: Path, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    with (tmp_path / "root" / "large").open("wb") as file:
        file.truncate(LARGE)
    reader, writer = os.pipe()
    request = {"op": "export", "path": str(tmp_path / "root"), "fd": writer}
    with WorkerProcess(request, graph) as worker:
        os.close(writer)
        os.read(reader, 1 << 16)
        os.close(reader)
        with pytest.raises(errors.Aborted, match="nobody reads"):
            worker.result()
