"""``isula search``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

from isula_cli import listing
from isula_cli.parser import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = (
    ("filter", "f", "list", "KEY=VALUE", "stars=, is-official=, is-automated="),
    ("format", "", "str", "TEMPLATE", "print fields, such as '{{.Name}} {{.StarCount}}'"),
    ("limit", "", "uint", "NUMBER", "results to ask for, 1 to 100 (25)"),
    ("no-trunc", "", "bool", "", "show whole descriptions"),
)
ARGUMENTS = (("term", "1", "[HOST/]TERM"),)
MISCOUNT = ("Search requires 1 argument.", 125)
EXAMPLES = ("isula search --filter is-official=true busybox", "isula search docker.io/nginx")
_TITLES = {
    "Name": "NAME",
    "Description": "DESCRIPTION",
    "StarCount": "STARS",
    "IsOfficial": "OFFICIAL",
    "IsAutomated": "AUTOMATED",
}
_DEFAULT = "table " + "\\t".join(f"{{{{.{name}}}}}" for name in _TITLES)
_LONGEST = 45
_HIGHEST = 100


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Print a line per result."""
    template = options.get("format")
    parts = listing.parse(_DEFAULT if template in (None, "table") else template, _TITLES)
    limit = options.get("limit", 25)
    if not 1 <= limit <= _HIGHEST:
        raise UsageError(f"Limit {limit} is outside the range of [1, {_HIGHEST}]", 1)
    filters: dict[str, list[str]] = {}
    if options.get("filter"):
        from isula_cli.filters import parse

        filters = parse(options["filter"])
    found = ctx.client.search(args[0], limit=limit, filters=filters)
    rows = [_row(item, full=bool(options.get("no-trunc"))) for item in found]
    ctx.out(listing.fill(parts, rows, _TITLES))
    return 0


def _row(item: dict[str, Any], *, full: bool) -> dict[str, str]:
    text = str(item["description"])
    if not full and len(text) > _LONGEST:
        text = text[: _LONGEST - 3] + "..."
    return {
        "Name": str(item["name"]),
        "Description": text,
        "StarCount": str(item["stars"]),
        "IsOfficial": "[OK]" if item["official"] else "",
        "IsAutomated": "[OK]" if item["automated"] else "",
    }
