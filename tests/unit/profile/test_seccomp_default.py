"""The default seccomp filter: what is let through, what is refused, what is unknown."""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge.oci.capabilities import DEFAULT
from isula_edge.profile import seccomp
from isula_edge.profile.profile import all_profiles, load, shared_seccomp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from isula_edge.profile.profile import Profile

EVERY = pytest.mark.parametrize("profile", all_profiles(), ids=lambda profile: str(profile.name))
USUAL = [f"CAP_{name}" for name in DEFAULT]
# every capability that the filter's file speaks of
CONDITIONS = sorted(shared_seccomp()["capability"])
TIME64 = (
    "clock_gettime64 clock_adjtime64 clock_getres_time64 clock_nanosleep_time64 timer_gettime64 "
    "timer_settime64 timerfd_gettime64 timerfd_settime64 utimensat_time64 pselect6_time64 "
    "ppoll_time64 io_pgetevents_time64 recvmmsg_time64 mq_timedsend_time64 "
    "mq_timedreceive_time64 semtimedop_time64 rt_sigtimedwait_time64 futex_time64 "
    "sched_rr_get_interval_time64"
).split()


EQ = "SCMP_CMP_EQ"


def verdict(
    document: Mapping[str, Any], name: str, argument: int | None = None
) -> tuple[str, int | None]:
    """Action and errno for a call of ``name``; ``argument`` is its first one."""
    entries = [
        entry
        for entry in document["syscalls"]
        if name in entry["names"] and _matches(entry.get("args"), argument)
    ]
    # libseccomp compares for equality first (tests of case A25 ask it)
    equal = [entry for entry in entries if "args" in entry and entry["args"][0]["op"] == EQ]
    found = {(entry["action"], entry.get("errnoRet")) for entry in equal or entries}
    assert len(found) <= 1, f"{name} has several answers: {found}"
    return found.pop() if found else (document["defaultAction"], document["defaultErrnoRet"])


def _matches(arguments: list[dict[str, Any]] | None, value: int | None) -> bool:
    if not arguments:
        return True
    assert value is not None, "the answer depends on an argument"
    (condition,) = arguments
    assert condition["index"] == 0
    if condition["op"] == EQ:
        return bool(value == condition["value"])
    if condition["op"] == "SCMP_CMP_GT":
        return bool(value > condition["value"])
    assert condition["op"] == "SCMP_CMP_MASKED_EQ"
    return bool(value & condition["value"] == condition["valueTwo"])


ALLOW = ("SCMP_ACT_ALLOW", None)
EPERM = ("SCMP_ACT_ERRNO", errno.EPERM)
ENOSYS = ("SCMP_ACT_ERRNO", errno.ENOSYS)


@EVERY
@pytest.mark.parametrize("held", [[], USUAL, CONDITIONS], ids=["none", "usual", "all"])
def test_a_call_that_is_named_nowhere_does_not_exist(profile: Profile, held: list[str]) -> None:
    document = seccomp.default_filter(held, profile)
    assert verdict(document, "a_call_of_the_future") == ENOSYS


@EVERY
@pytest.mark.parametrize("name", TIME64)
def test_calls_with_64_bit_time_are_allowed(profile: Profile, name: str) -> None:
    assert verdict(seccomp.default_filter([], profile), name) == ALLOW


@EVERY
def test_the_compat_architecture_is_part_of_the_filter(profile: Profile) -> None:
    found = seccomp.default_filter([], profile)["architectures"]
    compat = {
        "x86_64": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "arm64": ["SCMP_ARCH_ARM"],
        "arm": [],
        "riscv64": [],
    }
    assert found[1:] == compat[profile.name]


@pytest.mark.parametrize(
    "name",
    [
        "read", "execve", "openat2", "clock_gettime", "futex_waitv", "rseq", "io_setup", "ptrace",
        "set_robust_list", "pidfd_open", "landlock_create_ruleset", "getrandom", "statx", "mknod",
    ],
)  # fmt: skip
def test_everyday_calls_need_nothing(name: str) -> None:
    assert verdict(seccomp.default_filter([], load("x86_64")), name) == ALLOW


@EVERY
@pytest.mark.parametrize(
    "name",
    ["keyctl", "add_key", "io_uring_setup", "kexec_load", "userfaultfd", "pivot_root", "swapon"],
)
def test_some_calls_are_refused_to_everybody(profile: Profile, name: str) -> None:
    for held in ([], USUAL, CONDITIONS):
        assert verdict(seccomp.default_filter(held, profile), name) == EPERM


