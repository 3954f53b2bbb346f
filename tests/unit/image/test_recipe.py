"""The tar of a layer is made again of its tree and its recipe, whatever it was like."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isula_edge import errors
from isula_edge.image.layers import apply_layer
from isula_edge.image.recipe import Recipe, recreate, recreate_layer, verify_layer
from isula_edge.snapshot import LayerStore
from isula_edge.types import ChainId, Digest
from tests.acceptance.test_a17_hostile_layers import NAMES as CORPUS
from tests.acceptance.test_a17_hostile_layers import corpus
from tests.fakes.jobs import FakeDaemon
from tests.fakes.layers import archive, directory, link, regular, special

Entries = list[tuple[tarfile.TarInfo, bytes]]
DRIVERS = ["overlay", "vfs"]


class Layers:
    """A graph without mounts: layers on top of each other."""

    def __init__(self, folder: Path, driver: str) -> None:
        (folder / "storage" / driver / "rw").mkdir(parents=True)
        self.store = LayerStore(str(folder), driver)
        self.chain: list[ChainId] = []
        self.recipe_bytes = 0

    def add(self, data: bytes) -> ChainId:
        """Applies ``data`` on the layers that are there."""
        parent = self.chain[-1] if self.chain else None
        diff_id = Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")
        applied = apply_layer(
            self.store, FakeDaemon().job, io.BytesIO(data), parent=parent, diff_id=diff_id
        )
        self.chain.append(applied.chain_id)
        return applied.chain_id

    def again(self, number: int = -1) -> bytes:
        """The tar of one layer, made again."""
        chain_id = self.chain[number]
        return b"".join(recreate(self.store.tree(chain_id), self.store.recipe(chain_id)))


@pytest.fixture(params=DRIVERS)
def layers(tmp_path: Path, request: pytest.FixtureRequest) -> Layers:
    return Layers(tmp_path, request.param)


def numbered(count: int) -> bytes:
    """Bytes that do not repeat."""
    return b"".join(number.to_bytes(4, "big") for number in range(count // 4 + 1))[:count]


BASE = archive(
    [
        directory("d", mode=0o700),
        regular("d/a", b"lower a"),
        regular("d/b", numbered(5000)),
        directory("d/deep"),
        regular("d/deep/x", b"lower x"),
        link("to-d", "d"),
        regular("f", b"lower f"),
    ]
)

CASES: dict[str, Entries] = {
    "nothing": [],
    "empty files": [regular("a"), regular("b")],
    "a file of several parts": [regular("big", numbered(900_001)), regular("small", b"1")],
    "the same file twice": [regular("a", b"first"), regular("a", b"second")],
    "the same file ten times": [regular("a", b"%d" % number * 700) for number in range(10)],
    "a file, then an empty one": [regular("a", b"first"), regular("a")],
    "a file, then a link": [regular("a", b"first"), link("a", "nowhere")],
    "a file, then a directory": [regular("a", b"first"), directory("a"), regular("a/b", b"in")],
    "a directory, then a file": [
        directory("a"),
        directory("a/b"),
        regular("a/b/one", numbered(3000)),
        regular("a/two", b"2"),
        regular("a", b"file"),
    ],
    "hard links": [regular("a", b"one"), link("b", "a", hard=True), link("c", "b", hard=True)],
    "a hard link's first name is replaced": [
        regular("a", b"one"),
        link("b", "a", hard=True),
        regular("a", b"two"),
        regular("b", b"three"),
    ],
    "a hard link to itself": [
        regular("a", b"one"),
        link("b", "a", hard=True),
        link("a", "b", hard=True),
        link("b", "a", hard=True),
        regular("b", b"two"),
    ],
    "a link takes a file's place, and gives way": [
        regular("a", b"one"),
        regular("b", b"two"),
        link("b", "a", hard=True),
        regular("b", b"three"),
    ],
    "below a link": [regular("d/q", b"q"), regular("to-d/q", b"again"), regular("to-d/r", b"r")],
    "files of a lower layer are replaced": [regular("d/a", b"new"), regular("f", b"newer")],
    "hard links of aufs": [
        regular(".wh..wh.plnk/7.8", b"content"),
        link("g", ".wh..wh.plnk/7.8", hard=True),
    ],
}

WHITEOUTS: dict[str, Entries] = {
    "whiteouts": [regular("d/.wh.a"), regular(".wh.f", b"with content")],
    "a whiteout of what the layer has": [regular("d/a", b"own"), regular("d/.wh.a")],
    "a whiteout, then the file": [regular("d/.wh.a"), regular("d/a", b"own")],
    "opaque": [regular("d/n", b"new"), regular("d/.wh..wh..opq", b"odd"), regular("d/m", b"m")],
    "opaque, then replaced": [regular("d/.wh..wh..opq"), regular("d/n", b"1"), regular("d", b"2")],
    "devices": [
        special("null", tarfile.CHRTYPE, devmajor=1, devminor=3),
        special("pipe", tarfile.FIFOTYPE),
        special("null", tarfile.FIFOTYPE),
        regular("null", b"file"),
        regular("null", b"another"),
    ],
    "a lower directory gives way": [regular("d", b"file"), directory("d"), regular("d/z", b"z")],
}


@pytest.mark.parametrize("name", [*CASES, *WHITEOUTS])
def test_the_tar_comes_again(layers: Layers, name: str) -> None:
    if name in WHITEOUTS and os.geteuid():
        pytest.skip("whiteouts are devices, which only root makes")
    data = archive(CASES.get(name) or WHITEOUTS.get(name, []))
    layers.add(BASE)
    layers.add(data)
    assert layers.again(0) == BASE
    assert layers.again(1) == data
    for chain_id in layers.chain:
        verify_layer(layers.store, chain_id)


@pytest.mark.parametrize(
    "format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=str
)
def test_every_format(layers: Layers, format: int) -> None:
    out = io.BytesIO()
    long = "/".join(f"part{number:02}" for number in range(12))
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for name in (long, f"{long}x", "short"):
            info = tarfile.TarInfo(name)
            info.size = 700
            tar.addfile(info, io.BytesIO(numbered(700)))
        if format == tarfile.PAX_FORMAT:
            info = tarfile.TarInfo("with records")
            info.pax_headers = {"SCHILY.xattr.user.a": "b", "comment": "c" * 3000}
            tar.addfile(info)
    layers.add(out.getvalue())
    assert layers.again() == out.getvalue()


def test_the_seventh_edition_has_no_magic(layers: Layers) -> None:
    info = tarfile.TarInfo("old")
    info.size = 5
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    block[257:512] = bytes(255)
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    data = bytes(block) + b"hello".ljust(512, b"\xaa") + bytes(1024)
    layers.add(data)
    assert layers.again() == data


def test_what_follows_the_end_belongs_to_the_tar(layers: Layers) -> None:
    for number, tail in enumerate([b"", b"x", bytes(10240), numbered(700_000)]):
        data = archive([regular(f"a{number}", b"1")])
        layers.add(data + tail)
        assert layers.again() == data + tail


def test_a_tar_without_its_end(layers: Layers) -> None:
    data = archive([regular("a", b"1" * 512)])[:1024]
    layers.add(data)
    assert layers.again() == data


def test_no_bytes_at_all(layers: Layers) -> None:
    layers.add(b"")
    assert layers.again() == b""


def sparse(pieces: list[tuple[int, bytes]], size: int, name: str = "holes") -> bytes:
    """An entry in GNU tar's format 1.0 for files with holes."""
    lines = [len(pieces), *(number for at, data in pieces for number in (at, len(data)))]
    text = "".join(f"{number}\n" for number in lines).encode()
    text += bytes(-len(text) % 512)
    content = text + b"".join(data for _, data in pieces)
    info = tarfile.TarInfo(f"GNUSparseFile.0/{name}")
    info.size = len(content)
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": name,
        "GNU.sparse.realsize": str(size),
    }
    return archive([(info, content)]).rstrip(b"\0").ljust(512, b"\0")


