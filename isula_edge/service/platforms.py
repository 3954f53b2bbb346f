"""Platforms of local images, and what this machine can run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.profile import emulator
from isula_edge.profile import platform as platforms
from isula_edge.types import Platform

if TYPE_CHECKING:
    from isula_edge.image.store import Image

__all__ = ["Platforms"]


class Platforms:
    """What images are for, against what was asked for."""

    def require(self, image: Image, wanted: str, ref: str) -> None:
        """Raises NotFound when the local ``image`` is not for the platform ``wanted``."""
        want = platforms.parse(wanted)
        system, architecture = image.platform
        found = platforms.normal(Platform(system or want.os, architecture or want.architecture))
        if (found.os, found.architecture) != (want.os, want.architecture):
            raise errors.NotFound(
                f"No such image:{ref} for {want}",
                kind="image",
                ref=ref,
                hint=f"the local image is for {found}; pull it with --platform {want}",
            )

    def emulators(self) -> list[dict[str, str]]:
        """Architectures that the kernel emulates: ``{"arch", "path"}``."""
        return [{"arch": name, "path": entry.path} for name, entry in emulator.registered()]
