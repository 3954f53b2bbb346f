"""Recipes: how the original tar of a layer is made again of the layer's tree, byte for byte.

A layer's diff_id is the digest of its tar, and a tar cannot be guessed from the files that
came out of it.  So what unpacking reads and does not keep is recorded
(:mod:`isula_edge.image.recorder`): headers, padding, whiteouts, what follows the end.  A
recipe lies beside its layer's tree, and is committed and removed with it::

    magic and version       8 bytes
    block                   kind, length of path, length plain, length packed, ref, offset;
                            path, packed data (one zstd frame), CRC-32 of all of the block
    ...

``O`` blocks hold operations, in the order of the tar: raw bytes, or "the content of the
file at this path".  ``C`` blocks hold content that the same layer replaced or removed
later, as it was before reference number ``ref``, without holes.  The ``E`` block is the
last one and tells how many references and bytes the tar has: a recipe without it is cut
off.  Numbers are little-endian.
"""

from __future__ import annotations

import bisect
import hashlib
import os
import stat
import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

from isula_edge import errors
from isula_edge.image.folders import Folders, reading
from isula_edge.image.tar_extensions import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from isula_edge.snapshot.layers import LayerStore
    from isula_edge.types import ChainId

__all__ = ["Recipe", "layer_size", "recreate", "recreate_layer", "verify_layer"]

MAGIC = b"isrecip\x01"
BLOCK = struct.Struct("<cHIIQQ")
CRC = struct.Struct("<I")
OPERATIONS = b"O"
CONTENT = b"C"
END = b"E"

RAW = struct.Struct("<BI")
"""``R`` and a length; the bytes follow."""
WHOLE = struct.Struct("<BHQ")
"""``F``, length of the path, size; the path follows."""
PIECES = struct.Struct("<BHQI")
"""``S``, length of the path, size, number of pieces; the path and the pieces follow."""
R, F, S = b"RFS"
PIECE = struct.Struct("<QQ")

_MAX_BLOCK = 16 << 20
_CHUNK = 256 * 1024


def verify_layer(
    store: LayerStore, chain_id: ChainId, check: Callable[[], object] | None = None
) -> None:
    """Returns when the tar made again of the layer's tree has the layer's diff_id.

    ``check`` is called now and then; what it raises ends the work.  Raises NotFound for a
    layer that is not in ``store`` (``kind="layer"``), and for one that has no recipe since
    an engine without recipes unpacked it (``kind="recipe"``); DataLoss, with the file in
    its text, when the tree or the recipe was changed; DigestMismatch for anything else.
    """
    for _ in recreate_layer(store, chain_id):
        if check is not None:
            check()


def recreate_layer(store: LayerStore, chain_id: ChainId) -> Iterator[bytes]:
    """The original tar of a committed layer, in pieces; the last one comes after the check.

    Raises what :func:`verify_layer` raises.
    """
    diff_id = _diff_id(store, chain_id)
    algorithm, _, wanted = diff_id.partition(":")
    calculated = hashlib.new(algorithm, usedforsecurity=False)
    held = b""
    for data in recreate(store.tree(chain_id), store.recipe(chain_id)):
        calculated.update(data)
        if held:
            yield held
        held = data
    if calculated.hexdigest() != wanted:
        raise errors.DigestMismatch(
            f"layer {chain_id} has digest {algorithm}:{calculated.hexdigest()} instead of "
            f"{diff_id}: its files were changed",
            kind="layer",
            ref=chain_id,
            hint="remove the images that have it and pull or load them again",
        )
    if held:
        yield held


def layer_size(store: LayerStore, chain_id: ChainId) -> tuple[str, int]:
    """Diff_id of a committed layer, and the size of its tar in bytes.

    Raises NotFound as :func:`verify_layer` does, and DataLoss for a damaged recipe.
    """
    diff_id = _diff_id(store, chain_id)
    with Recipe(store.recipe(chain_id)) as found:
        return diff_id, found.tar_bytes


def _diff_id(store: LayerStore, chain_id: ChainId) -> str:
    """The diff_id of a layer that has a recipe."""
    record = store.get(chain_id)
    if record is None:
        raise errors.NotFound(f"No such layer: {chain_id}", kind="layer", ref=chain_id)
    if not record["recipe"]:
        raise errors.NotFound(
            f"layer {chain_id} was unpacked by an engine that kept no recipes",
            kind="recipe",
            ref=chain_id,
            hint="remove the images that have it and pull or load them again",
        )
    return str(record["diff_id"])


