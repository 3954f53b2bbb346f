"""The profiles that lie in profiles/: found by uname's word, complete, and about Linux."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.enums import ENUM_E_MACHINE

from isula_edge import errors
from isula_edge.profile import code
from isula_edge.profile.profile import Profile, all_profiles, load, named, shared_seccomp

TOP = Path(__file__).parents[3]
FOLDERS = sorted(path for path in (TOP / "profiles").iterdir() if path.is_dir())
# what every profile.toml must say; the rest is optional
KEYS = {
    "platform": {"architecture", "machines", "default_variant"},
    "elf": {"name", "machine", "bits", "flags"},
    "memory": {"page_sizes"},
    "runtime": {"default"},
    "emulator": {"program", "package"},
    "seccomp": {"architectures", "words", "allow"},
    "small": {
        "memory", "concurrent_downloads", "log_max_size", "image_gc_high", "image_gc_low",
        "image_gc_min_age_s",
    },
    "vm": {"program", "package", "machine", "console"},
    "debian": {"architecture", "wheels"},
}  # fmt: skip
OPTIONAL = {"platform": {"words", "variants"}, "debian": {"release"}}
COMPAT = {"architecture", "words", "elf", "emulator"}

EVERY = pytest.mark.parametrize("profile", all_profiles(), ids=lambda profile: str(profile.name))


@pytest.mark.parametrize(
    ("word", "name", "architecture"),
    [
        ("x86_64", "x86_64", "amd64"),
        ("amd64", "x86_64", "amd64"),
        ("aarch64", "arm64", "arm64"),
        ("arm64", "arm64", "arm64"),
        ("riscv64", "riscv64", "riscv64"),
        ("armv7l", "arm", "arm"),
        ("armv6l", "arm", "arm"),
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
    assert "arm, arm64, riscv64, x86_64" in found.value.hint
    assert found.value.ref == "vax"


def test_no_machine_has_two_profiles() -> None:
    words = [word for profile in all_profiles() for word in profile.machines]
    assert len(words) == len(set(words))


def document(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "profile.toml").read_text())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.name))
def test_every_folder_is_whole(folder: Path) -> None:
    """So that adding an architecture is adding a folder."""
    found = document(folder)
    assert set(found) - {"compat"} == set(KEYS)
    for section, keys in KEYS.items():
        assert keys <= set(found[section]) <= keys | OPTIONAL.get(section, set()), section
    for item in found.get("compat", ()):
        assert {"architecture", "elf"} <= set(item) <= COMPAT
    assert {path.name for path in folder.iterdir()} == {"profile.toml", "code.toml"}
    assert folder.name in {item.name for item in all_profiles()}


def test_all_have_the_same_instructions_and_calls() -> None:
    texts = [tomllib.loads((folder / "code.toml").read_text()) for folder in FOLDERS]
    for text in texts[1:]:
        assert set(text["code"]) == set(texts[0]["code"])
        assert set(text["calls"]) == set(texts[0]["calls"])
        assert len(text["code"]["argument"]) == 5


def test_every_key_is_explained() -> None:
    told = (TOP / "profiles/README.md").read_text()
    rows = re.findall(r"^\| (`[^|]*) \|", told, re.MULTILINE)
    explained = set()
    for row in rows:
        section = ""
        for word in re.findall(r"`([^`]+)`", row):
            section = word.rpartition(".")[0] or section
            explained.add(f"{section}.{word.rpartition('.')[2]}")
    keys = {f"{section}.{key}" for section, keys in KEYS.items() for key in keys}
    keys |= {f"{section}.{key}" for section, keys in OPTIONAL.items() for key in keys}
    keys |= {f"compat.{key}" for key in COMPAT}
    assert keys <= explained, keys - explained


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.name))
def test_scripts_read_the_same(folder: Path) -> None:
    words, values = [], []
    for section, table in document(folder).items():
        for key, value in table.items() if isinstance(table, dict) else ():
            if isinstance(value, str | int):
                words.append(f"{section}.{key}")
                values.append(value)
    done = subprocess.run(
        [TOP / "ci/profile", folder.name, *words], capture_output=True, text=True, check=True
    )
    for word, value, line in zip(words, values, done.stdout.splitlines(), strict=True):
        found = int(line, 0) if isinstance(value, int) else line
        assert found == value, word


@EVERY
def test_scripts_find_it_by_every_word(profile: Profile) -> None:
    for word in (profile.name, profile.architecture, *profile.machines):
        done = subprocess.run([TOP / "ci/profile", word], capture_output=True, text=True)
        assert done.stdout == f"{profile.name}\n", word


def test_scripts_are_told_what_there_is_not() -> None:
    for words, text in ((["vax"], "no profile for vax"), (["arm64", "vm.x"], "has no vm.x")):
        done = subprocess.run([TOP / "ci/profile", *words], capture_output=True, text=True)
        assert done.returncode == 2
        assert text in done.stderr


@EVERY
def test_a_profile_names_processors_that_elf_knows(profile: Profile) -> None:
    assert ENUM_E_MACHINE[profile.elf[0]] == profile.elf_machine
    assert profile.native[0] == profile.elf
    for name, bits in profile.native:
        assert name in ENUM_E_MACHINE
        assert bits in (32, 64)


@EVERY
def test_what_else_a_processor_runs_has_one_emulator(profile: Profile) -> None:
    for item in profile.compat:
        own = named(item.architecture)
        assert bool(item.emulator) is (own is None)
        assert own is None or own.elf == item.elf


@EVERY
def test_own_programs_are_aligned_to_every_size_of_pages(profile: Profile) -> None:
    assert profile.page_sizes
    machine = code.find(profile.machines[0])
    assert machine is not None
    program = machine.program(b"", machine.sleep)
    place, size = (112, 8) if profile.elf[1] == 64 else (80, 4)
    align = int.from_bytes(program[place : place + size], "little")
    assert all(align % pages == 0 for pages in profile.page_sizes)
    assert all(0x400000 % pages == 0 for pages in profile.page_sizes)


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
    small = profile.small
    assert 1 << 26 <= small.memory <= 1 << 32
    assert small.concurrent_downloads >= 1
    assert small.log_max_size >= 4096
    assert 0 < small.image_gc_low < small.image_gc_high < 100
    assert small.image_gc_min_age_s > 0


@EVERY
def test_an_architecture_adds_only_names_that_not_all_have(profile: Profile) -> None:
    shared = {name for group in shared_seccomp()["allow"].values() for name in group.split()}
    assert not set(profile.seccomp_allow) & shared
