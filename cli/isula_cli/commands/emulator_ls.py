"""``isula emulator ls``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

from isula_cli.human import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = (
    ("format", "", "str", "FORMAT", "json: an object a line"),
    ("quiet", "q", "bool", "", "print only the architectures whose images run here"),
)
ARGUMENTS = ()
MISCOUNT = ('"emulator ls" requires 0 arguments.', 1)
EXAMPLES = ("isula emulator ls", "isula emulator ls -q")
_RUN = ("native", "registered")


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Print a line for each architecture."""
    form = options.get("format", "")
    if form not in ("", "json"):
        from isula_cli.parser import UsageError

        raise UsageError(f'invalid format "{form}": it may be json', 1)
    rows = ctx.client.emulators()
    if options.get("quiet"):
        rows = [row for row in rows if row["state"] in _RUN]
        ctx.out("".join(f"{row['arch']}\n" for row in rows))
    elif form:
        import json

        ctx.out("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    else:
        ctx.out(table([["ARCH", "STATE", "EMULATOR", "FLAGS", "PATH"], *map(_cells, rows)]))
    return 0


def _cells(row: dict[str, Any]) -> list[str]:
    state = f"{row['state']} ({row['reason']})" if row["reason"] else str(row["state"])
    if row["state"] == "native":
        return [row["arch"], state, "-", "-", "-"]
    return [row["arch"], state, row["name"], row["flags"] or "-", row["path"] or "-"]
