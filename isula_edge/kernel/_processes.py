"""Probes of calls on processes, descriptors and terminals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isula_edge.kernel._storage import calls
from isula_edge.kernel.finding import Finding, present, unknown, unusable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from isula_edge.kernel.source import Source

__all__ = ["PROBES"]


def _entropy(source: Source) -> Finding:
    """Whether random numbers can be had without waiting, as they could not at start on
    several kernels before 5.6."""
    answer = source.call("syscalls.getrandom")
    if answer is None or answer.errname == "ENOSYS":
        amount = source.read("/proc/sys/kernel/random/entropy_avail")
        if amount is None:
            return unknown("neither getrandom(2) nor entropy_avail could be asked")
        said = f"/proc/sys/kernel/random/entropy_avail is {amount.strip()}"
        return present(said) if int(amount) >= 128 else unusable(said)
    if answer.errname == "EAGAIN":
        return unusable("getrandom(2) answers EAGAIN: the pool is not seeded yet")
    return present("getrandom(2) does not wait")


PROBES: Mapping[str, Callable[[Source], Finding]] = {
    "child-subreaper": calls(
        "prctl(PR_GET_CHILD_SUBREAPER)", "prctl.get_child_subreaper", "EINVAL"
    ),
    "inotify": calls("inotify_init1(2)", "syscalls.inotify_init1"),
    "pidfd": calls("pidfd_open(2)", "syscalls.pidfd_open"),
    "pidfd-wait": calls("waitid(2) with P_PIDFD", "syscalls.waitid_P_PIDFD", "EINVAL"),
    "clone3": calls("clone3(2)", "syscalls.clone3_null"),
    "close-range": calls("close_range(2)", "syscalls.close_range"),
    "close-range-cloexec": calls(
        "close_range(2) with CLOSE_RANGE_CLOEXEC", "syscalls.close_range_cloexec", "EINVAL"
    ),
    "memfd": calls("memfd_create(2)", "syscalls.memfd_create"),
    "getrandom": calls("getrandom(2)", "syscalls.getrandom"),
    "entropy": _entropy,
    # 3.0 to 3.4 answer EINVAL, 3.10 ENOTTY: both lack it
    "tiocgptpeer": calls("ioctl(TIOCGPTPEER)", "ioctl.TIOCGPTPEER", "EINVAL", "ENOTTY"),
}
