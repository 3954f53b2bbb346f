"""The table of features as text, for a terminal or a file."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from isula_edge.kernel.features import Feature, Features, Need, Status, describe
from isula_edge.kernel.finding import State

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["EXIT_STATUS", "markdown", "render"]

EXIT_STATUS = {Status.OK: 0, Status.DEGRADED: 1, Status.CANNOT_RUN: 2}
"""Exit status of check-kernel by verdict."""

_NAME_WIDTH = 21
_STATE_WIDTH = 9
_COLOURS = {"red": "31", "yellow": "33", "green": "32", "bold": "1"}


def render(features: Features, *, colour: bool = False, brief: bool = False) -> str:
    """Groups of features, what is missing, the runtimes and last the verdict.

    ``brief`` leaves out the features that are present.
    """
    lines = [
        _paint(f"kernel {features.release()} ({features.source.name})", "bold", colour),
        f"cgroups {features.cgroups().version}, overlay {features.overlay_type() or 'none'}",
    ]
    group = ""
    for feature in features.all():
        if brief and feature.state is State.PRESENT:
            continue
        if feature.group != group:
            group = feature.group
            lines += ["", _paint(group, "bold", colour)]
        lines += _feature(feature, colour)
    return "\n".join([*lines, "", *_verdict(features, colour)]) + "\n"


def markdown() -> str:
    """Tables of all features, one for each group, as Markdown; nothing is probed."""
    lines: list[str] = []
    group = ""
    for name, text in describe().items():
        if text.group != group:
            group = text.group
            lines += ["", f"### {group.capitalize()}", ""]
            lines += ["| feature | what | since | need | without it | how it is probed |"]
            lines += ["|---|---|---|---|---|---|"]
        cells = (f"`{name}`", text.what, text.since, text.need.value, text.without, text.how)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines).strip("\n") + "\n"


def _feature(feature: Feature, colour: bool) -> Iterable[str]:
    state = f"{feature.state.value:{_STATE_WIDTH}}"
    yield (
        f"  {feature.name:{_NAME_WIDTH}} {_paint(state, _shade(feature), colour)}"
        f" {feature.need.value:9} {feature.why}"
    )
    if feature.missing:
        indent = " " * (2 + _NAME_WIDTH + 1)
        yield f"{indent}since {feature.since}; without it: {feature.without}"


def _shade(feature: Feature) -> str:
    if not feature.missing:
        return "green" if feature.state is State.PRESENT else ""
    return {Need.NEEDED: "red", Need.WANTED: "yellow", Need.OPTIONAL: ""}[feature.need]


def _verdict(features: Features, colour: bool) -> Iterable[str]:
    verdict = features.verdict()
    for name, lack in verdict.runtimes.items():
        yield f"runtime {name}: {'cannot start, lacks ' + ', '.join(lack) if lack else 'can start'}"
    if verdict.unknown:
        text = f"could not be asked: {', '.join(verdict.unknown)}"
        yield from textwrap.wrap(text, 100, subsequent_indent="  ")
    if features.source.unanswered:
        yield f"gave no answer in time: {', '.join(features.source.unanswered)}"
    shade = {Status.OK: "green", Status.DEGRADED: "yellow", Status.CANNOT_RUN: "red"}
    yield _paint(f"verdict: {verdict.summary}", shade[verdict.status], colour)


def _paint(text: str, shade: str, colour: bool) -> str:
    return f"\x1b[{_COLOURS[shade]}m{text}\x1b[0m" if colour and shade else text