def recreate(tree: str, recipe: str) -> Iterator[bytes]:
    """The tar that was unpacked into the directory ``tree``, by the file ``recipe``.

    Memory does not depend on the layer's size.  Names are walked without following links.
    Raises DataLoss that names the file which is not there any more, or has another size.
    """
    with Recipe(recipe) as found:
        files = _Files(tree)
        out = bytearray()
        number = length = 0
        for operation in found.operations():
            if isinstance(operation, memoryview):
                parts: Iterator[bytes | memoryview] = iter((operation,))
            else:
                content = found.content(operation.path, number)
                parts = (
                    files.read(operation)
                    if content is None
                    else _of_content(found, content, operation)
                )
                number += 1
            for part in parts:
                out += part
                if len(out) >= _CHUNK:
                    length += len(out)
                    yield bytes(out)
                    out.clear()
        length += len(out)
        if out:
            yield bytes(out)
        found.check_end(number, length)


class _Reference(NamedTuple):
    """The content of a file: which parts of it, in their order."""

    path: bytes
    size: int
    pieces: Sequence[tuple[int, int]]


class _Block(NamedTuple):
    kind: bytes
    path: bytes
    plain: int
    packed: int
    ref: int
    offset: int
    at: int


class Recipe:
    """An open recipe.  Raises DataLoss for what is none, or is damaged."""

    def __init__(self, path: str) -> None:
        import zstandard

        self._path = path
        self._unpacker = zstandard.ZstdDecompressor()
        self._operations: list[_Block] = []
        self._content: dict[bytes, list[_Block]] = {}
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise self._damaged(str(error.strerror)) from error
        try:
            self._end = self._scan()
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> Recipe:
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self._fd)

    def _damaged(self, why: str) -> errors.DataLoss:
        return errors.DataLoss(
            f"recipe {self._path} is damaged: {why}",
            kind="recipe",
            ref=self._path,
            hint="remove the images that have its layer and pull or load them again",
        )

    def _scan(self) -> _Block:
        """Finds the blocks; the last one."""
        if os.pread(self._fd, len(MAGIC), 0) != MAGIC:
            raise self._damaged("it is of no known version")
        at = len(MAGIC)
        while True:
            head = os.pread(self._fd, BLOCK.size, at)
            if len(head) < BLOCK.size:
                raise self._damaged("it is cut off")
            kind, path_length, plain, packed, ref, offset = BLOCK.unpack(head)
            path = os.pread(self._fd, path_length, at + BLOCK.size) if path_length else b""
            block = _Block(kind, path, plain, packed, ref, offset, at)
            if plain > _MAX_BLOCK or packed > _MAX_BLOCK:
                raise self._damaged("a block is too long")
            if kind == END:
                self.data(block)
                return block
            if kind == OPERATIONS:
                self._operations.append(block)
            elif kind == CONTENT:
                blocks = self._content.setdefault(path, [])
                # one path for all blocks of a file
                blocks.append(block._replace(path=blocks[0].path) if blocks else block)
            else:
                raise self._damaged("a block is of no known kind")
            at += BLOCK.size + path_length + packed + CRC.size

    @property
    def tar_bytes(self) -> int:
        """Size of the tar."""
        return self._end.offset

    def data(self, block: _Block) -> bytes:
        """What ``block`` holds."""
        import zstandard

        length = BLOCK.size + len(block.path) + block.packed
        whole = os.pread(self._fd, length + CRC.size, block.at)
        if len(whole) < length + CRC.size:
            raise self._damaged("it is cut off")
        body = memoryview(whole)[:length]
        if CRC.unpack_from(whole, length)[0] != zlib.crc32(body):
            raise self._damaged("a checksum is wrong")
        if not block.plain:
            return b""
        try:
            return self._unpacker.decompress(
                body[BLOCK.size + len(block.path) :], max_output_size=block.plain
            )
        except zstandard.ZstdError as error:
            raise self._damaged(str(error)) from error

    def operations(self) -> Iterator[memoryview | _Reference]:
        """Raw bytes and references, in the order of the tar."""
        for block in self._operations:
            data = memoryview(self.data(block))
            at = 0
            try:
                while at < len(data):
                    found, at = _operation(data, at)
                    yield found
            except (struct.error, ValueError) as error:
                raise self._damaged(str(error)) from error

    def content(self, path: bytes, number: int) -> list[_Block] | None:
        """The blocks with what ``path`` held at reference ``number``; None: it is in the tree."""
        blocks = self._content.get(path, [])
        first = bisect.bisect_right(blocks, number, key=_ref)
        if first == len(blocks):
            return None
        return blocks[first : bisect.bisect_right(blocks, blocks[first].ref, key=_ref)]

    def check_end(self, references: int, length: int) -> None:
        """Raises DataLoss unless the tar has these numbers."""
        if (self._end.ref, self._end.offset) != (references, length):
            raise self._damaged("parts of it are missing")


