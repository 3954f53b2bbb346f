"""Layers applied to a graph of a test's own, and the tree that a container would see."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from typing import TYPE_CHECKING

from isula_edge.image.layers import apply_layer
from isula_edge.snapshot import LayerStore
from isula_edge.sys import syscalls
from tests.fakes.jobs import FakeDaemon

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from isula_edge.types import ChainId

__all__ = ["Graph", "archive", "directory", "link", "regular", "special", "tree"]

type_of = {
    stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link",
    stat.S_IFCHR: "character", stat.S_IFBLK: "block", stat.S_IFIFO: "fifo",
}  # fmt: skip


def _entry(name: str, kind: bytes, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def regular(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """A file's entry."""
    return _entry(name, tarfile.REGTYPE, size=len(data), **fields), data


def directory(name: str, **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """A directory's entry."""
    return _entry(name, tarfile.DIRTYPE, **fields), b""


def link(name: str, target: str, *, hard: bool = False) -> tuple[tarfile.TarInfo, bytes]:
    """A link's entry."""
    return _entry(name, tarfile.LNKTYPE if hard else tarfile.SYMTYPE, linkname=target), b""


def special(name: str, kind: bytes, **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """An entry of any type."""
    return _entry(name, kind, **fields), b""


def archive(entries: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A tar (pax) with these entries in this order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


class Graph:
    """A graph of one storage driver; use as a context, which unmounts."""

    def __init__(self, folder: Path, driver: str) -> None:
        home = folder / "storage" / driver / "rw"
        home.mkdir(parents=True)
        self.store = LayerStore(str(folder), driver)
        self.chain: list[ChainId] = []
        self.mounts: list[str] = []

    def __enter__(self) -> Graph:
        return self

    def __exit__(self, *_: object) -> None:
        for path in self.mounts:
            syscalls.umount(path)

    def layer(self, entries: Iterable[tuple[tarfile.TarInfo, bytes]]) -> None:
        """Applies one more layer; raises what applying raises."""
        parent = self.chain[-1] if self.chain else None
        job = FakeDaemon().job
        data = io.BytesIO(archive(entries))
        applied = apply_layer(self.store, job, data, parent=parent, diff_id=None)
        self.chain.append(applied.chain_id)

    def root(self) -> str:
        """The mounted root file system of a container over all layers."""
        name = f"c{len(self.mounts)}"
        lowers = self.store.dirs(self.chain)
        self.store.driver.create(name, lowers)
        path = self.store.driver.mount(name, lowers).path
        if os.path.ismount(path):
            self.mounts.append(path)
        return path


def tree(root: str) -> dict[str, str]:
    """What there is below ``root``: path to type, mode, and content or target."""
    found = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = f"{folder}/{name}"
            mode = os.lstat(path).st_mode
            text = f"{type_of[stat.S_IFMT(mode)]} {stat.S_IMODE(mode):o}"
            if stat.S_ISLNK(mode):
                text = f"link {os.readlink(path)}"
            elif stat.S_ISREG(mode):
                with open(path, "rb") as file:
                    text += f" {file.read()!r}"
            found[os.path.relpath(path, root)] = text
    return found