def whole(*entries: bytes) -> bytes:
    """Entries as one archive."""
    return b"".join(part + bytes(-len(part) % 512) for part in entries) + bytes(1024)


HOLES = [
    [],
    [(0, b"begin")],
    [(4096, b"x" * 4096), (1 << 20, b"end")],
    [(100, b"a"), (101, b"b"), (9000, numbered(300_000))],
    [(1 << 40, b"far")],
]


@pytest.mark.parametrize("pieces", HOLES, ids=str)
def test_files_with_holes(layers: Layers, pieces: list[tuple[int, bytes]]) -> None:
    size = 1 << 41
    data = whole(sparse(pieces, size))
    layers.add(data)
    assert layers.again() == data


@pytest.mark.parametrize("pieces", HOLES, ids=str)
def test_files_with_holes_that_are_replaced(
    layers: Layers, pieces: list[tuple[int, bytes]]
) -> None:
    data = whole(sparse(pieces, 1 << 41), sparse([(7, b"other")], 99), sparse(pieces, 3 << 40))
    layers.add(data)
    assert layers.again() == data


def old_sparse(pieces: list[tuple[int, bytes]], size: int) -> bytes:
    """An entry as GNU tar wrote files with holes at first: four pieces, then more in blocks."""
    places = [(at, len(data)) for at, data in pieces]
    info = tarfile.TarInfo("old holes")
    info.size = sum(length for _, length in places)
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[156:157] = b"S"
    numbers = [b"%011o\0" % number for place in places for number in place]
    block[386:482] = b"".join(numbers[:8]).ljust(96, b"\0")
    block[482] = len(places) > 4
    block[483:495] = b"%011o\0" % size
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    more = b""
    for at in range(8, len(numbers), 42):
        last = at + 42 >= len(numbers)
        more += b"".join(numbers[at : at + 42]).ljust(504, b"\0") + bytes([not last]) + bytes(7)
    return bytes(block) + more + b"".join(data for _, data in pieces)


