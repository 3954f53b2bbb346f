"""A user's own seccomp profile, as Docker and iSulad write it."""

from __future__ import annotations

import errno
import json
import os
from typing import Any

import pytest

from isula_edge import errors
from isula_edge.profile import seccomp
from isula_edge.profile.profile import load

X86_64, ARM64 = load("x86_64"), load("aarch64")
ARCH_MAP = [
    {
        "architecture": "SCMP_ARCH_X86_64",
        "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    },
    {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
]


def read(document: Any, held: tuple[str, ...] = (), machine: str = "x86_64") -> dict[str, Any]:
    text = document if isinstance(document, str) else json.dumps(document)
    return seccomp.from_json(text, held, load(machine))


def entry(**keys: Any) -> dict[str, Any]:
    return {"names": ["mount"], "action": "SCMP_ACT_ALLOW", **keys}


def profile(*entries: Any, **keys: Any) -> dict[str, Any]:
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": list(entries), **keys}


def kept(item: dict[str, Any], held: tuple[str, ...] = (), machine: str = "x86_64") -> bool:
    """Whether an entry is in force."""
    return bool(read(profile(item), held, machine)["syscalls"])


def test_the_smallest_profile() -> None:
    assert read({"defaultAction": "SCMP_ACT_ALLOW"}) == {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [],
    }


def test_everything_that_a_runtime_knows_is_kept() -> None:
    argument = {"index": 0, "value": 8, "valueTwo": 9, "op": "SCMP_CMP_MASKED_EQ"}
    document = profile(
        entry(args=[argument], comment="why"),
        {"names": ["a", "b"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5},
        defaultErrnoRet=38,
        architectures=["SCMP_ARCH_X86_64"],
        flags=["SECCOMP_FILTER_FLAG_LOG"],
    )
    assert read(document) == {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "args": [argument]},
            {"names": ["a", "b"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5},
        ],
    }


def test_an_argument_without_second_value_gets_none() -> None:
    argument = {"index": 1, "value": 7, "valueTwo": 0, "op": "SCMP_CMP_NE"}
    (found,) = read(profile(entry(args=[argument])))["syscalls"]
    assert found["args"] == [{"index": 1, "value": 7, "op": "SCMP_CMP_NE"}]


def test_the_old_form_with_one_name() -> None:
    old = {"name": "mount", "action": "SCMP_ACT_ALLOW", "args": None}
    (found,) = read(profile(old))["syscalls"]
    assert found == {"names": ["mount"], "action": "SCMP_ACT_ALLOW"}


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ("x86_64", ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
        ("aarch64", ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
    ],
)
def test_arch_map_is_resolved_for_this_machine(machine: str, expected: list[str]) -> None:
    assert read(profile(archMap=ARCH_MAP), (), machine)["architectures"] == expected


def test_an_arch_map_without_this_machine_leaves_the_native_one() -> None:
    assert read(profile(archMap=ARCH_MAP[:1]), (), "aarch64")["architectures"] == [
        "SCMP_ARCH_AARCH64"
    ]


def test_null_means_nothing() -> None:
    document = profile(
        entry(includes=None, excludes=None, args=None, errnoRet=None),
        archMap=None, architectures=None, defaultErrnoRet=None, flags=None,
    )  # fmt: skip
    assert read(document) == {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_ALLOW"}],
    }
    assert read({"defaultAction": "SCMP_ACT_KILL", "syscalls": None})["syscalls"] == []


def test_capabilities_of_includes_are_all_needed() -> None:
    item = entry(includes={"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]})
    assert not kept(item)
    assert not kept(item, ("CAP_BPF",))
    assert kept(item, ("CAP_BPF", "CAP_SYS_ADMIN", "CAP_KILL"))


def test_one_capability_of_excludes_is_enough() -> None:
    item = entry(excludes={"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]})
    assert kept(item)
    assert kept(item, ("CAP_KILL",))
    assert not kept(item, ("CAP_BPF",))


@pytest.mark.parametrize(
    ("words", "on_amd64", "on_arm64"),
    [
        (["amd64"], True, False),
        (["arm64"], False, True),
        (["arm", "arm64"], False, True),
        (["amd64", "x32", "x86"], True, False),
        (["s390", "s390x"], False, False),
        ([], True, True),
    ],
)
def test_architectures_of_includes_and_excludes(
    words: list[str], on_amd64: bool, on_arm64: bool
) -> None:
    item = entry(includes={"arches": words})
    assert (kept(item), kept(item, (), "aarch64")) == (on_amd64, on_arm64)
    if words:
        item = entry(excludes={"arches": words})
        assert (kept(item), kept(item, (), "aarch64")) == (not on_amd64, not on_arm64)


@pytest.mark.parametrize(
    ("release", "wanted", "reached"),
    [
        ("4.8.0-53-generic", "4.8", True),
        ("4.7.9", "4.8", False),
        ("5.0", "4.8", True),
        ("4.10.0", "4.8", True),
        ("3.10.0-1160.el7.x86_64", "4.8", False),
        ("6.6-rc1", "6.6", True),
        ("6.6-rc1", "6.7", False),
    ],
)
def test_the_kernel_that_an_entry_asks_for(
    monkeypatch: pytest.MonkeyPatch, release: str, wanted: str, reached: bool
) -> None:
    answer = os.uname_result(("Linux", "edge", release, "#1", "x86_64"))
    monkeypatch.setattr(os, "uname", lambda: answer)
    assert kept(entry(includes={"minKernel": wanted})) is reached
    assert kept(entry(excludes={"minKernel": wanted})) is not reached


BAD = {
    "no JSON": ("{", "it is no JSON"),
    "empty": ("", "it is no JSON"),
    "a list": ("[]", "it has no defaultAction"),
    "no default": ('{"syscalls": []}', "it has no defaultAction"),
    "default is a number": ('{"defaultAction": 1}', "it has no defaultAction"),
    "syscalls is an object": (profile() | {"syscalls": {"a": 1}}, "syscalls must be a list"),
    "entry is a word": (profile("mount"), "an entry of syscalls is no object"),
    "entry without names": (profile({"action": "SCMP_ACT_ALLOW"}), "has no names"),
    "entry with empty names": (profile(entry(names=[])), "has no names"),
    "names are numbers": (profile(entry(names=[1])), "has no names"),
    "no action": (profile({"names": ["mount"]}), "mount has no action"),
    "action is a number": (profile(entry(action=5)), "mount has no action"),
    "unknown operator": (
        profile(entry(args=[{"index": 0, "value": 0, "op": "SCMP_CMP_MAYBE"}])),
        "mount has an argument with an unknown operator",
    ),
    "argument is a word": (
        profile(entry(args=["x"])),
        "mount has an argument with an unknown operator",
    ),
}


@pytest.mark.parametrize(("document", "message"), BAD.values(), ids=BAD)
def test_a_bad_profile_is_refused_with_the_reason(document: Any, message: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=f"invalid seccomp profile: .*{message}"):
        read(document)


WRONG_TYPES = {
    "names is a word": profile(entry(names="mount")),
    "includes is a list": profile(entry(includes=["CAP_KILL"])),
    "excludes is a word": profile(entry(excludes="arm")),
    "caps is a number": profile(entry(includes={"caps": 5})),
    "args is a number": profile(entry(args=5)),
    "argument without index": profile(entry(args=[{"value": 1, "op": "SCMP_CMP_EQ"}])),
    "argument without value": profile(entry(args=[{"index": 1, "op": "SCMP_CMP_EQ"}])),
    "archMap is an object": profile(archMap={"architecture": "SCMP_ARCH_X86_64"}),
    "archMap holds words": profile(archMap=["SCMP_ARCH_X86_64"]),
    "architectures is a word": profile(architectures="SCMP_ARCH_X86_64"),
    "architectures is a number": profile(architectures=5),
    "architectures are numbers": profile(architectures=[5]),
    "subArchitectures is a word": profile(
        archMap=[{**ARCH_MAP[0], "subArchitectures": "SCMP_ARCH_X86"}]
    ),
    "flags is a word": profile(flags="SECCOMP_FILTER_FLAG_LOG"),
    "arches are numbers": profile(entry(excludes={"arches": [5]})),
    "minKernel is a number": profile(entry(includes={"minKernel": 4.8})),
    "minKernel is no version": profile(entry(excludes={"minKernel": "new"})),
    "minKernel is a superscript": profile(entry(includes={"minKernel": "²"})),
    "errnoRet is a word": profile(entry(errnoRet="EPERM")),
    "errnoRet is beyond all errors": profile(entry(errnoRet=4096)),
    "defaultErrnoRet is true": profile(defaultErrnoRet=True),
    "index is a word": profile(entry(args=[{"index": "0", "value": 1, "op": "SCMP_CMP_EQ"}])),
    "a seventh argument": profile(entry(args=[{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}])),
    "value is negative": profile(entry(args=[{"index": 0, "value": -1, "op": "SCMP_CMP_EQ"}])),
    "value is too large": profile(entry(args=[{"index": 0, "value": 2**64, "op": "SCMP_CMP_EQ"}])),
    "value is a fraction": profile(entry(args=[{"index": 0, "value": 0.5, "op": "SCMP_CMP_EQ"}])),
    "valueTwo is a word": profile(
        entry(args=[{"index": 0, "value": 1, "valueTwo": "1", "op": "SCMP_CMP_EQ"}])
    ),
}


@pytest.mark.parametrize("document", WRONG_TYPES.values(), ids=WRONG_TYPES)
def test_wrong_types_are_refused_as_a_bad_profile(document: Any) -> None:
    with pytest.raises(errors.InvalidArgument, match="invalid seccomp profile"):
        read(document)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (profile(entry(includes={"caps": 5})), "mount: includes.caps must be a list"),
        (profile(entry(excludes=[])), "mount: excludes must be an object"),
        (profile(entry(args=5)), "mount: args must be a list"),
        (
            profile(entry(args=[{"value": 1, "op": "SCMP_CMP_EQ"}])),
            "mount: args.index must be a number from 0 to 5",
        ),
        (profile(archMap=["x"]), "an entry of archMap is no object"),
    ],
)
def test_the_place_of_a_wrong_type_is_named(document: Any, message: str) -> None:
    with pytest.raises(errors.InvalidArgument) as found:
        read(document)
    assert str(found.value) == f"invalid seccomp profile: {message}"


def test_deep_nesting_is_refused_as_a_bad_profile() -> None:
    with pytest.raises(errors.InvalidArgument):
        read("[" * 100_000)


def test_without_a_machine_it_is_this_one() -> None:
    text = json.dumps(profile(archMap=ARCH_MAP))
    assert seccomp.from_json(text, ()) == seccomp.from_json(text, (), load())


def test_a_profile_of_its_own_makes_the_round() -> None:
    """The default filter is a profile that a user could give."""
    for machine in (X86_64, ARM64):
        default = seccomp.default_filter(["CAP_KILL"], machine)
        found = seccomp.from_json(json.dumps(default), ["CAP_KILL"], machine)
        for ours, theirs in zip(default["syscalls"], found["syscalls"], strict=True):
            assert ours["names"] == theirs["names"]
            assert ours.get("errnoRet") == theirs.get("errnoRet")
        assert found["defaultErrnoRet"] == errno.ENOSYS
        assert found["architectures"] == default["architectures"]
