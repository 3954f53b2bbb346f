"""Seccomp filters as liblxc reads them."""

from __future__ import annotations

import errno
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isula_edge import errors
from isula_edge.profile import seccomp
from isula_edge.profile.profile import load


def text(*entries: dict[str, Any], default: str = "SCMP_ACT_ERRNO", **keys: Any) -> list[str]:
    return seccomp.to_lxc({"defaultAction": default, "syscalls": list(entries), **keys}).split("\n")


def entry(*names: str, action: str = "SCMP_ACT_ALLOW", **keys: Any) -> dict[str, Any]:
    return {"names": list(names), "action": action, **keys}


@pytest.mark.parametrize(
    ("default", "number", "line"),
    [
        ("SCMP_ACT_ERRNO", None, "whitelist errno 1"),
        ("SCMP_ACT_ERRNO", errno.ENOSYS, f"whitelist errno {errno.ENOSYS}"),
        ("SCMP_ACT_ERRNO", 0, "whitelist errno 0"),
        ("SCMP_ACT_KILL", None, "whitelist kill"),
        ("SCMP_ACT_KILL_THREAD", None, "whitelist kill"),
        ("SCMP_ACT_KILL_PROCESS", None, "whitelist kill"),
        ("SCMP_ACT_TRAP", None, "whitelist trap"),
        ("SCMP_ACT_ALLOW", None, "blacklist"),
        ("SCMP_ACT_LOG", None, "blacklist"),
    ],
)
def test_the_head_says_what_happens_to_all_others(
    default: str, number: int | None, line: str
) -> None:
    assert text(default=default, defaultErrnoRet=number) == ["2", line, "[all]", ""]


def test_a_list_of_what_is_allowed() -> None:
    assert text(entry("read", "write"), entry("mount", action="SCMP_ACT_ERRNO", errnoRet=38)) == [
        "2", "whitelist errno 1", "[all]", "read allow", "write allow", "mount errno 38", "",
    ]  # fmt: skip


def test_a_list_of_what_is_refused() -> None:
    found = text(
        entry("mount", action="SCMP_ACT_ERRNO"),
        entry("reboot", action="SCMP_ACT_KILL"),
        entry("keyctl", action="SCMP_ACT_TRAP"),
        default="SCMP_ACT_ALLOW",
    )
    assert found[3:] == ["mount errno 1", "reboot kill", "keyctl trap", ""]


@pytest.mark.parametrize(
    ("default", "number", "item"),
    [
        ("SCMP_ACT_ERRNO", 38, entry("x", action="SCMP_ACT_ERRNO", errnoRet=38)),
        ("SCMP_ACT_ERRNO", None, entry("x", action="SCMP_ACT_ERRNO", errnoRet=1)),
        ("SCMP_ACT_ALLOW", None, entry("x")),
        ("SCMP_ACT_LOG", None, entry("x")),
        ("SCMP_ACT_KILL", None, entry("x", action="SCMP_ACT_KILL_PROCESS")),
    ],
)
def test_what_happens_anyway_is_left_out(
    default: str, number: int | None, item: dict[str, Any]
) -> None:
    """libseccomp refuses a rule whose action is the default one."""
    assert text(item, default=default, defaultErrnoRet=number)[3:] == [""]


