"""Platforms: how they are written, which of an index is taken, and what this machine is."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isula_edge import errors
from isula_edge.profile import platform
from isula_edge.types import Platform

if TYPE_CHECKING:
    from tests.unit.profile.conftest import Machine

WRITTEN = [
    ("linux/amd64", "linux", "amd64", ""),
    ("linux/arm64/v8", "linux", "arm64", "v8"),
    ("linux/arm/v7", "linux", "arm", "v7"),
    ("linux/arm/7", "linux", "arm", "v7"),
    ("Linux/ARM64", "linux", "arm64", ""),
    ("  linux/amd64\n", "linux", "amd64", ""),
    ("arm64", "linux", "arm64", ""),
    ("x86_64", "linux", "amd64", ""),
    ("linux/x86-64/v3", "linux", "amd64", "v3"),
    ("aarch64", "linux", "arm64", ""),
    ("linux/aarch64/8", "linux", "arm64", "v8"),
    ("armhf", "linux", "arm", "v7"),
    ("armel", "linux", "arm", "v6"),
    ("armv7l", "linux", "arm", "v7"),
    ("armv6l", "linux", "arm", "v6"),
    ("armv5tel", "linux", "arm", "v5"),
    ("linux/armhf/v6", "linux", "arm", "v6"),
    ("i386", "linux", "386", ""),
    ("i686", "linux", "386", ""),
    ("windows/amd64", "windows", "amd64", ""),
    ("riscv64", "linux", "riscv64", ""),
    ("linux/arm64/v8.2", "linux", "arm64", "v8.2"),
]


@pytest.mark.parametrize(("text", "system", "architecture", "variant"), WRITTEN)
def test_words_that_people_write(text: str, system: str, architecture: str, variant: str) -> None:
    assert platform.parse(text) == Platform(system, architecture, variant)


def test_linux_alone_is_this_machine() -> None:
    assert platform.parse("linux") == platform.host_platform()


@pytest.mark.parametrize(
    "text",
    ["", "/", "linux/", "/amd64", "linux//v8", "a/b/c/d", "linux/arm 64", "linux/ä", "linux/a;b"],
)
def test_what_is_no_platform_is_refused_with_advice(text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="Invalid platform") as found:
        platform.parse(text)
    assert found.value.ref == text
    assert "os/architecture" in found.value.hint


@given(st.sampled_from([row[0] for row in WRITTEN]))
def test_a_read_platform_means_itself(text: str) -> None:
    found = platform.parse(text)
    assert platform.parse(str(found)) == found


def test_an_image_may_write_in_capitals_and_old_words() -> None:
    assert platform.normal(Platform("Linux", "AARCH64", "V8")) == Platform("linux", "arm64", "v8")
    assert platform.normal(Platform("linux", "armhf")) == Platform("linux", "arm", "v7")


def arm(variant: str) -> Platform:
    return Platform("linux", "arm", variant)


VARIANTS = ("", "v5", "v6", "v7")
# every pair of (what the machine is, what the one entry of the index is) and whether it runs;
# a machine without variant counts as v7, an entry without one may be anything
RUNS = {
    "": {"": True, "v5": True, "v6": True, "v7": True},
    "v5": {"": True, "v5": True, "v6": False, "v7": False},
    "v6": {"": True, "v5": True, "v6": True, "v7": False},
    "v7": {"": True, "v5": True, "v6": True, "v7": True},
}


@pytest.mark.parametrize("want", VARIANTS)
@pytest.mark.parametrize("entry", VARIANTS)
def test_one_arm_entry_for_each_machine(want: str, entry: str) -> None:
    runs = RUNS[want][entry]
    assert platform.choose([arm(entry)], arm(want)) == (0 if runs else None)
    assert platform.runs_on(arm(entry), arm(want)) is runs


@pytest.mark.parametrize(
    ("want", "best"), [("", "v7"), ("v5", "v5"), ("v6", "v6"), ("v7", "v7"), ("v8", "v7")]
)
def test_every_order_of_arm_entries_gives_the_same_one(want: str, best: str) -> None:
    for order in permutations(VARIANTS):
        chosen = platform.choose([arm(entry) for entry in order], arm(want))
        assert chosen == order.index(best), order


@pytest.mark.parametrize("want", ["v5", "v6", "v7"])
def test_plain_arm_is_the_last_resort(want: str) -> None:
    for order in permutations(["", "v5"]):
        assert platform.choose([arm(entry) for entry in order], arm(want)) == order.index("v5")
    assert platform.choose([arm("v8"), arm("")], arm(want)) == 1


@given(
    st.lists(
        st.sampled_from([arm("v5"), arm("v6"), arm("v7"), arm("v8"), arm(""), None]), max_size=8
    ),
    st.sampled_from(["v5", "v6", "v7"]),
)
def test_code_for_a_newer_processor_is_never_taken(
    entries: list[Platform | None], want: str
) -> None:
    chosen = platform.choose(entries, arm(want))
    if chosen is None or entries[chosen] is None:
        assert not any(e and e.variant <= want for e in entries)
        return
    best = entries[chosen]
    assert best is not None
    assert best.variant <= want
    assert all(not e or e.variant > want or e.variant <= best.variant for e in entries)
    assert entries.index(best) == chosen


@pytest.mark.parametrize(
    ("entries", "want", "chosen"),
    [
        (["", "v2", "v3", "v4"], "v1", 0),
        (["", "v2", "v3", "v4"], "v2", 1),
        (["v4", "v3", "v2", ""], "v3", 1),
        (["", "v1"], "v1", 1),
        (["v1", ""], "v1", 0),
        (["v2"], "", None),
        ([""], "", 0),
        (["v4", "v2"], "v3", 1),
    ],
)
def test_amd64_levels(entries: list[str], want: str, chosen: int | None) -> None:
    found = [Platform("linux", "amd64", entry) for entry in entries]
    assert platform.choose(found, Platform("linux", "amd64", want)) == chosen


@pytest.mark.parametrize(
    ("entries", "want", "chosen"),
    [
        (["", "v9"], "v8", 0),
        (["v8"], "", 0),
        (["v9", "v8.2", "v8"], "v8", 2),
        (["v9", "v8.2", "v8"], "v8.5", 1),
        (["v8.10", "v8.9"], "v8.10", 0),
        (["v9"], "", None),
    ],
)
def test_arm64_versions(entries: list[str], want: str, chosen: int | None) -> None:
    found = [Platform("linux", "arm64", entry) for entry in entries]
    assert platform.choose(found, Platform("linux", "arm64", want)) == chosen


def test_a_variant_that_is_no_number_must_be_the_very_one() -> None:
    odd = [Platform("linux", "amd64", "fips"), Platform("linux", "amd64", "v1")]
    assert platform.choose(odd, Platform("linux", "amd64", "fips")) == 0
    assert platform.choose(odd, Platform("linux", "amd64", "v3")) == 1
    assert platform.choose(odd[:1], Platform("linux", "amd64", "v3")) is None


def test_other_systems_and_architectures_are_passed_over() -> None:
    entries = [
        Platform("windows", "arm64"),
        Platform("linux", "amd64"),
        None,
        Platform("linux", "aarch64", "8"),
    ]
    assert platform.choose(entries, Platform("linux", "arm64")) == 3
    assert platform.choose(entries, Platform("linux", "riscv64")) is None


def test_entries_without_platform_count_only_when_none_has_one() -> None:
    amd64 = Platform("linux", "amd64")
    assert platform.choose([None, None], amd64) == 0
    assert platform.choose([None, amd64], amd64) == 1
    assert platform.choose([None, arm("v7")], amd64) is None
    assert platform.choose([], amd64) is None


def test_an_image_that_does_not_say_what_it_is_for_is_believed() -> None:
    assert platform.runs_on(Platform("", ""), Platform("linux", "arm64", "v8"))
    assert not platform.runs_on(Platform("linux", "amd64"), Platform("linux", "arm64", "v8"))


@pytest.mark.parametrize(
    ("word", "variant"),
    [
        ("armv5tel", "v5"),
        ("armv6l", "v6"),
        ("armv7l", "v7"),
        ("armv8l", "v7"),
        ("armhf", "v7"),
        ("arm", "v7"),
    ],
)
def test_a_32_bit_arm_machine(machine: Machine, word: str, variant: str) -> None:
    assert machine(word) == Platform("linux", "arm", variant)


def test_an_arm64_machine_is_v8_whatever_its_features(machine: Machine) -> None:
    cpuinfo = "processor\t: 0\nFeatures\t: fp asimd evtstrm aes crc32 atomics sve sve2\n"
    assert machine("aarch64", cpuinfo) == Platform("linux", "arm64", "v8")


def test_a_machine_without_profile_is_named(machine: Machine) -> None:
    with pytest.raises(errors.Unimplemented, match="no profile for architecture sparc64") as found:
        machine("sparc64")
    assert "arm64" in found.value.hint
    assert "x86_64" in found.value.hint


V1 = "fpu vme de pse tsc msr pae mce cx8 apic sep mmx fxsr sse sse2 ht syscall nx lm pni"
V2 = f"{V1} cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3"
V3 = f"{V2} avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"
V4 = f"{V3} avx512f avx512bw avx512cd avx512dq avx512vl"


@pytest.mark.parametrize(
    ("flags", "variant"),
    [
        (V1, "v1"),
        (V2, "v2"),
        (V3, "v3"),
        (V4, "v4"),
        ("", "v1"),
        # one flag is missing: the level below, and no level above it counts
        (V2.replace(" popcnt", ""), "v1"),
        (V3.replace(" movbe", ""), "v2"),
        (V4.replace(" avx512vl", ""), "v3"),
        (V4.replace(" ssse3", ""), "v1"),
        (V4.replace(" bmi1", ""), "v2"),
        # avx2 alone does not stand for avx
        (V3.replace(" avx ", " "), "v2"),
    ],
)
def test_the_level_of_an_amd64_processor(machine: Machine, flags: str, variant: str) -> None:
    cpuinfo = f"processor\t: 0\nvmx flags\t: vnmi\nflags\t\t: {flags}\nbugs\t\t: spectre_v1\n\n"
    assert machine("x86_64", cpuinfo * 2) == Platform("linux", "amd64", variant)


def test_an_unreadable_cpuinfo_is_the_lowest_level(machine: Machine) -> None:
    assert machine("x86_64") == Platform("linux", "amd64", "v1")


def test_words_of_the_profiles(machine: Machine) -> None:
    assert platform.parse("riscv64") == Platform("linux", "riscv64", "")
    assert platform.parse("x86") == platform.parse("i486") == Platform("linux", "386", "")
    assert machine("riscv64") == Platform("linux", "riscv64", "")


@pytest.mark.parametrize(
    ("new", "old", "want", "expected"),
    [
        # the same, said or not
        ("arm64", "arm64/v8", "arm64", True),
        ("arm64/v8", "arm64", "arm64", True),
        ("arm64", "amd64", "arm64", False),
        # what would be taken first
        ("amd64/v2", "amd64/v3", "amd64/v3", True),
        ("amd64/v3", "amd64/v2", "amd64/v3", False),
        # what does not run there is for others
        ("amd64/v2", "amd64/v4", "amd64/v3", False),
        ("arm/v6", "arm/v7", "arm/v6", False),
        ("arm/v7", "arm/v6", "arm/v7", False),
        ("arm/v5", "arm/v6", "arm/v6", True),
        # got for a platform that it is not for: what runs there is not meant any more
        ("arm64", "amd64", "amd64", True),
        ("arm64", "riscv64", "amd64", False),
    ],
)
def test_what_is_superseded(new: str, old: str, want: str, expected: bool) -> None:
    found = platform.supersedes(*(platform.parse(f"linux/{word}") for word in (new, old, want)))
    assert found is expected
