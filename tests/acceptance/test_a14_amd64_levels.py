"""Case A14: the level of an amd64 processor is read from its flags, and no entry is above it."""

from __future__ import annotations

import os
from itertools import permutations
from typing import TYPE_CHECKING

import pytest

from isula_edge.profile import platform
from isula_edge.types import Platform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BASE = (
    "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse "
    "sse2 syscall nx lm constant_tsc rep_good nopl pni"
)
# the flags lines of processors as their kernels print them, without what no level asks for
PROCESSORS = {
    "Athlon 64": (BASE, "v1"),
    "Core 2": (f"{BASE} ssse3 cx16 lahf_lm", "v1"),
    "Nehalem": (f"{BASE} ssse3 cx16 sse4_1 sse4_2 popcnt lahf_lm", "v2"),
    "Sandy Bridge": (
        f"{BASE} pclmulqdq ssse3 cx16 sse4_1 sse4_2 popcnt aes xsave avx lahf_lm xsaveopt",
        "v2",
    ),
    "Gemini Lake": (
        f"{BASE} ssse3 cx16 sse4_1 sse4_2 movbe popcnt aes xsave rdrand lahf_lm sha_ni", "v2"
    ),
    "Haswell": (
        f"{BASE} ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt aes xsave avx f16c rdrand lahf_lm abm "
        "bmi1 avx2 smep bmi2 erms",
        "v3",
    ),
    "Zen 3": (
        f"{BASE} ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt aes xsave avx f16c lahf_lm abm sse4a "
        "bmi1 avx2 bmi2 vaes",
        "v3",
    ),
    "Skylake-X": (
        f"{BASE} ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt aes xsave avx f16c lahf_lm abm bmi1 "
        "avx2 bmi2 avx512f avx512dq avx512cd avx512bw avx512vl",
        "v4",
    ),
    # AVX-512 without three of its parts, and a hypervisor that hides avx
    "Knights Landing": (
        f"{BASE} ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt aes xsave avx f16c lahf_lm abm bmi1 "
        "avx2 bmi2 avx512f avx512pf avx512er avx512cd",
        "v3",
    ),
    "Haswell without AVX": (
        f"{BASE} ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt aes xsave f16c lahf_lm abm bmi1 avx2 "
        "bmi2",
        "v2",
    ),
}  # fmt: skip
ENTRIES = ("", "v2", "v3", "v4")


def cpuinfo(flags: str) -> str:
    one = f"processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: {flags}\nbogomips\t: 1.00\n\n"
    return one + one.replace(": 0", ": 1")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str], Platform]]:
    """The platform of an x86_64 machine with these flags."""
    read_flags = platform._cpu_flags
    answer = os.uname_result(("Linux", "edge", "6.6.0", "#1", "x86_64"))
    path = tmp_path / "cpuinfo"

    def read(flags: str) -> Platform:
        path.write_text(cpuinfo(flags))
        monkeypatch.setattr(os, "uname", lambda: answer)
        monkeypatch.setattr(platform, "_cpu_flags", lambda: read_flags(str(path)))
        platform.host_platform.cache_clear()
        return platform.host_platform()

    yield read
    platform.host_platform.cache_clear()


@pytest.mark.parametrize(("flags", "level"), PROCESSORS.values(), ids=PROCESSORS)
def test_the_level_is_read_from_the_flags(
    host: Callable[[str], Platform], flags: str, level: str
) -> None:
    assert host(flags) == Platform("linux", "amd64", level)


@pytest.mark.parametrize("flags", [flags for flags, _ in PROCESSORS.values()], ids=PROCESSORS)
def test_the_highest_entry_that_runs_wins_in_any_order(
    host: Callable[[str], Platform], flags: str
) -> None:
    here = host(flags)
    best = "" if here.variant == "v1" else here.variant
    for order in permutations(ENTRIES):
        entries = [Platform("linux", "amd64", variant) for variant in order]
        chosen = platform.choose(entries, here)
        assert chosen is not None
        assert order[chosen] == best, order


@pytest.mark.parametrize(
    ("want", "entries", "best"),
    [
        # nothing for the very level: the next one below
        ("v4", ("", "v2"), "v2"),
        ("v3", ("v4", "v2", ""), "v2"),
        ("v2", ("v3", ""), ""),
        # an absent variant is v1, and not better than it
        ("v1", ("v1", ""), "v1"),
        ("v1", ("", "v1"), "v1"),
        ("v3", ("", "v1"), "v1"),
    ],
)
def test_an_absent_variant_counts_as_v1(want: str, entries: tuple[str, ...], best: str) -> None:
    found = [Platform("linux", "amd64", variant) for variant in entries]
    chosen = platform.choose(found, Platform("linux", "amd64", want))
    assert chosen is not None
    assert entries[chosen] == best


@pytest.mark.parametrize("lowest", ["v2", "v3", "v4"])
def test_code_above_the_processor_is_not_taken(lowest: str) -> None:
    entries = [Platform("linux", "amd64", lowest)]
    assert platform.choose(entries, Platform("linux", "amd64", "v1")) is None


def test_on_arm64_an_absent_variant_counts_as_v8() -> None:
    v8, plain = Platform("linux", "arm64", "v8"), Platform("linux", "arm64")
    assert platform.choose([plain], v8) == 0
    assert platform.choose([v8], plain) == 0
    assert platform.choose([plain, Platform("linux", "arm64", "v9")], v8) == 0
    assert platform.choose([Platform("linux", "arm64", "v9")], v8) is None
