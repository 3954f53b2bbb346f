"""Case A25: the default filter, compiled, answers ENOSYS to every call newer than itself."""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
import re
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge.oci.capabilities import DEFAULT
from isula_edge.profile import seccomp
from isula_edge.profile.profile import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from isula_edge.profile.profile import Profile

# linux/audit.h, and how libseccomp calls x32
ARCHES = {
    "SCMP_ARCH_X86": 0x40000003,
    "SCMP_ARCH_X86_64": 0xC000003E,
    "SCMP_ARCH_X32": 0x4000003E,
    "SCMP_ARCH_ARM": 0x40000028,
    "SCMP_ARCH_AARCH64": 0xC00000B7,
    "SCMP_ARCH_RISCV64": 0xC00000F3,
}
X32_BIT = 0x40000000
# calls that came with 64-bit time on 32-bit machines (Linux 5.1), one number on all of them
TIME64 = {
    403: "clock_gettime64", 405: "clock_adjtime64", 406: "clock_getres_time64",
    407: "clock_nanosleep_time64", 408: "timer_gettime64", 409: "timer_settime64",
    410: "timerfd_gettime64", 411: "timerfd_settime64", 412: "utimensat_time64",
    413: "pselect6_time64", 414: "ppoll_time64", 416: "io_pgetevents_time64",
    417: "recvmmsg_time64", 418: "mq_timedsend_time64", 419: "mq_timedreceive_time64",
    420: "semtimedop_time64", 421: "rt_sigtimedwait_time64", 422: "futex_time64",
    423: "sched_rr_get_interval_time64",
}  # fmt: skip
CLOCK_SETTIME64 = 404
X32_OWN = set(range(512, 548))
# the newest call that the filter names is open_tree_attr, Linux 6.15
FIRST_UNKNOWN = 468
USUAL = [f"CAP_{name}" for name in DEFAULT]

_ACTIONS = {"allow": 0x7FFF0000, "errno": 0x00050000}
_OPERATORS = {"SCMP_CMP_EQ": 4, "SCMP_CMP_GT": 6, "SCMP_CMP_MASKED_EQ": 7}
ALLOWED = _ACTIONS["allow"]


def refused(number: int) -> int:
    return _ACTIONS["errno"] | number


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


def _libseccomp() -> ctypes.CDLL:
    name = ctypes.util.find_library("seccomp")
    if name is None:
        pytest.skip("libseccomp is not installed")
    library = ctypes.CDLL(name)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    library.seccomp_release.argtypes = (ctypes.c_void_p,)
    library.seccomp_arch_add.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    library.seccomp_arch_remove.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    library.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
    library.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint,
        ctypes.POINTER(_Comparison),
    )  # fmt: skip
    return library


Rule = tuple[str, int, list[tuple[int, int, int, int]]]


def _rules_of_document(document: dict[str, Any]) -> Iterator[Rule]:
    for entry in document["syscalls"]:
        action = ALLOWED if entry["action"] == "SCMP_ACT_ALLOW" else refused(entry["errnoRet"])
        arguments = [
            (item["index"], _OPERATORS[item["op"]], item["value"], item.get("valueTwo", 0))
            for item in entry.get("args", ())
        ]
        for name in entry["names"]:
            yield name, action, arguments


_LINE = re.compile(r"(\w+) (allow|errno (\d+))(?: \[(\d),(\d+),(\w+)(?:,(\d+))?\])?")


def _rules_of_text(text: str) -> Iterator[Rule]:
    """Rules as liblxc reads them: [index, value, operator, mask]."""
    for line in text.splitlines()[3:]:
        found = _LINE.fullmatch(line)
        assert found is not None, line
        name, action, number, index, value, operator, mask = found.groups()
        arguments = []
        if index is not None:
            numbers = (int(mask), int(value)) if mask is not None else (int(value), 0)
            arguments.append((int(index), _OPERATORS[operator], *numbers))
        yield name, ALLOWED if action == "allow" else refused(int(number)), arguments


