"""The profiles that lie in profiles/: found by uname's word, complete, and about Linux."""

from __future__ import annotations

import os

import pytest
from elftools.elf.enums import ENUM_E_MACHINE

from isula_edge import errors
from isula_edge.profile.profile import Profile, all_profiles, load, shared_seccomp

EVERY = pytest.mark.parametrize("profile", all_profiles(), ids=lambda profile: str(profile.name))


@pytest.mark.parametrize(
    ("word", "name", "architecture"),
    [
        ("x86_64", "x86_64", "amd64"),
        ("amd64", "x86_64", "amd64"),
        ("aarch64", "arm64", "arm64"),
        ("arm64", "arm64", "arm64"),
    ],
)
def test_a_profile_is_found_by_the_machines_word(word: str, name: str, architecture: str) -> None:
    found = load(word)
    assert (found.name, found.architecture) == (name, architecture)


def test_without_a_word_it_is_this_machines() -> None:
    assert load() == load(os.uname().machine)


def test_an_unknown_machine_is_told_what_there_is() -> None:
    with pytest.raises(errors.Unimplemented, match="no profile for architecture vax") as found:
        load("vax")
    assert "arm64, x86_64" in found.value.hint
    assert found.value.ref == "vax"


def test_no_machine_has_two_profiles() -> None:
    words = [word for profile in all_profiles() for word in profile.machines]
    assert len(words) == len(set(words))


@EVERY
def test_a_profile_names_processors_that_elf_knows(profile: Profile) -> None:
    assert profile.native
    for name, bits in profile.native:
        assert name in ENUM_E_MACHINE
        assert bits in (32, 64)


@EVERY
def test_levels_only_add_flags(profile: Profile) -> None:
    seen: set[str] = set()
    for level in profile.levels:
        assert level.flags
        assert not level.flags & seen
        seen |= level.flags
    assert [level.name for level in profile.levels] == sorted(
        level.name for level in profile.levels
    )


@EVERY
def test_limits_are_for_machines_that_exist(profile: Profile) -> None:
    assert 1 << 26 <= profile.small_memory <= 1 << 32
    assert profile.small_concurrent_downloads >= 1


@EVERY
def test_an_architecture_adds_only_names_that_not_all_have(profile: Profile) -> None:
    shared = {name for group in shared_seccomp()["allow"].values() for name in group.split()}
    assert not set(profile.seccomp_allow) & shared