def test_files_with_holes_of_the_first_kind(layers: Layers) -> None:
    many = [(at * 8192, b"%d" % at) for at in range(60)]
    for pieces in (many[:2], many[:5], many):
        data = whole(old_sparse(pieces, 1 << 20), old_sparse(pieces, 2 << 20))
        layers.add(data)
        assert layers.again() == data
        path = Path(layers.store.tree(layers.chain[-1]), "old holes")
        content = path.read_bytes()
        assert len(content) == 2 << 20
        assert all(content[at : at + len(part)] == part for at, part in pieces)


@pytest.mark.parametrize("kind", ["0.0", "0.1"])
def test_files_with_holes_by_records(layers: Layers, kind: str) -> None:
    places = [(0, 3), (5000, 600)]
    if kind == "0.1":
        records = [("GNU.sparse.map", ",".join(f"{at},{size}" for at, size in places))]
    else:
        records = [
            record
            for at, size in places
            for record in (("GNU.sparse.offset", f"{at}"), ("GNU.sparse.numbytes", f"{size}"))
        ]
    records = [("GNU.sparse.size", "9000"), ("GNU.sparse.numblocks", "2"), *records]
    text = b""
    for key, value in records:
        line = f" {key}={value}\n"
        length = len(line) + 2
        length += len(str(length)) - 2
        text += f"{length}{line}".encode()
    header = tarfile.TarInfo("./PaxHeaders/x")
    header.type, header.size = tarfile.XHDTYPE, len(text)
    info = tarfile.TarInfo("holes")
    info.size = 603
    data = whole(header.tobuf(), text, info.tobuf(), b"abc" + numbered(600))
    layers.add(data)
    assert layers.again() == data
    content = Path(layers.store.tree(layers.chain[-1]), "holes").read_bytes()
    assert content == (b"abc".ljust(5000, b"\0") + numbered(600)).ljust(9000, b"\0")


