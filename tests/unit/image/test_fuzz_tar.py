"""Ten thousand wrong tars, as layers and as archives: none does harm, none is a crash.

Whatever a layer says, nothing outside of its directory changes; what ends the work is an
error of the engine or of the file system.  Headers are changed with their checksum made
right again, since a wrong one would end everything before it begins.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import random
import tarfile
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.image import source as sources
from isula_edge.image.layers import unpack_layer
from isula_edge.image.load import load
from isula_edge.snapshot import LayerStore
from tests.acceptance.test_a17_hostile_layers import corpus
from tests.fakes.images import FakeLayer, docker_archive, make_image, oci_archive
from tests.fakes.jobs import FakeDaemon
from tests.fakes.layers import archive, directory, link, regular, special

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = 8000
ARCHIVES = 2000
PARTS = 8
"""Each part is a test of its own: one that fails is repeated alone."""

NAMES = (
    b"a", b"", b".", b"..", b"/", b"../../host", b"/etc/passwd", b"to-host/x", b".wh.a",
    b".wh..wh..opq", b".wh.", b".wh...", b"a/" * 60, b"\xff\xfe", b"x\ny", b"./a/../../b",
)  # fmt: skip
NUMBERS = (
    b"0000000", b"7777777", b"-0000001", b"99999999", b"\x80\0\0\0\0\0\1\0", b"\xff" * 8,
    b"        ", b"0x10", b"77777777777\0", b"\x80" + b"\xff" * 11,
)  # fmt: skip
# name, mode, uid, gid, size, time, type, link, magic, device, prefix
FIELDS = (
    (0, 100, NAMES), (100, 8, NUMBERS), (108, 8, NUMBERS), (116, 8, NUMBERS), (124, 12, NUMBERS),
    (136, 12, NUMBERS), (156, 1, tuple(b"%c" % code for code in b"0123456789xgLKSDVM\0Z")),
    (157, 100, NAMES), (257, 8, (b"ustar  \0", b"ustar\x0000", b"", b"\xff" * 8)),
    (329, 8, NUMBERS), (345, 155, NAMES), (386, 97, (b"\xff" * 97, b"0" * 97, b"7" * 97)),
)  # fmt: skip


def wrong(chance: random.Random, data: bytes) -> bytes:
    """A damaged copy."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 3))):
        how = chance.random()
        at = chance.randrange(max(1, len(changed) // 512)) * 512
        if how < 0.6:
            offset, length, values = chance.choice(FIELDS)
            value = chance.choice(values)[:length].ljust(length, b"\0")
            changed[at + offset : at + offset + length] = value
            checksum(changed, at)
        elif how < 0.7:
            del changed[at : at + 512 * chance.choice((1, 1, 3))]
        elif how < 0.8:
            changed[at:at] = changed[:512] * chance.choice((1, 2))
        elif how < 0.9:
            for _ in range(chance.choice((1, 4))):
                changed[chance.randrange(len(changed) or 1) : at + 1] = chance.randbytes(1)
        else:
            del changed[chance.randrange(len(changed) or 1) :]
        changed = changed or bytearray(512)
    return bytes(changed)


def checksum(data: bytearray, at: int) -> None:
    """Makes the header at ``at`` one that is read."""
    block = data[at : at + 512]
    if len(block) == 512:
        block[148:156] = b" " * 8
        data[at + 148 : at + 156] = b"%06o\0 " % sum(block)


def ordinary() -> bytes:
    """A layer with one of each kind."""
    return archive(
        [
            directory("d"),
            regular("d/a", b"content" * 100, mode=0o4755),
            link("d/h", "d/a", hard=True),
            link("to-host", "../../../host"),
            special("fifo", tarfile.FIFOTYPE),
            regular("n" * 120, b"long name"),
            regular(".wh.gone"),
            regular("x", b"1", pax_headers={"SCHILY.xattr.user.a": "b", "mtime": "1.5"}),
        ]
    )


@pytest.mark.root
@pytest.mark.parametrize("driver", ["overlay", "vfs"])
@pytest.mark.parametrize("part", range(PARTS))
def test_layers(tmp_path: Path, driver: str, part: int) -> None:
    host = tmp_path / "host"
    host.mkdir()
    (host / "x").write_text("untouched")
    whole = [ordinary(), *(archive(each[-1]) for each in corpus(str(host)).values())]
    (tmp_path / "graph/storage" / driver / "rw").mkdir(parents=True)
    store = LayerStore(str(tmp_path / "graph"), driver)
    home = tmp_path / "graph/storage" / driver
    chance = random.Random(f"{driver} {part}")
    good = 0
    for _ in range(LAYERS // PARTS // 2):
        data = wrong(chance, chance.choice(whole))
        try:
            layer = unpack_layer(
                store, FakeDaemon().job, io.BytesIO(data), parent=None, diff_id=None
            )
        except (errors.EngineError, OSError):
            continue
        good += 1
        layer.abort()
        assert sorted(os.listdir(home)) == ["rw"]
    assert 0 < good < LAYERS // PARTS // 2
    assert sorted(os.listdir(tmp_path)) == ["graph", "host"]
    assert os.listdir(host) == ["x"]
    assert (host / "x").read_text() == "untouched"


@pytest.mark.parametrize("part", range(PARTS))
def test_archives(graph: Path, monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    store = LayerStore(str(graph), "vfs")
    monkeypatch.setattr(store, "sync", lambda: None)
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    image = make_image([FakeLayer.of({"a": b"1"}), FakeLayer.of({"b": b"2"})])
    whole = [docker_archive({"a:1": image}), oci_archive([({}, image)])]
    chance = random.Random(part)
    above = sorted(os.listdir(graph.parent))
    for number in range(ARCHIVES // PARTS):
        data = wrong(chance, chance.choice(whole))
        path = graph / "tmp/archive"
        path.write_bytes(gzip.compress(data, 1) if number % 5 == 0 else data)
        daemon = FakeDaemon()
        with sources.open_source(str(path), -1) as source, contextlib.suppress(errors.EngineError):
            load(source, store, daemon.job, tmpdir=str(graph / "tmp"))
        assert daemon.job.may_end
        for chain in daemon.of("layer"):
            store.remove(chain)
        path.unlink()
        assert os.listdir(graph / "tmp") == []
        assert os.listdir(graph / "storage/vfs") == []
    assert sorted(os.listdir(graph.parent)) == above
