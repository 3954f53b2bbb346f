"""What node-problem-detector's custom plugins print: one line and an exit status.

Protocol: 0 is healthy, 1 is a problem, anything else is unknown; the first line of standard
output becomes the condition's message, cut after 80 bytes by default
(``max_output_length``).  A node's condition is named by the rule that runs the plugin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from isula_edge import errors
from isula_edge.kernel.features import Need, describe, runtimes
from isula_edge.kernel.finding import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isula_edge.kernel.features import Feature, Features

__all__ = ["MESSAGE_BYTES", "OK", "PROBLEM", "UNKNOWN", "Condition", "check", "subjects"]

OK, PROBLEM, UNKNOWN = 0, 1, 2

MESSAGE_BYTES = 80
"""What node-problem-detector keeps of a message if it is not told otherwise."""


class Condition(NamedTuple):
    """Exit status of a plugin and its line, at most :data:`MESSAGE_BYTES` long."""

    status: int
    message: str


def subjects() -> list[str]:
    """What can be checked: ``all``, ``needed``, each group that has something needed or
    wanted, and ``runtime:NAME``."""
    groups = dict.fromkeys(
        text.group for text in describe().values() if text.need is not Need.OPTIONAL
    )
    return ["all", "needed", *groups, *(f"runtime:{name}" for name in runtimes())]


def check(features: Features, subject: str) -> Condition:
    """The condition of one subject; InvalidArgument for one that is none.

    ``needed`` is a problem only when the engine cannot run; ``all`` and a group also when
    something wanted is missing; a runtime when it cannot start a container.
    """
    if subject not in subjects():
        raise errors.InvalidArgument(
            f"nothing of the kernel is called {subject}",
            kind="subject",
            ref=subject,
            hint=f"one of {', '.join(subjects())}",
        )
    kind, _, runtime = subject.partition(":")
    if runtime:
        names, what = runtimes()[runtime], f"runtime {runtime} can start containers"
    else:
        names, what = _names(kind), "nothing needed or wanted is missing"
        if kind == "needed":
            what = "the engine can run"
    with features.source.asking():
        found = [features.get(name) for name in names]
    missing = [item for item in found if item.missing]
    if missing:
        return Condition(PROBLEM, _line("missing: ", missing))
    unknown = [item for item in found if item.state is State.UNKNOWN]
    if unknown:
        return Condition(UNKNOWN, _line("could not be asked: ", unknown))
    return Condition(OK, what)


def _names(kind: str) -> tuple[str, ...]:
    """Needed features first."""
    order = (Need.NEEDED,) if kind == "needed" else (Need.NEEDED, Need.WANTED)
    return tuple(
        name
        for need in order
        for name, text in describe().items()
        if text.need is need and kind in ("all", "needed", text.group)
    )


def _line(start: str, items: Sequence[Feature]) -> str:
    """``start`` and as many names as fit, with the number of the others."""
    names = [item.name for item in items]
    for shown in range(len(names), 0, -1):
        rest = f" and {len(names) - shown} more" if shown < len(names) else ""
        line = f"{start}{', '.join(names[:shown])}{rest}"
        if len(line) <= MESSAGE_BYTES:
            return line
    return f"{start}{len(names)} features"
