"""Defaults of a machine of little memory, and what is said of its pages."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isula_edge.profile.profile import Profile, all_profiles, load
from isula_edge.service.config import EngineConfig
from isula_edge.service.small import GC_OFF, fitted, page_size_trouble, total_memory

EVERY = pytest.mark.parametrize("profile", all_profiles(), ids=lambda profile: str(profile.name))
CONFIG = EngineConfig()


@EVERY
def test_a_small_machine_gets_what_its_profile_says(profile: Profile) -> None:
    small = profile.small
    found = fitted(CONFIG, profile, small.memory - 1)
    assert found == replace(
        CONFIG,
        max_concurrent_downloads=small.concurrent_downloads,
        log_max_size=small.log_max_size,
        image_gc_high=small.image_gc_high,
        image_gc_low=small.image_gc_low,
        image_gc_min_age=small.image_gc_min_age_s,
    )
    assert fitted(CONFIG, profile, small.memory) == CONFIG


def test_what_the_administrator_says_holds() -> None:
    said = replace(
        CONFIG, max_concurrent_downloads=7, log_max_size=5000, image_gc_high=50, image_gc_low=40
    )
    assert fitted(said, load(), 1) == said


def test_each_is_filled_in_alone() -> None:
    found = fitted(replace(CONFIG, log_max_size=5000), load(), 1)
    assert found.log_max_size == 5000
    assert found.max_concurrent_downloads == load().small.concurrent_downloads


@pytest.mark.parametrize("memory", [1, 1 << 40])
def test_removal_of_images_can_be_turned_off(memory: int) -> None:
    found = fitted(replace(CONFIG, image_gc_high=GC_OFF), load(), memory)
    assert found.image_gc_high == 0


def test_memory_is_this_machines() -> None:
    with open("/proc/meminfo", encoding="ascii") as file:
        kilobytes = int(file.readline().split()[1])
    # what the kernel keeps for itself differs between the two
    assert abs(total_memory() - kilobytes * 1024) < total_memory() // 4


@EVERY
def test_pages_that_the_profile_knows(profile: Profile) -> None:
    for size in profile.page_sizes:
        assert page_size_trouble(profile, size) == ""
    text = page_size_trouble(profile, 32768)
    assert "32768" in text
    assert str(profile.page_sizes[0]) in text
    assert page_size_trouble(load()) == ""