@pytest.mark.root
@pytest.mark.parametrize("name", CORPUS)
def test_hostile_layers_come_again_too(layers: Layers, tmp_path: Path, name: str) -> None:
    host = tmp_path / "host"
    host.mkdir()
    for number, each in enumerate(corpus(str(host))[name]):
        data = archive(each)
        try:
            layers.add(data)
        except errors.EngineError:
            break
        assert layers.again(number) == data


def test_many_links_to_a_large_file_are_not_copied(layers: Layers) -> None:
    entries = [regular("large", os.urandom(1 << 20))]
    for _ in range(20):
        entries += [link("name", "large", hard=True), link("name", "nowhere")]
    layers.add(archive(entries))
    assert layers.again() == archive(entries)
    assert os.stat(layers.store.recipe(layers.chain[0])).st_size < 1 << 16


def test_a_recipe_is_small(layers: Layers) -> None:
    entries = [regular(f"usr/lib/module{n}.so", os.urandom(6000)) for n in range(500)]
    layers.add(archive(entries))
    assert os.stat(layers.store.recipe(layers.chain[0])).st_size < 6000 * 500 // 50


# made by chance


NAMES = st.sampled_from(["a", "b", "d", "d/a", "d/deep", "d/deep/x", "to-d/a", "to-d", "n/m/o"])
SIZES = st.sampled_from([0, 1, 511, 512, 513, 5000])


@st.composite
def entries(draw: st.DrawFn) -> Entries:
    found: Entries = []
    for _ in range(draw(st.integers(0, 12))):
        name = draw(NAMES)
        kind = draw(st.sampled_from("rrrrdlhhw"))
        if kind == "r":
            found.append(regular(name, os.urandom(1) * draw(SIZES)))
        elif kind == "d":
            found.append(directory(name))
        elif kind == "l":
            found.append(link(name, draw(NAMES)))
        elif kind == "h":
            found.append(link(name, draw(NAMES), hard=True))
        elif not os.geteuid():
            above, _, last = name.rpartition("/")
            last = draw(st.sampled_from([f".wh.{last}", ".wh..wh..opq"]))
            found.append(regular(f"{above}/{last}".lstrip("/"), b"w" * draw(SIZES)))
    return found


