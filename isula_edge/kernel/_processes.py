"""Probes of calls on processes, descriptors and terminals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isula_edge.kernel._storage import calls
from isula_edge.kernel.finding import Finding, absent, from_answer, present, unknown, unusable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from isula_edge.kernel.source import Source

__all__ = ["PROBES"]


def _entropy(source: Source) -> Finding:
    """Whether random numbers can be had without waiting, as they could not at start on
    several kernels before 5.6."""
    answer = source.call("syscalls.getrandom")
    if answer is None or answer.errname not in ("", "EAGAIN"):
        amount = source.read("/proc/sys/kernel/random/entropy_avail")
        if amount is None:
            return unknown("neither getrandom(2) nor entropy_avail could be asked")
        # a C library for TLS waits there until /dev/random can be read, once
        enough = source.read("/proc/sys/kernel/random/read_wakeup_threshold") or "64"
        said = f"/proc/sys/kernel/random/entropy_avail is {amount.strip()}"
        return present(said) if int(amount) >= int(enough) else unusable(said)
    if answer.errname == "EAGAIN":
        return unusable("getrandom(2) answers EAGAIN: the pool is not seeded yet")
    return present("getrandom(2) does not wait")


def _time64(source: Source) -> Finding:
    answer = source.call("time64.clock_gettime64")
    if answer is not None:
        return from_answer("clock_gettime64(2)", answer)
    word = source.call("abi.word_bits")
    if word is None:
        return unknown("the word size was not recorded")
    if word.ret == 64:
        return present("words have 64 bits, and so have times")
    return unknown("clock_gettime64(2) was not asked")


def _page_size(source: Source) -> Finding:
    answer = source.call("abi.page_size")
    if answer is None:
        return unknown("the page size was not recorded")
    size = f"a page has {answer.ret >> 10} KiB"
    return present(size) if answer.ret == 4096 else absent(size)


def _rtc(source: Source) -> Finding:
    for path in ("/dev/rtc0", "/sys/class/rtc/rtc0", "/dev/rtc"):
        if source.exists(path):
            return present(f"{path} is there")
    return absent("neither /dev/rtc0 nor /sys/class/rtc/rtc0 is there")


PROBES: Mapping[str, Callable[[Source], Finding]] = {
    "child-subreaper": calls(
        "prctl(PR_GET_CHILD_SUBREAPER)", "prctl.get_child_subreaper", "EINVAL"
    ),
    "inotify": calls("inotify_init1(2)", "syscalls.inotify_init1"),
    "pidfd": calls("pidfd_open(2)", "syscalls.pidfd_open"),
    "pidfd-send-signal": calls("pidfd_send_signal(2)", "syscalls.pidfd_send_signal"),
    "pidfd-getfd": calls("pidfd_getfd(2)", "syscalls.pidfd_getfd"),
    "pidfd-wait": calls("waitid(2) with P_PIDFD", "syscalls.waitid_P_PIDFD", "EINVAL"),
    "clone3": calls("clone3(2)", "syscalls.clone3_null"),
    "close-range": calls("close_range(2)", "syscalls.close_range"),
    "close-range-cloexec": calls(
        "close_range(2) with CLOSE_RANGE_CLOEXEC", "syscalls.close_range_cloexec", "EINVAL"
    ),
    "memfd": calls("memfd_create(2)", "syscalls.memfd_create"),
    "memfd-exec": calls("memfd_create(2) with MFD_EXEC", "syscalls.memfd_create_exec", "EINVAL"),
    "execveat": calls("execveat(2)", "syscalls.execveat"),
    "getrandom": calls("getrandom(2)", "syscalls.getrandom"),
    "entropy": _entropy,
    "time64": _time64,
    "page-size-4k": _page_size,
    "rtc": _rtc,
    # 3.0 to 3.4 answer EINVAL, 3.10 ENOTTY: both lack it
    "tiocgptpeer": calls("ioctl(TIOCGPTPEER)", "ioctl.TIOCGPTPEER", "EINVAL", "ENOTTY"),
}
