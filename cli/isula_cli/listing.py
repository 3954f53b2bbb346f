"""What ``ps`` prints: its columns, and the fields of ``--format`` (:mod:`isula_cli.templates`).

A leading ``table`` prints headings and aligns what tabs separate.
"""

from __future__ import annotations

__all__ = ["fill", "parse", "render", "status"]

from isula_cli import templates
from isula_cli.context import shown
from isula_cli.human import ago, duration, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from isula_cli.templates import Part

_TITLES = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "Created": "CREATED",
    "Status": "STATUS",
    "Ports": "PORTS",
    "Names": "NAMES",
    "Pid": "PID",
    "ExitCode": "EXIT CODE",
    "RestartCount": "RESTART COUNT",
    "StartAt": "STARTAT",
    "FinishAt": "FINISHAT",
    "Runtime": "RUNTIME",
    "State": "STATE",
}
_DEFAULT = ("ID", "Image", "Command", "Created", "Status", "Ports", "Names")
_LONGEST_COMMAND = 22


def parse(template: str, titles: Mapping[str, str] = _TITLES) -> list[Part]:
    """Literal text and names of fields (True) of a format; raises UsageError.

    ``titles`` are the fields there are, with their headings.  The first part is
    ``("table", True)`` when headings are wanted.
    """
    headed, parts = templates.split(template, titles)
    return [("table", True), *parts] if headed else parts


def render(containers: list[dict[str, Any]], parts: list[Part] | None, *, full: bool) -> str:
    """The whole output for ``parts``, None meaning the default columns."""
    if parts is None:
        rows = [[_TITLES[name] for name in _DEFAULT]]
        rows += [[_field(item, name, full) for name in _DEFAULT] for item in containers]
        return table(rows)
    used = [name for name, field in parts if field and name != "table"]
    return fill(parts, [{name: _field(item, name, full) for name in used} for item in containers])


def fill(parts: list[Part], rows: list[dict[str, str]], titles: Mapping[str, str] = _TITLES) -> str:
    """Lines of a format for ``rows``, the fields of each by name."""
    headed = parts[:1] == [("table", True)]
    lines = [templates.fill(parts[1:], titles)] if headed else []
    if headed:
        rows = [{name: shown(value, "") for name, value in row.items()} for row in rows]
    lines += [templates.fill(parts[headed:], row) for row in rows]
    if headed:
        return table(row.split("\t") for line in lines for row in line.split("\n"))
    return "".join(line + "\n" for line in lines)


def _field(item: dict[str, Any], name: str, full: bool) -> str:
    if name == "ID":
        return str(item["id"]) if full else str(item["id"])[:12]
    if name == "Command":
        command = str(item["command"])
        if not full and len(command) > _LONGEST_COMMAND:
            command = command[: _LONGEST_COMMAND - 3] + "..."
        return f'"{command}"'
    if name == "Status":
        return status(item)
    if name in ("Created", "StartAt", "FinishAt"):
        keys = {"Created": "created_ns", "StartAt": "started_ns", "FinishAt": "finished_ns"}
        return ago(item[keys[name]])
    keys = {"Names": "name", "ExitCode": "exit_code", "RestartCount": "restart_count"}
    return str(item.get(keys.get(name, name.lower()), ""))


def status(item: dict[str, Any]) -> str:
    """The text of the column STATUS."""
    state = item["state"]
    if state == "inited":
        return "Created"
    if state == "starting":
        return f"Starting {ago(item['created_ns'])}"
    if state in ("running", "paused"):
        note = "Paused" if state == "paused" else item.get("health") or ""
        text = f"Up {duration(item['started_ns'])}"
        return f"{text} ({note})" if note else text
    word = "Restarting" if state == "restarting" else "Exited"
    return f"{word} ({item['exit_code']}) {ago(item['finished_ns'])}"