@pytest.mark.parametrize(
    ("arguments", "tail"),
    [
        ([{"index": 0, "value": 5, "op": "SCMP_CMP_EQ"}], "[0,5,SCMP_CMP_EQ]"),
        ([{"index": 2, "value": 0xFFFFFFFF, "op": "SCMP_CMP_GT"}], "[2,4294967295,SCMP_CMP_GT]"),
        (
            [{"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
            "[0,0,SCMP_CMP_MASKED_EQ,2114060288]",
        ),
        (
            [{"index": 1, "value": 12, "valueTwo": 4, "op": "SCMP_CMP_MASKED_EQ"}],
            "[1,4,SCMP_CMP_MASKED_EQ,12]",
        ),
        ([{"index": 1, "value": 12, "op": "SCMP_CMP_MASKED_EQ"}], "[1,0,SCMP_CMP_MASKED_EQ,12]"),
        (
            [
                {"index": 0, "value": 1, "op": "SCMP_CMP_NE"},
                {"index": 1, "value": 2, "op": "SCMP_CMP_LE"},
            ],
            "[0,1,SCMP_CMP_NE] [1,2,SCMP_CMP_LE]",
        ),
    ],
)
def test_arguments(arguments: list[dict[str, Any]], tail: str) -> None:
    assert text(entry("clone", args=arguments))[3] == f"clone allow {tail}"


def test_what_would_be_logged_is_let_through() -> None:
    assert text(entry("read", action="SCMP_ACT_LOG"))[3] == "read allow"


@pytest.mark.parametrize("action", ["SCMP_ACT_TRACE", "SCMP_ACT_NOTIFY", "SCMP_ACT_PANIC"])
def test_an_action_that_lxc_has_not_is_refused(action: str) -> None:
    for document in (
        {"defaultAction": action},
        {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [entry("read", action=action)]},
    ):
        with pytest.raises(errors.Unimplemented, match=action) as found:
            seccomp.to_lxc(document)
        assert "--runtime runc" in found.value.hint


@pytest.mark.parametrize("name", ["read allow\nmount", "a b", "", "[x86]", "#", "re-ad", "a;b"])
def test_a_name_that_would_be_more_than_a_name_is_refused(name: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="is no name of a system call"):
        text(entry(name))


@given(st.text(max_size=20))
def test_no_name_makes_a_line_of_its_own(name: str) -> None:
    try:
        found = text(entry(name))
    except errors.InvalidArgument:
        return
    assert len(found) == 5
    assert found[3] == f"{name} allow"


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("held", [[], ["CAP_SYS_ADMIN"]], ids=["none", "admin"])
def test_the_default_filter_can_be_said(machine: str, held: list[str]) -> None:
    profile = load(machine)
    found = seccomp.to_lxc(seccomp.default_filter(held, profile), profile)
    head, rules = found.split("\n")[:3], found.split("\n")[3:]
    assert head == ["2", f"whitelist errno {errno.ENOSYS}", "[all]"]
    assert rules.pop() == ""
    line = re.compile(r"[a-z_0-9]+ (allow|errno 1)( \[\d,\d+,SCMP_CMP_(EQ|GT|MASKED_EQ,\d+)\])?")
    assert [rule for rule in rules if not line.fullmatch(rule)] == []
    assert "futex_time64 allow" in rules
    assert "keyctl errno 1" in rules
    # answered as any unknown one
    assert not any(rule.startswith("clone3 ") for rule in rules) or held


ALL_OF_THEM = {
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
}


@pytest.mark.parametrize("machine", ALL_OF_THEM)
def test_a_filter_for_all_that_the_machine_runs_can_be_said(machine: str) -> None:
    for listed in (ALL_OF_THEM[machine], ALL_OF_THEM[machine][1:], [], None):
        document = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": listed}
        assert seccomp.to_lxc(document, load(machine)) == "2\nblacklist\n[all]\n"


@pytest.mark.parametrize(
    ("machine", "given", "named"),
    [
        ("x86_64", ["SCMP_ARCH_X86_64"], "SCMP_ARCH_X86, SCMP_ARCH_X32"),
        ("x86_64", ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "SCMP_ARCH_X32"),
        ("aarch64", ["SCMP_ARCH_AARCH64"], "SCMP_ARCH_ARM"),
        ("aarch64", ALL_OF_THEM["x86_64"], "SCMP_ARCH_ARM"),
    ],
)
@pytest.mark.parametrize("default", ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"])
def test_what_is_kept_from_32_bit_programs_is_not_given_to_them(
    machine: str, given: list[str], named: str, default: str
) -> None:
    """A section of one architecture would be applied to all of them by liblxc."""
    document = {"defaultAction": default, "architectures": given}
    with pytest.raises(errors.Unimplemented, match=f"leave {named} out of") as found:
        seccomp.to_lxc(document, load(machine))
    assert "--runtime runc" in found.value.hint


def test_flags_that_change_nothing_are_passed_over() -> None:
    flags = ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
    assert text(flags=flags) == text()


@pytest.mark.parametrize(
    "flag", ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "X"]
)
def test_a_flag_that_lxc_has_not_is_refused(flag: str) -> None:
    with pytest.raises(errors.Unimplemented, match=flag) as found:
        text(flags=["SECCOMP_FILTER_FLAG_TSYNC", flag])
    assert "--runtime runc" in found.value.hint
