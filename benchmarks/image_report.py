"""The result of the pulls as JSON and as tables."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from benchmarks import report
from benchmarks.image_sets import SETS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["figures", "markdown", "write"]

_KEYS = ("wall_s", "synced_s", "cpu_s", "pss_kib", "peak_kib", "written_bytes", "peak_used_bytes")
_EQUAL = """\
- Every engine pulls from the same registry over the loopback, into a store without images, on an
  ext4 of its own; the registry's files are in the page cache. Engines take turns, in random order.
- *Until synced* is the time until everything is on the device, which the other time says nothing
  about: this engine syncs each layer before it counts as there, others do not.
- Memory is what the engine uses beyond its daemons at rest. Clients count where there is no
  daemon. Proportional sizes are sampled every 50 ms; *at most* sums up the high-water marks of
  all its processes as if they came at once.
- *Unpacked* is what the same layers occupy when tar unpacks them on such a file system; `tar` is
  also what that costs: it is the least there is to do.
"""


def figures(document: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Medians by image and engine; engines that failed have none."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for image in document["settings"]["images"]:
        for engine in document["settings"]["engines"]:
            pulls = [
                pull
                for pull in document["pulls"]
                if (pull["image"], pull["engine"]) == (image, engine)
            ]
            if pulls:
                found.setdefault(image, {})[engine] = {
                    key: statistics.median(pull[key] for pull in pulls) for key in _KEYS
                }
    return found


def write(document: dict[str, Any], path: Path) -> None:
    """Writes the result and, beside it, the tables, which are printed too."""
    document["figures"] = figures(document)
    report.save(document, markdown(document), path)


def markdown(document: dict[str, Any]) -> str:
    """The whole result in words and tables."""
    lines = report.opening(document, "Images: isula beside Docker and Podman", _EQUAL)
    lines += ["", "Images:", ""]
    for item in SETS:
        if item.name in document["unpacked"]:
            packed = document["compressed_bytes"][item.name] / 1e6
            unpacked = document["unpacked"][item.name]["used_bytes"] / 1e6
            lines.append(
                f"- {item.name}: {item.remark}; {packed:.1f} MB to fetch, "
                f"{unpacked:.1f} MB unpacked"
            )
    lines += _tables(document)
    if document["cuts"]:
        lines += _cuts(document)
    return "\n".join(lines) + "\n"


def _tables(document: dict[str, Any]) -> list[str]:
    table = document.get("figures") or figures(document)
    names = [*document["settings"]["engines"], "tar"]
    lines: list[str] = []

    def add(title: str, value: Callable[[str, dict[str, float]], float], *, tar: bool) -> None:
        columns = names if tar else names[:-1]
        lines.extend(["", f"## {title}", "", *report.header("image", columns, True)])
        for image, found in table.items():
            known = {**found, "tar": document["unpacked"][image]}
            values = [value(image, known[name]) if name in known else None for name in columns]
            lines.append(report.row(image, columns, values, True))

    def unpacked(image: str) -> float:
        return float(document["unpacked"][image]["used_bytes"])

    repeats = document["settings"]["repeats"]
    add(f"Time of a pull, ms, median of {repeats}", lambda _, f: f["wall_s"] * 1000, tar=True)
    add("Time until synced, ms, median", lambda _, f: f["synced_s"] * 1000, tar=True)
    add("CPU time, ms, median", lambda _, f: f["cpu_s"] * 1000, tar=True)
    add("Memory beyond idle, MiB, proportional", lambda _, f: f["pss_kib"] / 1024, tar=False)
    add("Memory beyond idle, MiB, at most", lambda _, f: f["peak_kib"] / 1024, tar=False)
    add(
        "Written to the device, % of unpacked",
        lambda image, f: f["written_bytes"] * 100 / unpacked(image),
        tar=True,
    )
    add(
        "Most of the disk in use, % of unpacked",
        lambda image, f: f["peak_used_bytes"] * 100 / unpacked(image),
        tar=True,
    )
    return lines


def _cuts(document: dict[str, Any]) -> list[str]:
    """Bytes over a link that is cut, as a part of what there is to fetch."""
    image = document["cut_image"]
    places = ", ".join(f"{part:.0%}" for part in document["settings"]["cuts"])
    lines = [
        *("", f"## The image `{image}`, each layer's connection cut at {places}", ""),
        "| engine | bytes sent / bytes of the layers | time, s |",
        "| --- | ---: | ---: |",
    ]
    for name, found in document["cuts"].items():
        if "failure" in found:
            lines.append(f"| {name} | gives up | |")
        else:
            share = found["sent_bytes"] / document["compressed_bytes"][image]
            lines.append(f"| {name} | {share:.3f} | {found['wall_s']:.1f} |")
    given_up = [name for name in document["cuts"] if "failure" in document["cuts"][name]]
    if given_up:
        lines.append("")
    return lines + [f"- {name}: {document['cuts'][name]['failure']}" for name in given_up]