def _ref(block: _Block) -> int:
    return block.ref


def _operation(data: memoryview, at: int) -> tuple[memoryview | _Reference, int]:
    """The operation at ``at``, and where the next one begins; ValueError."""
    kind = data[at]
    if kind == R:
        _, length = RAW.unpack_from(data, at)
        at += RAW.size
        end = at + length
        if end > len(data):
            raise ValueError("raw bytes are cut off")
        return data[at:end], end
    count = -1
    if kind == F:
        _, path_length, size = WHOLE.unpack_from(data, at)
        at += WHOLE.size
    elif kind == S:
        _, path_length, size, count = PIECES.unpack_from(data, at)
        at += PIECES.size
    else:
        raise ValueError("an operation is of no known kind")
    path = bytes(data[at : at + path_length])
    at += path_length
    if count < 0:
        return _Reference(path, size, ((0, size),)), at
    end = at + count * PIECE.size
    return _Reference(path, size, list(PIECE.iter_unpack(data[at:end]))), end


class _Files:
    """Reads files below ``root``."""

    def __init__(self, root: str) -> None:
        try:
            self._folders = Folders(root)
        except OSError as error:
            raise errors.DataLoss(
                f"the layer's directory {root} cannot be opened: {error.strerror}",
                kind="layer",
                ref=root,
            ) from error
        self._flags = reading() | os.O_NOFOLLOW

    def read(self, wanted: _Reference) -> Iterator[bytes]:
        """The parts of a file that ``wanted`` names."""
        above, _, name = wanted.path.rpartition(b"/")
        try:
            fd = os.open(name, self._flags, dir_fd=self._folders.at(above).fd)
        except OSError as error:
            raise _changed(wanted.path, str(error.strerror)) from error
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise _changed(wanted.path, "it is no regular file")
            if found.st_size != wanted.size:
                raise _changed(
                    wanted.path, f"it has {found.st_size} bytes instead of {wanted.size}"
                )
            for offset, length in wanted.pieces:
                while length > 0:
                    data = os.pread(fd, min(length, _CHUNK), offset)
                    if not data:
                        raise _changed(wanted.path, "it became shorter")
                    offset += len(data)
                    length -= len(data)
                    yield data
        except OSError as error:
            raise _changed(wanted.path, str(error.strerror)) from error
        finally:
            os.close(fd)


def _changed(path: bytes, why: str) -> errors.DataLoss:
    name = shown(path)
    return errors.DataLoss(
        f"file {name} of the layer was changed: {why}",
        kind="layer",
        ref=name,
        hint="remove the images that have the layer and pull or load them again",
    )


def _of_content(recipe: Recipe, blocks: list[_Block], wanted: _Reference) -> Iterator[bytes]:
    """As :meth:`_Files.read`, of a file that was there while the layer was unpacked.

    Pieces and blocks both go forward, so that each block is read about once; where there is
    no block there is a hole.
    """
    index, data = 0, b""
    loaded = -1
    for offset, length in wanted.pieces:
        while length > 0:
            while index < len(blocks) and blocks[index].offset + blocks[index].plain <= offset:
                index += 1
            if index == len(blocks) or blocks[index].offset > offset:
                hole = blocks[index].offset - offset if index < len(blocks) else length
                part = bytes(min(length, hole, _CHUNK))
            else:
                if loaded != index:
                    data, loaded = recipe.data(blocks[index]), index
                begin = offset - blocks[index].offset
                part = data[begin : begin + length]
            offset += len(part)
            length -= len(part)
            yield part
