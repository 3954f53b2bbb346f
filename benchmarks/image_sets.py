"""The images that are pulled: made of this machine's Debian packages, each an OCI layout.

A layout that is there already is used again; delete its folder to have it made anew.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.config import ConfigError
from isula_edge.profile import load

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["SETS", "ImageSet", "make", "pick"]

_LISTS = Path("/var/lib/dpkg/info")
_OCI = "application/vnd.oci.image"
_LARGEST = 8 << 20
_BUSYBOX = "/bin/busybox"


@dataclass(frozen=True, slots=True)
class ImageSet:
    """An image: how many files of which size it has altogether, in how many layers."""

    name: str
    files: int
    size_bytes: int
    layers: int

    @property
    def remark(self) -> str:
        """What it is, in a few words."""
        layers = "1 layer" if self.layers == 1 else f"{self.layers} layers"
        return f"{self.files} files, {self.size_bytes / 1e6:.0f} MB, {layers}"


SETS = (
    ImageSet("small", 1, 2_000_000, 1),
    ImageSet("medium", 2_000, 100_000_000, 3),
    ImageSet("large", 30_000, 400_000_000, 8),
)


def pick(files: Sequence[tuple[str, int]], count: int, size_bytes: int) -> list[str]:
    """Paths of ``count`` files that have about ``size_bytes`` together, in their order.

    Small and large ones are taken from the front of the list, whichever brings the mean nearer.
    ConfigError when there are too few.
    """
    mean = size_bytes / count
    chosen: set[str] = set()
    queues = [
        iter([file for file in files if file[1] <= mean]),
        iter([file for file in files if file[1] > mean]),
    ]
    total = 0
    while len(chosen) < count:
        found = next(queues[total < mean * len(chosen)], None) or next(queues[0], None)
        if found is None:
            raise ConfigError(f"images: no {count} files of {mean:.0f} bytes on average here")
        chosen.add(found[0])
        total += found[1]
    return [path for path, _ in files if path in chosen]


def _installed() -> list[tuple[str, int]]:
    """Regular files of all packages below /usr with their sizes, package by package."""
    found: dict[str, int] = {}
    for listing in sorted(_LISTS.glob("*.list")):
        for path in listing.read_text().splitlines():
            if path.startswith("/usr/") and path not in found and not os.path.islink(path):
                try:
                    status = os.stat(path)
                except OSError:
                    continue
                if os.path.isfile(path) and status.st_size <= _LARGEST:
                    found[path] = status.st_size
    return list(found.items())


def make(folder: Path, wanted: ImageSet) -> Path:
    """Folder of the OCI layout of the image, whose tag is ``latest``."""
    target = folder / f"{wanted.name}-{wanted.files}-{wanted.size_bytes}-{wanted.layers}"
    if target.exists():
        return target
    paths = [_BUSYBOX] if wanted.files == 1 else pick(_installed(), wanted.files, wanted.size_bytes)
    unfinished = target.with_name(f"{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    blobs = unfinished / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    step = -(-len(paths) // wanted.layers)
    layers = [_layer(blobs, paths[at : at + step]) for at in range(0, len(paths), step)]
    _documents(unfinished, layers)
    unfinished.rename(target)
    return target


def _layer(blobs: Path, paths: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Writes the layer with these files: its diff_id and its descriptor."""
    plain, packed = blobs / "layer.tar", blobs / "layer.tar.gz"
    with tarfile.open(plain, "w") as archive:
        for member in _members(paths):
            _add(archive, member)
    with (
        plain.open("rb") as file,
        packed.open("wb") as out,
        gzip.GzipFile("", "wb", 6, out, 0) as zipped,
    ):
        shutil.copyfileobj(file, zipped, 1 << 20)
    diff_id, digest = _digest(plain), _digest(packed)
    size = packed.stat().st_size
    plain.unlink()
    packed.rename(blobs / digest.partition(":")[2])
    media_type = f"{_OCI}.layer.v1.tar+gzip"
    return diff_id, {"mediaType": media_type, "digest": digest, "size": size}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _members(paths: Sequence[str]) -> Iterator[str]:
    """The files, each after the folders that it is in."""
    known: set[str] = set()
    for path in paths:
        for parent in reversed(Path(path).parents[:-1]):
            if str(parent) not in known:
                known.add(str(parent))
                yield str(parent)
        yield path


def _add(archive: tarfile.TarFile, path: str) -> None:
    # a folder that is a link here, such as /bin, becomes a folder
    status = os.stat(path)
    info = tarfile.TarInfo(path.lstrip("/"))
    info.mode, info.mtime = status.st_mode & 0o7777, int(status.st_mtime)
    if os.path.isdir(path):
        info.type = tarfile.DIRTYPE
        archive.addfile(info)
        return
    data = Path(path).read_bytes()
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def _documents(folder: Path, layers: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Writes configuration, manifest and index."""

    def put(document: dict[str, Any], kind: str) -> dict[str, Any]:
        data = json.dumps(document).encode()
        digest = hashlib.sha256(data).hexdigest()
        (folder / "blobs" / "sha256" / digest).write_bytes(data)
        media_type = f"{_OCI}.{kind}.v1+json"
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    config = {
        "os": "linux",
        "architecture": load().architecture,
        "config": {"Cmd": ["/bin/busybox"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id for diff_id, _ in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": put(config, "config"),
        "layers": [descriptor for _, descriptor in layers],
    }
    entry = put(manifest, "manifest")
    entry["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    index = {"schemaVersion": 2, "manifests": [entry]}
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
