"""The result as JSON and as a table for readers."""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from typing import TYPE_CHECKING, Any

from benchmarks.operations import OPERATIONS
from benchmarks.statistics import ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from benchmarks.harness import Cell
    from benchmarks.statistics import Summary

__all__ = ["figures", "header", "machine", "markdown", "memory_table", "row", "save", "write"]

_REFERENCES = ("docker", "podman", "containerd")
_OURS = ("isula", "isula-runc")
_EQUAL = """\
- A sample is the wall time of a whole client process, from before it is spawned until it is
  reaped, with its descriptors 0 to 2 on /dev/null. Its start is part of it: see `version`.
- All containers are made with `--net none`, all engines run in one network namespace that has
  nothing but lo. Podman gets `--ulimit nofile=1024:1024 --ulimit nproc=1024:1024`,
  and removes running containers by `rm -f -t 0`, to kill them at once as the others do.
- Engines take turns within each operation, in random order; between two turns the harness waits
  until nothing an engine left to do is still running.
- One command that fails makes all figures of its engine void.
"""


def figures(cells: Sequence[Cell], summary: Summary) -> dict[str, Any]:
    """Figures of one operation on one engine over all repeats."""
    elapsed = [cell.elapsed_s * 1000 for cell in cells if cell.elapsed_s is not None]
    used = [
        cell.daemon_cpu_s * 1000 / len(cell.samples)
        for cell in cells
        if cell.daemon_cpu_s is not None
    ]
    values: dict[str, Any] = {
        key: round(value, 3) for key, value in dataclasses.asdict(summary).items()
    }
    values["elapsed_median_ms"] = round(statistics.median(elapsed), 3) if elapsed else None
    # counted in ticks of 10 ms: the mean over all repeats
    values["daemon_cpu_mean_ms"] = round(statistics.fmean(used), 3) if used else None
    return values


def write(document: dict[str, Any], path: Path) -> None:
    """Writes the result and, beside it, the table, which is printed too."""
    save(document, markdown(document), path)


def save(document: dict[str, Any], text: str, path: Path) -> None:
    """Writes a result as JSON and ``text`` beside it, which is printed too."""
    target = path if path.suffix == ".json" else path.with_name(f"{path.name}.json")
    target.write_text(json.dumps(document, indent=1) + "\n")
    target.with_suffix(".md").write_text(text)
    print(text, end="")


def markdown(document: dict[str, Any]) -> str:
    """The whole result in words and tables."""
    config = document["config"]
    names = list(config["runtime_names"])
    lines = opening(document, "isula beside Docker and Podman", _EQUAL)
    lines += ["", "Operations:", ""]
    lines += [f"- {name}: {remark}" for name, remark in OPERATIONS.items() if remark]
    for mode in document["figures"]:
        lines += _mode_tables(document, mode, names)
    if document["memory"]:
        lines += memory_table(document["memory"], names)
    if document["restless_batches"]:
        count = document["restless_batches"]
        lines += ["", f"Before {count} turns the machine did not come to rest in time."]
    return "\n".join(lines) + "\n"


def opening(document: dict[str, Any], title: str, equal: str) -> list[str]:
    """How every result begins: when, what failed, where, ``equal`` to all, and versions."""
    moment = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(document["began"]))
    lines = [f"# {title}", "", f"{moment}, {document['seconds']} s", ""]
    if document["failures"]:
        lines += ["**This run is void**: " + ", ".join(document["failures"]) + " failed.", ""]
        for name, text in document["failures"].items():
            lines += [f"{name}:", "", *(f"    {line}" for line in text.splitlines()), ""]
    lines += [machine(document["host"]), "", equal]
    for name, found in document["versions"].items():
        lines.append(f"- {name}: " + "; ".join(f"{part} {said}" for part, said in found.items()))
    return lines


