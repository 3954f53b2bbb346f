"""The result of the Container Runtime Interface as JSON and as tables."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from benchmarks import report
from benchmarks.statistics import percentile

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["figures", "markdown", "write"]

_EQUAL = """\
- A sample is one call over one gRPC connection, from before it is sent until its answer is there.
- Each engine has a network namespace of its own with the same bridge and port mappings by CNI,
  and the same images; pods have a cgroup parent and containers their own process namespace, as
  a kubelet asks for. containerd's pods have a pause container, ours need none: its image here
  is a program of a few instructions.
- Engines take turns within each call, in random order; between two turns the harness waits until
  nothing an engine left to do is still running.
- CPU time is that of the engine and all it starts, what goes on after the answer included, by
  the kernel's count of the cgroup.
- One call that fails makes all figures of its engine void.
"""


def figures(document: dict[str, Any]) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Figures by mode, operation and engine: milliseconds, and for batches those of the whole."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for cell in document["cells"]:
        groups.setdefault((cell["mode"], cell["operation"], cell["engine"]), []).append(cell)
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for (mode, operation, engine), cells in groups.items():
        samples = [sample * 1000 for cell in cells for sample in cell["samples_s"]]
        used = sum(cell["cpu_s"] for cell in cells) * 1000
        found.setdefault(mode, {}).setdefault(operation, {})[engine] = {
            "median_ms": round(statistics.median(samples), 3),
            "p95_ms": round(percentile(samples, 95), 3),
            "elapsed_median_ms": round(
                statistics.median(cell["elapsed_s"] for cell in cells) * 1000, 3
            ),
            "cpu_mean_ms": round(used / len(samples), 3),
        }
    return found


def write(document: dict[str, Any], path: Path) -> None:
    """Writes the result and, beside it, the tables, which are printed too."""
    document["figures"] = figures(document)
    report.save(document, markdown(document), path)


def markdown(document: dict[str, Any]) -> str:
    """The whole result in words and tables."""
    from benchmarks.cri_pods import OPERATIONS

    settings = document["settings"]
    names = settings["engines"]
    lines = report.opening(document, "CRI: isula beside containerd", _EQUAL)
    lines += ["", "Calls:", ""]
    lines += [f"- {name}: {remark}" for name, remark in OPERATIONS.items() if remark]
    lines += _tables(document, names)
    if document["memory"]:
        lines += report.memory_table(document["memory"], names)
    lines += _processes(document["processes"], names)
    if document["restless"]:
        lines += ["", f"{document['restless']} times the machine did not come to rest in time."]
    return "\n".join(lines) + "\n"


def _tables(document: dict[str, Any], names: list[str]) -> list[str]:
    settings, found = document["settings"], document["figures"]
    repeats = settings["repeats"]
    lines: list[str] = []

    def add(title: str, mode: str, key: str) -> None:
        if mode in found:
            lines.extend(["", f"## {title}", "", *report.header("call", names, ratios=True)])
            for operation, table in found[mode].items():
                values = [table.get(name, {}).get(key) for name in names]
                lines.append(report.row(operation, names, values, ratios=True))

    serial = f"{settings['serial']} pods one after another, {repeats} repeats"
    add(f"{serial}: ms, median", "serial", "median_ms")
    add(f"{serial}: ms, 95th percentile", "serial", "p95_ms")
    add(f"{serial}: CPU time per call, ms", "serial", "cpu_mean_ms")
    parallel = f"{settings['parallel']} pods at once"
    add(f"{parallel}: ms for the whole batch, median of {repeats}", "parallel", "elapsed_median_ms")
    add(f"{parallel}: CPU time per pod, ms", "parallel", "cpu_mean_ms")
    add(f"Lists with {settings['parallel']} pods: ms, median", "lists", "median_ms")
    return lines


def _processes(found: dict[str, dict[str, list[str]]], names: list[str]) -> list[str]:
    """How many processes each call starts, and which."""
    if not found:
        return []
    operations = list(next(iter(found.values())))
    lines = ["", "## Processes started per call", "", *report.header("call", names, ratios=False)]
    for operation in operations:
        counts = [
            str(len(found[name][operation])) if operation in found.get(name, {}) else "void"
            for name in names
        ]
        lines.append(f"| {' | '.join([operation, *counts])} |")
    lines += [""]
    for name, calls in found.items():
        said = (f"{call}: {_counted(started)}" for call, started in calls.items() if started)
        lines.append(f"- {name}: " + "; ".join(said))
    return lines


def _counted(names: Iterable[str]) -> str:
    known = sorted(names)
    each = {name: known.count(name) for name in known}
    return ", ".join(name if count == 1 else f"{count} {name}" for name, count in each.items())
