"""Names and small values that cross layers: ids, digests, platforms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

__all__ = ["ChainId", "ContainerId", "Digest", "ImageId", "Platform"]

ContainerId = NewType("ContainerId", str)
"""64 lower-case hexadecimal digits."""
Digest = NewType("Digest", str)
"""``algorithm:hex``, e.g. ``sha256:…`` (OCI image-spec, descriptor)."""
ImageId = NewType("ImageId", str)
"""64 hexadecimal digits: the sha256 of the image's config blob, without the algorithm."""
ChainId = NewType("ChainId", str)
"""``sha256:…`` of a layer and all below it (OCI image-spec, config: Layer ChainID)."""


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on: ``os``, ``architecture`` (GOARCH words), ``variant`` or ''."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        tail = f"/{self.variant}" if self.variant else ""
        return f"{self.os}/{self.architecture}{tail}"
