"""``isula system check``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

import posix

from isula_cli.context import shown, write_error
from isula_cli.parser import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = (
    ("format", "", "str", "FORMAT", "json"),
    ("quick", "", "bool", "", "do not compare the content of layers"),
    ("repair", "", "bool", "", "fetch bad layers again, write records again, remove strays"),
)
ARGUMENTS = ()
MISCOUNT = ('"system check" requires 0 arguments.', 1)
EXAMPLES = ("isula system check", "isula system check --repair")


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Print every problem: 0 when none is left, else 1."""
    if options.get("format", "json") != "json":
        raise UsageError("--format: json is the only one", 1)

    def show(item: dict[str, Any]) -> None:
        write_error(f"\r{item['current']} of {item['total']} layers checked")

    live = posix.isatty(2) and "format" not in options
    result = ctx.client.check(
        repair=bool(options.get("repair")),
        quick=bool(options.get("quick")),
        progress=show if live else None,
    )
    if live:
        write_error("\r\x1b[K")
    if "format" in options:
        import json

        ctx.out(json.dumps(result, indent=4) + "\n")
    else:
        ctx.out(shown(_report(result)))
    return int(any(not problem["repaired"] for problem in result["problems"]))


def _report(result: dict[str, Any]) -> str:
    lines = []
    for problem in result["problems"]:
        what = f"{problem['kind']} {problem['ref']}".rstrip()
        if problem["names"]:
            what += f" ({', '.join(problem['names'])})"
        repaired = f" [{problem['repaired']}]" if problem["repaired"] else ""
        lines.append(f"{what}: {problem['problem']}{repaired}")
    if result["unverified"]:
        lines.append(f"{len(result['unverified'])} layers have no recipe: content not compared")
    if result["quarantined"]:
        text = "things are in quarantine; isula system prune removes them"
        lines.append(f"{len(result['quarantined'])} {text}")
    left = sum(not problem["repaired"] for problem in result["problems"])
    counts = ", ".join(f"{result[name]} {name}" for name in ("images", "layers", "containers"))
    lines.append(f"Checked {counts}: {left or 'no'} problem{'' if left == 1 else 's'}")
    return "\n".join(lines) + "\n"
