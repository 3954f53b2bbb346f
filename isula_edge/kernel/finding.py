"""What one probe says: a state and the evidence for it."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from isula_edge.kernel.source import Answer

__all__ = ["Finding", "State", "absent", "from_answer", "present", "unknown", "unusable"]


class State(enum.Enum):
    """Whether a feature can be used."""

    PRESENT = "present"
    ABSENT = "absent"
    UNUSABLE = "unusable"
    """The kernel has it, and it cannot be used here: not mounted, not delegated, denied."""
    UNKNOWN = "unknown"
    """It could not be asked: no rights, or not recorded in a saved set of files."""


class Finding(NamedTuple):
    """State of a feature and the evidence, in words."""

    state: State
    why: str


def present(why: str) -> Finding:
    """A finding of state present."""
    return Finding(State.PRESENT, why)


def absent(why: str) -> Finding:
    """A finding of state absent."""
    return Finding(State.ABSENT, why)


def unusable(why: str) -> Finding:
    """A finding of state unusable."""
    return Finding(State.UNUSABLE, why)


def unknown(why: str) -> Finding:
    """A finding of state unknown."""
    return Finding(State.UNKNOWN, why)


def from_answer(
    what: str,
    answer: Answer | None,
    missing: tuple[str, ...] = (),
    *,
    privileged: bool = True,
) -> Finding:
    """Reads the answer of a call whose arguments were bad on purpose, or harmless.

    ``missing`` are the errnos that say, as ENOSYS does, that the kernel does not know it.
    EPERM says that something (a seccomp filter, an LSM) denies it; when the asker lacks the
    right to ask (``privileged`` is false) it says nothing.  Every other answer proves that it
    is there.
    """
    if answer is None:
        return unknown(f"{what} was not asked")
    said = f"{what} answers {answer.text}"
    if answer.errname == "ENOSYS" or answer.errname in missing:
        return absent(said)
    if answer.errname in ("EPERM", "EACCES"):
        if not privileged:
            return unknown(f"{said} to a caller without the capability")
        return unusable(f"{said}: denied by a filter or a security module")
    return present(said)
