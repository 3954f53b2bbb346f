"""What this kernel is good for: said once in the log, in ``isula info``, and to who would run
what cannot run."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.kernel import Status

if TYPE_CHECKING:
    from isula_edge.kernel import Features, Verdict

__all__ = ["able", "tell"]

_log = logging.getLogger(__name__)

_LEVELS = {
    Status.OK: logging.INFO,
    Status.DEGRADED: logging.WARNING,
    Status.CANNOT_RUN: logging.ERROR,
}

_DRIVEN = ("lxc", "runc", "crun")
"""Runtimes that run containers on this kernel; what others lack they say themselves."""


def tell(features: Features) -> Verdict:
    """The verdict, which is logged.  The engine starts whatever it is: images, ``info`` and
    the removal of containers need nothing of it."""
    verdict = features.verdict()
    _log.log(_LEVELS[verdict.status], "kernel %s: %s", features.release(), verdict.summary)
    if features.source.unanswered:
        calls = ", ".join(features.source.unanswered)
        _log.warning("the kernel gave no answer in time to %s", calls)
    return verdict


def able(features: Features, runtime: str) -> str:
    """``runtime`` itself; raises Unimplemented, with what it lacks, for one that cannot start
    containers on this kernel."""
    lacks = features.runtime_lacks(runtime) if runtime in _DRIVEN else ()
    if not lacks:
        return runtime
    others = [name for name in _DRIVEN if name != runtime and not features.runtime_lacks(name)]
    first = features.get(lacks[0])
    raise errors.Unimplemented(
        f"runtime {runtime} cannot start containers on this kernel, which lacks "
        f"{', '.join(lacks)}: {first.without}",
        kind="runtime",
        ref=runtime,
        hint=f"{' or '.join(others)} can" if others else "check-kernel --brief tells all it lacks",
    )