@pytest.mark.parametrize("driver", DRIVERS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(entries(), min_size=1, max_size=3), st.binary(max_size=700))
def test_any_layers(driver: str, several: list[Entries], tail: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        layers = Layers(Path(folder), driver)
        applied: list[bytes] = []
        for each in several:
            data = archive(each) + tail
            try:
                layers.add(data)
            except errors.EngineError:
                # a hard link to nothing, a file where a directory must be
                break
            applied.append(data)
        for number, data in enumerate(applied):
            assert layers.again(number) == data


SAMPLE = (
    archive([directory("d"), regular("d/a", numbered(700)), link("d/h", "d/a", hard=True)])[:2560]
    + whole(sparse([(9, b"data")], 99))
    + bytes(512)
)


def test_the_sample_is_whole(layers: Layers) -> None:
    layers.add(SAMPLE)
    tree = Path(layers.store.tree(layers.chain[0]))
    assert sorted(os.listdir(tree / "d")) == ["a", "h"]
    assert (tree / "holes").stat().st_size == 99


@pytest.mark.parametrize("driver", DRIVERS)
@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_tars_come_again_or_are_refused(driver: str, data: st.DataObject) -> None:
    damaged = bytearray(SAMPLE)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged)))
        damaged[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    with tempfile.TemporaryDirectory() as folder:
        layers = Layers(Path(folder), driver)
        try:
            layers.add(bytes(damaged))
        except errors.EngineError:
            return
        assert layers.again() == damaged


# what is not as it was


@pytest.fixture
def changed(layers: Layers) -> Layers:
    layers.add(archive([directory("d"), regular("d/a", b"12345"), regular("d/b", b"1" * 5)]))
    return layers


def tree_of(layers: Layers) -> Path:
    return Path(layers.store.tree(layers.chain[0]))


def test_another_size(changed: Layers) -> None:
    (tree_of(changed) / "d/a").write_bytes(b"1")
    with pytest.raises(errors.DataLoss, match=r"d/a.*1 bytes instead of 5"):
        verify_layer(changed.store, changed.chain[0])


def test_other_content(changed: Layers) -> None:
    (tree_of(changed) / "d/a").write_bytes(b"54321")
    with pytest.raises(errors.DigestMismatch, match="its files were changed"):
        verify_layer(changed.store, changed.chain[0])


def test_the_last_bytes_come_only_when_all_is_well(changed: Layers) -> None:
    (tree_of(changed) / "d/a").write_bytes(b"54321")
    parts = recreate_layer(changed.store, changed.chain[0])
    with pytest.raises(errors.DigestMismatch):
        next(parts)


def test_a_missing_file(changed: Layers) -> None:
    (tree_of(changed) / "d/b").unlink()
    with pytest.raises(errors.DataLoss, match="file d/b of the layer was changed"):
        verify_layer(changed.store, changed.chain[0])


def test_links_are_not_followed(changed: Layers, tmp_path: Path) -> None:
    tree = tree_of(changed)
    (tree / "d").rename(tree / "e")
    (tree / "d").symlink_to("e")
    with pytest.raises(errors.DataLoss, match="d/a of the layer was changed"):
        verify_layer(changed.store, changed.chain[0])
    (tree / "d").unlink()
    (tree / "e").rename(tree / "d")
    (tmp_path / "secret").write_bytes(b"12345")
    (tree / "d/a").unlink()
    (tree / "d/a").symlink_to(tmp_path / "secret")
    with pytest.raises(errors.DataLoss, match="d/a"):
        verify_layer(changed.store, changed.chain[0])


def test_a_pipe_in_a_files_place_does_not_block(changed: Layers) -> None:
    (tree_of(changed) / "d/a").unlink()
    os.mkfifo(tree_of(changed) / "d/a")
    with pytest.raises(errors.DataLoss, match="no regular file"):
        verify_layer(changed.store, changed.chain[0])


def test_a_missing_tree(changed: Layers) -> None:
    tree_of(changed).rename(tree_of(changed).with_name("elsewhere"))
    with pytest.raises(errors.DataLoss, match="cannot be opened"):
        verify_layer(changed.store, changed.chain[0])


def test_a_missing_recipe(changed: Layers) -> None:
    os.unlink(changed.store.recipe(changed.chain[0]))
    with pytest.raises(errors.DataLoss, match=r"recipe .* is damaged: No such file"):
        verify_layer(changed.store, changed.chain[0])


def test_every_damaged_byte_of_a_recipe_is_found(changed: Layers) -> None:
    path = Path(changed.store.recipe(changed.chain[0]))
    good = path.read_bytes()
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x11]) + good[at + 1 :])
        with pytest.raises(errors.DataLoss):
            verify_layer(changed.store, changed.chain[0])
    for end in range(len(good)):
        path.write_bytes(good[:end])
        with pytest.raises(errors.DataLoss):
            verify_layer(changed.store, changed.chain[0])
    path.write_bytes(good)
    verify_layer(changed.store, changed.chain[0])


def test_a_layer_without_a_recipe_and_one_that_is_not_there(layers: Layers) -> None:
    ingest = layers.store.begin(None)
    chain_id = ChainId("sha256:" + "a" * 64)
    ingest.commit(chain_id, Digest(chain_id))
    with pytest.raises(errors.NotFound, match="kept no recipes") as caught:
        verify_layer(layers.store, chain_id)
    assert caught.value.kind == "recipe"
    with pytest.raises(errors.NotFound) as caught:
        verify_layer(layers.store, ChainId("sha256:" + "b" * 64))
    assert caught.value.kind == "layer"


def test_a_check_ends_the_work(changed: Layers) -> None:
    def cancelled() -> None:
        raise errors.Aborted("stop")

    with pytest.raises(errors.Aborted):
        verify_layer(changed.store, changed.chain[0], cancelled)


def test_what_is_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "r").write_bytes(b"something else")
    with pytest.raises(errors.DataLoss, match="no known version"):
        Recipe(str(tmp_path / "r"))
