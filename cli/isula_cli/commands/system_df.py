"""``isula system df``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

from isula_cli.human import ago, size, table
from isula_cli.parser import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = (
    ("format", "", "str", "FORMAT", "json, or text with {{.Type}}, {{.Size}} and so on"),
    ("verbose", "v", "bool", "", "show every image and container"),
)
ARGUMENTS = ()
MISCOUNT = ('"system df" requires 0 arguments.', 1)
EXAMPLES = ("isula system df", "isula system df -v", "isula system df --format json")
_TITLES = {
    "Type": "TYPE",
    "TotalCount": "TOTAL",
    "Active": "ACTIVE",
    "Size": "SIZE",
    "Reclaimable": "RECLAIMABLE",
}


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Print a line for each kind of thing, and with -v for each image and container."""
    template = options.get("format", "")
    verbose = bool(options.get("verbose"))
    if template and verbose and template != "json":
        raise UsageError("--verbose goes with --format json only", 1)
    usage = ctx.client.disk_usage()
    if template == "json" and verbose:
        import json

        ctx.out(json.dumps(usage, separators=(",", ":")) + "\n")
    elif template:
        ctx.out(_formatted(usage["rows"], template))
    elif verbose:
        ctx.out(_images(usage["images"]) + _containers(usage["containers"]) + _rest(usage["rows"]))
    else:
        rows = [_cells(row) for row in usage["rows"]]
        ctx.out(table([list(_TITLES.values()), *(list(cells.values()) for cells in rows)]))
    return 0


def _cells(row: dict[str, Any]) -> dict[str, str]:
    reclaimable = size(row["reclaimable"])
    if row["size"]:
        reclaimable += f" ({100 * row['reclaimable'] // row['size']}%)"
    return {
        "Type": str(row["type"]),
        "TotalCount": str(row["total"]),
        "Active": str(row["active"]),
        "Size": size(row["size"]),
        "Reclaimable": reclaimable,
    }


def _formatted(rows: list[dict[str, Any]], template: str) -> str:
    if template == "json":
        import json

        lines = [json.dumps({**_cells(row), "Bytes": row["size"]}) for row in rows]
        return "".join(f"{line}\n" for line in lines)
    from isula_cli.templates import fill, split

    headed, parts = split(template, _TITLES)
    lines = [fill(parts, _cells(row)) for row in rows]
    if headed:
        return table(line.split("\t") for line in (fill(parts, _TITLES), *lines))
    return "".join(f"{line}\n" for line in lines)


def _images(images: list[dict[str, Any]]) -> str:
    heads = ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE"]
    rows = [[*heads, "CONTAINERS"]]
    for image in images:
        sizes = [size(image[key]) for key in ("size", "shared", "unique")]
        tail = [image["id"][:12], ago(image["created_ns"]), *sizes, str(image["containers"])]
        rows += [[*name, *tail] for name in image["names"] or [("<none>", "<none>")]]
    return f"Images space usage:\n\n{table(rows)}\n"


def _containers(containers: list[dict[str, Any]]) -> str:
    from isula_cli.listing import status

    rows = [["CONTAINER ID", "IMAGE", "COMMAND", "SIZE", "CREATED", "STATUS", "NAMES"]]
    for item in containers:
        command = str(item["command"])
        if len(command) > 22:
            command = f"{command[:19]}..."
        about = [item["id"][:12], item["image"], f'"{command}"', size(item["size"])]
        rows.append([*about, ago(item["created_ns"]), status(item), item["name"]])
    return f"Containers space usage:\n\n{table(rows)}\n"


def _rest(rows: list[dict[str, Any]]) -> str:
    lines = [
        f"{row['type']} space usage: {size(row['size'])}"
        for row in rows
        if row["type"] not in ("Images", "Containers")
    ]
    return "\n".join(lines) + "\n"
