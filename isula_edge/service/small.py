"""What the profile says of machines: of little memory, and of pages."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isula_edge.profile import Profile
    from isula_edge.service.config import EngineConfig

__all__ = ["GC_OFF", "fitted", "page_size_trouble", "total_memory"]

GC_OFF = -1
"""``image_gc_high`` of an administrator who wants no image removed, on small machines either."""


def total_memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def page_size_trouble(arch: Profile, size: int = 0) -> str:
    """What to say where this kernel's pages (``size`` bytes, 0: ask) are none that ``arch`` has."""
    found = size or os.sysconf("SC_PAGE_SIZE")
    if found in arch.page_sizes:
        return ""
    known = ", ".join(map(str, arch.page_sizes))
    return f"this kernel has pages of {found} bytes, the profile of {arch.name} knows {known}"


def fitted(config: EngineConfig, arch: Profile, memory: int = 0) -> EngineConfig:
    """``config`` with the profile's defaults for a machine of ``memory`` bytes (0: this one).

    Only what ``config`` leaves open is filled in.
    """
    small = arch.small
    if (memory or total_memory()) < small.memory:
        config = replace(
            config,
            max_concurrent_downloads=config.max_concurrent_downloads or small.concurrent_downloads,
            log_max_size=config.log_max_size or small.log_max_size,
        )
        if not config.image_gc_high:
            config = replace(
                config,
                image_gc_high=small.image_gc_high,
                image_gc_low=small.image_gc_low,
                image_gc_min_age=small.image_gc_min_age_s,
            )
    if config.image_gc_high == GC_OFF:
        config = replace(config, image_gc_high=0)
    return config