def machine(host: dict[str, Any]) -> str:
    """The machine in one line."""
    load = ", ".join(f"{value:.2f}" for value in host["load_average"])
    return (
        f"{host['cores']} cores ({host['cpu']}), {host['memory']}, {host['distribution']}, "
        f"kernel {host['kernel']}, cgroup {host['cgroup']}; load average at the start {load}"
    )


def _mode_tables(document: dict[str, Any], mode: str, names: list[str]) -> list[str]:
    config, table = document["config"], document["figures"][mode]
    count, repeats = config[mode], config["repeats"]
    how = f"{count} one after another" if mode == "serial" else f"{count} at once"
    if config["mixed_cmd"]:
        how += ", operations mixed"
    lines: list[str] = []

    def add(title: str, key: str, *, ratios: bool) -> None:
        found: list[str] = []
        for operation, figure in table.items():
            values = [figure.get(name, {}).get(key) for name in names]
            if any(value is not None for value in values):
                found.append(row(operation, names, values, ratios))
        if found:
            lines.extend(["", f"## {title}", "", *header("operation", names, ratios), *found])

    title = f"{mode.capitalize()}: {how}, {repeats} repeats; ms"
    if mode == "parallel":
        add(f"{title}: the whole batch, median", "elapsed_median_ms", ratios=True)
        add(f"{title}: sum of the samples", "sum_ms", ratios=False)
    add(f"{title}: median", "median_ms", ratios=True)
    add(f"{title}: average as ptcr", "trimmed_mean_ms", ratios=mode == "serial")
    add(f"{title}: 95th percentile", "p95_ms", ratios=False)
    add(f"{title}: CPU time of the client and what it waits for", "cpu_median_ms", ratios=False)
    name = "CPU time of the daemons and what they wait for"
    add(f"{title}: {name}, per command", "daemon_cpu_mean_ms", ratios=False)
    return lines


def _pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Which engine is shown as a multiple of which."""
    known = set(names)
    return [
        (ours, other) for ours in _OURS for other in _REFERENCES if ours in known and other in known
    ]


def header(first: str, names: list[str], ratios: bool) -> list[str]:
    titles = [first, *names]
    if ratios:
        titles += [f"{ours} / {other}" for ours, other in _pairs(names)]
    return [
        "| " + " | ".join(titles) + " |",
        "| --- |" + " ---: |" * (len(titles) - 1),
    ]


def row(title: str, names: list[str], values: list[float | None], ratios: bool) -> str:
    texts = [title, *("void" if value is None else _short(value) for value in values)]
    if ratios:
        known = dict(zip(names, values, strict=True))
        for ours, other in _pairs(names):
            multiple = ratio(known[ours], known[other])
            texts.append("" if multiple is None else f"{multiple:.2f}")
    return "| " + " | ".join(texts) + " |"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def memory_table(memory: dict[str, Any], names: list[str]) -> list[str]:
    """Memory of the daemons and per container, and which processes these are."""
    some = next(iter(memory.values()))
    count = some["containers"]
    parts: list[tuple[str, Callable[[dict[str, Any]], dict[str, float]]]] = [
        ("daemons, idle", lambda found: found["idle_kib"]),
        (f"daemons, {count} containers", lambda found: found["busy_kib"]),
        ("per container", lambda found: found["per_container_kib"]),
    ]
    lines = ["", "## Memory, MiB", "", *header("processes", names, ratios=True)]
    kinds = {"pss": "PSS", "rss": "RSS", "uss": "not shared"}
    for title, part in parts:
        for kind, word in kinds.items():
            values = [part(memory[name])[kind] / 1024 if name in memory else None for name in names]
            lines.append(row(f"{title}: {word}", names, values, ratios=True))
    shared = [name for name in names if name in memory and memory[name]["sharers"]]
    if shared:
        lines += ["", "Others ran the same programs, so PSS is too low: " + ", ".join(shared)]
    lines += ["", "Processes per container:", ""]
    for name, found in memory.items():
        each = found["per_container_processes"].items()
        lines.append(f"- {name}: " + ", ".join(f"{value:g} {part}" for part, value in each))
    return lines
