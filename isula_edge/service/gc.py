"""Removal of unused images when the disk fills, between two watermarks.

Off unless daemon.json has ``image-gc-high``: where there is a kubelet, it does this.  It runs
after images were brought and when space has run out, never by a timer, and nothing is
written to remember when an image was used: this is known since the engine's start, and
before that an image counts as used when it was brought.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from isula_edge.image.store import Image, ImageStore
    from isula_edge.service.config import EngineConfig

__all__ = ["Collector", "percent_used"]

_log = logging.getLogger(__name__)
_EVERY_S = 60.0


class Images(Protocol):
    """What is asked of :class:`isula_edge.service.images.Images`."""

    store: ImageStore

    def used(self, image: Image) -> bool:
        """Whether a container needs it."""

    def leased(self, chain: str) -> bool:
        """Whether a command that runs now keeps a layer."""

    async def discard(self, image: Image) -> bool:
        """Removes an unused image."""


def percent_used(graph: str) -> float:
    """How full the file system of ``graph`` is, in blocks or in inodes, whichever is more."""
    found = os.statvfs(graph)
    taken = found.f_blocks - found.f_bfree
    blocks = 100.0 * taken / max(taken + found.f_bavail, 1)
    if not found.f_files:
        return blocks
    return max(blocks, 100.0 * (found.f_files - found.f_favail) / found.f_files)


class Collector:
    """Removes images that nothing uses, the least recently used first."""

    def __init__(
        self,
        images: Images,
        config: EngineConfig,
        *,
        now: Callable[[], float] = time.monotonic,
        percent: Callable[[str], float] = percent_used,
    ) -> None:
        self._images = images
        self._now = now
        self._percent = percent
        self._began = now()
        self._used: dict[str, float] = {}
        self._next = 0.0
        self.reconfigure(config)

    def reconfigure(self, config: EngineConfig) -> None:
        """Takes over the watermarks."""
        self._config = config

    def used(self, image_id: str) -> None:
        """An image is used, or was until now."""
        if image_id:
            self._used[image_id] = self._now()

    def forget(self, image_id: str) -> None:
        """An image is gone."""
        self._used.pop(image_id, None)

    async def run(self, *, pressing: bool = False) -> bool:
        """Removes images from the high watermark down to the low one: whether any went.

        Looks at most once a minute, unless it is ``pressing``: space has run out, whatever
        the watermarks say.
        """
        high = self._config.image_gc_high
        if not high or (not pressing and self._now() < self._next):
            return False
        self._next = self._now() + _EVERY_S
        if not pressing and self._percent(self._config.graph) < high:
            return False
        removed = 0
        for image in self._candidates(pressing):
            before = self._percent(self._config.graph)
            if before < self._config.image_gc_low and (removed or not pressing):
                break
            # its layers would stay: while they are checked, say
            if any(map(self._images.leased, image.chain_ids)):
                continue
            if await self._images.discard(image):
                removed += 1
                name = image.names[0] if image.names else image.id
                _log.warning("image %s was removed: the disk is full and nothing uses it", name)
                if self._percent(self._config.graph) >= before:
                    _log.warning("that freed no space: no further image is removed now")
                    break
        return removed > 0

    def _candidates(self, pressing: bool) -> list[Image]:
        oldest = self._now() - self._config.image_gc_min_age
        unseen = oldest if pressing else self._began
        found = [
            image
            for image in self._images.store
            if not image.pinned
            and self._used.get(image.id, unseen) <= oldest
            and not self._images.used(image)
        ]
        return sorted(found, key=lambda image: (self._used.get(image.id, 0.0), image.loaded_ns))
