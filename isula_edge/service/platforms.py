"""Platforms of local images, and what this machine can run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isula_edge.profile import emulator
from isula_edge.profile import platform as platforms
from isula_edge.profile.profile import load

if TYPE_CHECKING:
    from isula_edge.image.store import Image
    from isula_edge.types import Platform

__all__ = ["Platforms", "wanted"]


def wanted(text: str) -> Platform | None:
    """The platform that a user asks for; None for '', InvalidArgument for what is none."""
    return platforms.parse(text) if text else None


class Platforms:
    """What images are for, against what this machine runs."""

    def foreign(self, image: Image) -> str:
        """What to say of an image that this machine's processor does not run; '' if it does."""
        here, target = platforms.host_platform(), image.target
        compat = {item.architecture for item in load().compat}
        if target is None or platforms.runs_on(target, here) or target.architecture in compat:
            return ""
        return f"The image is for {target}, this machine is {here}, and no --platform was given."

    def emulators(self) -> list[dict[str, str]]:
        """Architectures that the kernel emulates: ``{"arch", "path", "flags"}``."""
        return [
            {"arch": name, "path": entry.path, "flags": entry.flags}
            for name, entry in emulator.registered()
        ]
