"""What ci/imitate takes away is away, and the engine's answer to a sandbox that says EPERM."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# native: qemu-user refuses filters, seccomp(2) and prctl(2) alike
pytestmark = [pytest.mark.root, pytest.mark.native]

TOP = Path(__file__).resolve().parents[2]
IMITATE = [sys.executable, str(TOP / "ci/imitate")]
ASK = """
import ctypes, errno, threading
libc = ctypes.CDLL(None, use_errno=True)
def ask(call, *words):
    ctypes.set_errno(0)
    found = call(*words)
    return errno.errorcode.get(ctypes.get_errno(), "") if found < 0 else "ok"
def number(nr, *words):
    return ask(libc.syscall, ctypes.c_long(nr), *words)
"""
OPENAT2 = 'number(437, -100, b"/", None, ctypes.c_long(0))'
OVERLAY = 'ask(libc.mount, b"none", b"/proc/version", b"overlay", ctypes.c_ulong(0), None)'
TMPFS = OVERLAY.replace("overlay", "tmpfs")
FSOPEN = 'number(430, b"overlay", 0)'
FILTER = "ask(libc.prctl, 22, ctypes.c_ulong(2), ctypes.c_ulong(0))"
NEWUSER = "ask(libc.unshare, 0x10000000)"
CLONE3 = "number(435, (ctypes.c_uint64 * 8)(0x10000000, 0, 0, 0, 17), ctypes.c_long(64))"
THREAD = """
def start():
    try:
        threading.Thread(target=int).start()
    except RuntimeError:
        return "refused"
    return "ok"
"""


def run(*words: str, script: str) -> subprocess.CompletedProcess[str]:
    command = [*IMITATE, *words, sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=TOP)


def said(*words: str, script: str) -> list[str]:
    done = run(*words, script=script)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize(
    ("option", "question", "answer"),
    [
        ("--deny=openat2", OPENAT2, "ENOSYS"),
        ("--deny=openat2=EPERM", OPENAT2, "EPERM"),
        ("--deny=statx", OPENAT2, "EINVAL"),
        ("--no-overlay", OVERLAY, "ENODEV"),
        ("--no-overlay", FSOPEN, "ENODEV"),
        ("--no-overlay", TMPFS, "ENOTDIR"),
        ("--no-seccomp", FILTER, "EINVAL"),
        ("--no-userns", FILTER, "EFAULT"),
        ("--no-userns", NEWUSER, "EINVAL"),
        ("--no-userns", CLONE3, "EINVAL"),
    ],
)
def test_a_call(option: str, question: str, answer: str) -> None:
    assert said(option, script=f"{ASK}\nprint({question})") == [answer]


def test_the_status_is_the_command_s() -> None:
    assert run("--no-overlay", script="raise SystemExit(7)").returncode == 7
    assert run("--no-overlay", script="import os; os.kill(os.getpid(), 9)").returncode == 137


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--deny", "nocall"], "unknown call nocall"),
        (["--deny", "openat2=ENOSUCH"], "unknown error ENOSUCH"),
        (["--no-cgroup", "nocontroller"], "no controller nocontroller"),
    ],
)
def test_wrong_use_is_named(words: list[str], text: str) -> None:
    done = run(*words, script="print(1)")
    assert (done.returncode, done.stdout) == (2, "")
    assert text in done.stderr


def test_a_sandbox_that_says_eperm_is_taken_for_an_old_kernel() -> None:
    script = f"""{ASK}{THREAD}
from isula_edge.sys.sandbox import refused_as_absent
print({OPENAT2})
print(*refused_as_absent())
print({OPENAT2}, start(), *refused_as_absent())
"""
    denied = "openat2=EPERM,clone3=EPERM,getrandom=EPERM"
    first, *names, openat2, thread = said("--deny", denied, script=script)
    assert first == "EPERM"
    assert sorted(names) == ["clone3", "getrandom", "openat2"]
    assert (openat2, thread) == ("ENOSYS", "ok")


def test_no_sandbox_no_filter() -> None:
    script = """
from isula_edge.sys.sandbox import refused_as_absent
print(*refused_as_absent(), open("/proc/self/status").read().count("Seccomp:\\t0"))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=TOP
    )
    before = Path("/proc/self/status").read_text().count("Seccomp:\t0")
    assert done.stdout.split() == [str(before)]