def compiled(held: list[str], machine: Profile, route: str, folder: Path) -> bytes:
    """The default filter as the kernel gets it."""
    library, document = _libseccomp(), seccomp.default_filter(held, machine)
    default = refused(document["defaultErrnoRet"])
    if route == "document":
        rules = list(_rules_of_document(document))
    else:
        text = seccomp.to_lxc(document, machine)
        assert text.startswith(f"2\nwhitelist errno {document['defaultErrnoRet']}\n[all]\n")
        rules = list(_rules_of_text(text))
    context = library.seccomp_init(default)
    try:
        wanted = [ARCHES[name] for name in document["architectures"]]
        native = library.seccomp_arch_native() & 0xFFFFFFFF
        for arch in wanted:
            if arch != native:
                assert library.seccomp_arch_add(context, arch) == 0
        if native not in wanted:
            assert library.seccomp_arch_remove(context, native) == 0
        for name, action, arguments in rules:
            number = library.seccomp_syscall_resolve_name(name.encode())
            # newer than the library, or refused as everything is
            if number == -1 or action == default:
                continue
            array = (_Comparison * len(arguments))(*(_Comparison(*item) for item in arguments))
            result = library.seccomp_rule_add_array(context, action, number, len(arguments), array)
            assert result == 0, (name, result)
        path = folder / "filter.bpf"
        with path.open("wb") as file:
            assert library.seccomp_export_bpf(context, file.fileno()) == 0
        return path.read_bytes()
    finally:
        library.seccomp_release(context)


def answer(program: bytes, arch: int, number: int, *arguments: int) -> int:
    """What the filter says to a call: classic BPF over struct seccomp_data (seccomp(2))."""
    jumps: dict[int, Callable[[int], bool]] = {
        0x15: lambda k: accumulator == k,
        0x25: lambda k: accumulator > k,
        0x35: lambda k: accumulator >= k,
        0x45: lambda k: bool(accumulator & k),
    }
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, arch, 0, *padded)
    accumulator = at = 0
    while True:
        code, yes, no, k = struct.unpack_from("<HBBI", program, at * 8)
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif code == 0x54:
            accumulator &= k
        elif code == 0x05:
            at += k
        elif code in jumps:
            at += yes if jumps[code](k) else no
        else:
            assert code == 0x06, f"instruction {code:#x}"
            return int(k)


CASES = [
    ("x86_64", "SCMP_ARCH_X86_64", 0),
    ("x86_64", "SCMP_ARCH_X86", 0),
    ("x86_64", "SCMP_ARCH_X32", X32_BIT),
    ("aarch64", "SCMP_ARCH_AARCH64", 0),
    ("aarch64", "SCMP_ARCH_ARM", 0),
    ("armv7l", "SCMP_ARCH_ARM", 0),
    ("riscv64", "SCMP_ARCH_RISCV64", 0),
]
ROUTES = pytest.mark.parametrize("route", ["document", "lxc"])
COMPAT = [
    ("x86_64", "SCMP_ARCH_X86"),
    ("aarch64", "SCMP_ARCH_ARM"),
    ("armv7l", "SCMP_ARCH_ARM"),
]


@ROUTES
@pytest.mark.parametrize("held", [USUAL, ["CAP_SYS_ADMIN"]], ids=["usual", "admin"])
@pytest.mark.parametrize(("machine", "name", "bit"), CASES)
def test_calls_newer_than_the_filter_do_not_exist(
    tmp_path: Path, machine: str, name: str, bit: int, held: list[str], route: str
) -> None:
    program = compiled(held, load(machine), route, tmp_path)
    # x32 is told apart by its number, the rest is x86-64
    arch = ARCHES["SCMP_ARCH_X86_64" if bit else name]
    numbers = set(range(FIRST_UNKNOWN, 1024)) - (X32_OWN if bit else set())
    found = {answer(program, arch, bit | number) for number in numbers}
    assert found == {refused(errno.ENOSYS)}


@ROUTES
@pytest.mark.parametrize(("machine", "name"), COMPAT)
def test_64_bit_time_is_there_on_32_bit_machines(
    tmp_path: Path, machine: str, name: str, route: str
) -> None:
    program = compiled(USUAL, load(machine), route, tmp_path)
    answers = {call: answer(program, ARCHES[name], number) for number, call in TIME64.items()}
    assert answers == dict.fromkeys(TIME64.values(), ALLOWED)


@ROUTES
@pytest.mark.parametrize(("machine", "name"), COMPAT)
def test_setting_the_clock_is_what_a_capability_is_for(
    tmp_path: Path, machine: str, name: str, route: str
) -> None:
    profile = load(machine)
    without = compiled(USUAL, profile, route, tmp_path)
    assert answer(without, ARCHES[name], CLOCK_SETTIME64) == refused(errno.EPERM)
    held = compiled([*USUAL, "CAP_SYS_TIME"], profile, route, tmp_path)
    assert answer(held, ARCHES[name], CLOCK_SETTIME64) == ALLOWED


