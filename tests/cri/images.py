"""Images for the tests: busybox, and what is made of it by other configurations and layers."""

from __future__ import annotations

import gzip
import json
import os
from typing import TYPE_CHECKING, Any

from tests.fakes.images import FakeImage, FakeLayer, index, make_image

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.registry import FakeRegistry

__all__ = ["BUSYBOX", "Images"]

BUSYBOX = "tests/busybox"
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_GROUPS = {
    "etc/passwd": (
        b"root:x:0:0:root:/root:/bin/sh\n"
        b"web:x:33:33:web:/tmp:/bin/sh\n"
        b"user:x:1000:1000:user:/home:/bin/sh\n"
    ),
    "etc/group": b"root:x:0:\nweb:x:33:\nuser:x:1000:\nfriends:x:50000:user\n",
}


class Images:
    """Puts images into a registry, and says the names to pull them by."""

    def __init__(self, registry: FakeRegistry, folder: Path) -> None:
        """``folder`` is one that ci/images filled."""
        self.registry = registry
        self._base = _busybox(folder)
        self.busybox = self.add(BUSYBOX)
        self.users = self.add("tests/users", layers=[FakeLayer.of(_GROUPS)], User="1000")

    def make(self, layers: list[FakeLayer] | None = None, **config: Any) -> FakeImage:
        """An image of busybox, more layers and the image configuration's keys."""
        values = {"Cmd": ["sh"], "Env": [_PATH], **config}
        platform = {"os": "linux", "architecture": self._base[1]}
        found = [self._base[0], *(layers or [])]
        return make_image(found, platform=platform, config={"config": values})

    def add(self, repository: str, tag: str = "latest", **options: Any) -> str:
        """Adds what `make` makes of ``options``: its name with host and tag."""
        self.registry.add(repository, tag, self.make(**options))
        return f"{self.registry.host}/{repository}:{tag}"

    def marked(self, repository: str, *tags: str, mark: str = "") -> str:
        """Adds an image unlike others under all ``tags``: its name without a tag."""
        image = self.make([FakeLayer.of({"mark": (mark or repository).encode()})])
        for tag in tags:
            self.registry.add(repository, tag, image)
        return f"{self.registry.host}/{repository}"

    def index(self, repository: str, tag: str) -> tuple[str, str]:
        """Adds an index with an image for this machine: name without a tag, digest of the index."""
        image = self.make([FakeLayer.of({"mark": repository.encode()})])
        digest = self.registry.add_index(repository, tag, index([image]), image)
        return f"{self.registry.host}/{repository}", digest


def _busybox(folder: Path) -> tuple[FakeLayer, str]:
    """The layer that ci/images made for this machine, and the architecture."""
    layout = folder / "oci"
    host = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]

    def read(descriptor: Any) -> bytes:
        algorithm, _, digits = descriptor["digest"].partition(":")
        path: Path = layout / "blobs" / algorithm / digits
        return path.read_bytes()

    entries = json.loads((layout / "index.json").read_text())["manifests"]
    key = "org.opencontainers.image.ref.name"
    (entry,) = (entry for entry in entries if entry["annotations"][key] == host)
    blob = read(json.loads(read(entry))["layers"][0])
    return FakeLayer(gzip.decompress(blob), blob), host
