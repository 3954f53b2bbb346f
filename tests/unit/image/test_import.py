"""Import: tarballs of root file systems, and what is none."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import os
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.image.import_ import import_image
from isula_edge.image.source import open_source
from tests.fakes.images import sha256, tar_of
from tests.fakes.jobs import FakeDaemon

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from isula_edge.snapshot import LayerStore

TAR = tar_of({"bin/sh": b"#!", "etc/passwd": b"root:x:0:0::/:/bin/sh\n"})


def do_import(
    data: bytes, store: LayerStore, graph: Path, ref: str = "new"
) -> tuple[Any, FakeDaemon]:
    path = graph / "tarball"
    path.write_bytes(data)
    daemon = FakeDaemon()
    with open_source(str(path), -1) as source:
        return import_image(source, ref, store, daemon.job), daemon


COMPRESSIONS: list[Callable[[bytes], bytes]] = [bytes, gzip.compress, bz2.compress, lzma.compress]


@pytest.mark.parametrize("compress", COMPRESSIONS)
def test_an_image_with_one_layer(
    store: LayerStore, graph: Path, compress: Callable[[bytes], bytes]
) -> None:
    result, daemon = do_import(compress(TAR), store, graph, "h.io/new:1")
    brought = daemon.image
    assert result == {"id": brought["id"], "ref": "h.io/new:1"}
    assert brought["id"] == hashlib.sha256(brought["config"]).hexdigest()
    assert brought["names"] == ["h.io/new:1"]
    config = json.loads(brought["config"])
    # of the uncompressed tar: the image is valid elsewhere
    assert config["rootfs"] == {"type": "layers", "diff_ids": [sha256(TAR)]}
    assert config["os"] == "linux"
    assert config["history"][0]["comment"] == "Imported from tarball"
    assert config["created"].endswith("Z")
    assert brought["chain_ids"] == [sha256(TAR)]
    manifest = json.loads(brought["manifest"])
    assert manifest["config"]["digest"] == f"sha256:{brought['id']}"
    assert manifest["layers"][0]["digest"] == sha256(TAR)
    assert manifest["layers"][0]["size"] == len(TAR)
    record = store.get(brought["chain_ids"][0])
    assert record is not None
    assert (graph / "storage/vfs" / record["dir"] / "bin/sh").read_bytes() == b"#!"


def test_twice(store: LayerStore, graph: Path) -> None:
    do_import(TAR, store, graph)
    _, daemon = do_import(gzip.compress(TAR), store, graph)
    assert daemon.image["chain_ids"] == [sha256(TAR)]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        gzip.compress(b""),
        gzip.compress(b"no tar at all, just some text " * 50),
        b"plain text " * 100,
        gzip.compress(TAR)[:-20],
        TAR[:700],
    ],
)
def test_what_is_no_tarball(store: LayerStore, graph: Path, data: bytes) -> None:
    with pytest.raises(errors.EngineError):
        do_import(data, store, graph)
    assert os.listdir(graph / "layers") == []
    assert [name for name in os.listdir(graph / "storage/vfs") if "ingest" in name] == []


def test_a_bad_name_before_anything_is_read(store: LayerStore, graph: Path) -> None:
    for name in ("Bad~", f"a@{sha256(b'')}"):
        with pytest.raises(errors.InvalidArgument, match="Invalid image name"):
            do_import(b"", store, graph, name)