@pytest.mark.parametrize(
    ("capability", "name"),
    [
        ("CAP_BPF", "bpf"),
        ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
        ("CAP_PERFMON", "perf_event_open"),
        ("CAP_SYS_ADMIN", "mount"),
        ("CAP_SYS_ADMIN", "setns"),
        ("CAP_SYS_ADMIN", "unshare"),
        ("CAP_SYS_ADMIN", "bpf"),
        ("CAP_SYS_ADMIN", "perf_event_open"),
        ("CAP_SYS_BOOT", "reboot"),
        ("CAP_SYS_CHROOT", "chroot"),
        ("CAP_SYS_MODULE", "init_module"),
        ("CAP_SYS_NICE", "move_pages"),
        ("CAP_SYS_PACCT", "acct"),
        ("CAP_SYS_PTRACE", "kcmp"),
        ("CAP_SYS_RAWIO", "iopl"),
        ("CAP_SYS_TIME", "clock_settime64"),
        ("CAP_SYS_TTY_CONFIG", "vhangup"),
        ("CAP_SYSLOG", "syslog"),
    ],
)
def test_a_capability_opens_its_calls(capability: str, name: str) -> None:
    profile = load("x86_64")
    assert verdict(seccomp.default_filter([], profile), name) == EPERM
    assert verdict(seccomp.default_filter([capability], profile), name) == ALLOW
    others = [held for held in CONDITIONS if held not in (capability, "CAP_SYS_ADMIN")]
    if name not in ("bpf", "perf_event_open"):
        assert verdict(seccomp.default_filter(others, profile), name) == EPERM


CLONE_NEW = {
    "CLONE_NEWNS": 0x00020000, "CLONE_NEWCGROUP": 0x02000000, "CLONE_NEWUTS": 0x04000000,
    "CLONE_NEWIPC": 0x08000000, "CLONE_NEWUSER": 0x10000000, "CLONE_NEWPID": 0x20000000,
    "CLONE_NEWNET": 0x40000000,
}  # fmt: skip
THREAD, FORK = 0x003D0F00, 0x01200011


@EVERY
@pytest.mark.parametrize("flag", CLONE_NEW.values(), ids=CLONE_NEW)
def test_clone_makes_no_namespaces(profile: Profile, flag: int) -> None:
    document = seccomp.default_filter(USUAL, profile)
    assert verdict(document, "clone", flag | 17) == EPERM
    assert verdict(seccomp.default_filter(["CAP_SYS_ADMIN"], profile), "clone", flag) == ALLOW


@EVERY
def test_clone_makes_threads_and_processes(profile: Profile) -> None:
    document = seccomp.default_filter(USUAL, profile)
    assert verdict(document, "clone", THREAD) == ALLOW
    assert verdict(document, "clone", FORK) == ALLOW


def test_every_combination_of_namespaces_is_refused() -> None:
    document = seccomp.default_filter(USUAL, load("x86_64"))
    flags = list(CLONE_NEW.values())
    for bits in range(1, 1 << len(flags)):
        value = sum(flag for number, flag in enumerate(flags) if bits >> number & 1)
        assert verdict(document, "clone", value | 17) == EPERM


@EVERY
def test_clone3_is_unknown_so_that_clone_is_tried(profile: Profile) -> None:
    assert verdict(seccomp.default_filter(USUAL, profile), "clone3", 0) == ENOSYS
    assert verdict(seccomp.default_filter(["CAP_SYS_ADMIN"], profile), "clone3", 0) == ALLOW


@pytest.mark.parametrize("value", [0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF])
def test_personality_may_be_asked_for(value: int) -> None:
    assert verdict(seccomp.default_filter([], load("x86_64")), "personality", value) == ALLOW


@pytest.mark.parametrize("value", [0x0040000, 0x0400000, 0x4, 0xFFFFFFFE, 1 << 32])
def test_personality_may_not_be_anything(value: int) -> None:
    assert verdict(seccomp.default_filter(USUAL, load("x86_64")), "personality", value) == EPERM


def test_an_architecture_adds_its_own_calls() -> None:
    amd64, arm64 = (seccomp.default_filter([], load(word)) for word in ("x86_64", "aarch64"))
    assert verdict(amd64, "arch_prctl") == ALLOW
    assert verdict(arm64, "arch_prctl") == ENOSYS
    assert verdict(arm64, "set_tls") == ALLOW
    assert verdict(amd64, "set_tls") == ENOSYS


@EVERY
@pytest.mark.parametrize("held", [[], USUAL, CONDITIONS, ["CAP_SYS_ADMIN"]])
def test_no_call_has_two_unconditional_answers(profile: Profile, held: list[str]) -> None:
    document = seccomp.default_filter(held, profile)
    plain = [name for entry in document["syscalls"] if "args" not in entry
             for name in entry["names"]]  # fmt: skip
    assert len(plain) == len(set(plain))
    conditional = {name for entry in document["syscalls"] if "args" in entry
                   for name in entry["names"]}  # fmt: skip
    assert not conditional & set(plain)


def test_names_are_well_formed_and_not_listed_twice() -> None:
    data = shared_seccomp()
    texts = [*data["allow"].values(), data["refuse"]["names"]]
    names = [name for text in texts for name in text.split()]
    assert all(re.fullmatch(r"[a-z_][a-z0-9_]*", name) for name in names)
    twice = {name for name in names if names.count(name) > 1}
    assert not twice