@ROUTES
@pytest.mark.parametrize(
    ("machine", "name", "number", "arguments", "expected"),
    [
        ("x86_64", "SCMP_ARCH_X86_64", 250, (), refused(errno.EPERM)),  # keyctl
        ("x86_64", "SCMP_ARCH_X86_64", 435, (), refused(errno.ENOSYS)),  # clone3
        ("x86_64", "SCMP_ARCH_X86_64", 56, (0x003D0F00,), ALLOWED),  # clone of a thread
        ("x86_64", "SCMP_ARCH_X86_64", 56, (0x10000011,), refused(errno.EPERM)),  # CLONE_NEWUSER
        ("x86_64", "SCMP_ARCH_X86", 120, (0x20000011,), refused(errno.EPERM)),  # CLONE_NEWPID
        ("x86_64", "SCMP_ARCH_X86_64", 135, (0xFFFFFFFF,), ALLOWED),  # personality
        ("x86_64", "SCMP_ARCH_X86_64", 135, (0x20008,), ALLOWED),
        ("x86_64", "SCMP_ARCH_X86_64", 135, (0x0040000,), refused(errno.EPERM)),  # no random
        ("x86_64", "SCMP_ARCH_X86_64", 135, (0xFFFFFFFE,), refused(errno.EPERM)),
        ("x86_64", "SCMP_ARCH_X86_64", 135, (1 << 32,), refused(errno.EPERM)),
        ("x86_64", "SCMP_ARCH_X86", 136, (0x20009,), refused(errno.EPERM)),
        ("aarch64", "SCMP_ARCH_AARCH64", 92, (0x8,), ALLOWED),
        ("aarch64", "SCMP_ARCH_AARCH64", 92, (0x1,), refused(errno.EPERM)),
        ("aarch64", "SCMP_ARCH_AARCH64", 220, (0x01200011,), ALLOWED),  # clone of a process
        ("aarch64", "SCMP_ARCH_AARCH64", 220, (0x00020000,), refused(errno.EPERM)),  # CLONE_NEWNS
        ("aarch64", "SCMP_ARCH_AARCH64", 435, (), refused(errno.ENOSYS)),
        ("aarch64", "SCMP_ARCH_ARM", 0x0F0002, (), ALLOWED),  # cacheflush
        ("aarch64", "SCMP_ARCH_ARM", 0x0F0005, (), ALLOWED),  # set_tls
        ("armv7l", "SCMP_ARCH_ARM", 0x0F0005, (), ALLOWED),
        ("armv7l", "SCMP_ARCH_ARM", 120, (0x20000011,), refused(errno.EPERM)),
        ("riscv64", "SCMP_ARCH_RISCV64", 259, (), ALLOWED),  # riscv_flush_icache
        ("riscv64", "SCMP_ARCH_RISCV64", 220, (0x10000011,), refused(errno.EPERM)),
        ("riscv64", "SCMP_ARCH_RISCV64", 92, (0x1,), refused(errno.EPERM)),
    ],
)
def test_what_is_known_has_its_own_answer(
    tmp_path: Path,
    machine: str,
    name: str,
    number: int,
    arguments: tuple[int, ...],
    expected: int,
    route: str,
) -> None:
    program = compiled(USUAL, load(machine), route, tmp_path)
    assert answer(program, ARCHES[name], number, *arguments) == expected


_UNDER_THE_FILTER = """
import ctypes, errno, sys
program = sys.stdin.buffer.read()
class Program(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl.argtypes = (ctypes.c_int,) + (ctypes.c_ulong,) * 4
assert libc.prctl(38, 1, 0, 0, 0) == 0
given = Program(len(program) // 8, program)
assert libc.prctl(22, 2, ctypes.addressof(given), 0, 0) == 0, errno.errorcode[ctypes.get_errno()]
words = []
for number in map(int, sys.argv[1:]):
    result = libc.syscall(number, 0, 0, 0, 0)
    words.append("" if result >= 0 else errno.errorcode[ctypes.get_errno()])
print(*words, sep=",")
"""


# qemu-user has no seccomp filters: it answers EINVAL to prctl(PR_SET_SECCOMP)
@pytest.mark.native
def test_the_kernel_answers_so_too(tmp_path: Path) -> None:
    machine = load()
    program = compiled(USUAL, machine, "document", tmp_path)
    # getpid, keyctl, clone3, and two of the future
    numbers = {"amd64": (39, 250, 435, 600, 1000), "arm64": (172, 219, 435, 600, 1000)}
    done = subprocess.run(
        [sys.executable, "-I", "-c", _UNDER_THE_FILTER, *map(str, numbers[machine.architecture])],
        input=program,
        capture_output=True,
        check=True,
        env={"PATH": os.defpath},
    )
    assert done.stdout.decode() == ",EPERM,ENOSYS,ENOSYS,ENOSYS\n"
