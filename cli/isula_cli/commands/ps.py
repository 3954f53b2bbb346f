"""``isula ps``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

from isula_cli import listing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = (
    ("all", "a", "bool", "", "show stopped containers too"),
    ("filter", "f", "list", "KEY=VALUE", "id=, name=, label=, status="),
    ("format", "", "str", "TEMPLATE", "print fields, such as 'table {{.ID}}\\t{{.Names}}'"),
    ("last", "n", "int", "NUMBER", "the newest containers, in any state"),
    ("latest", "l", "bool", "", "the newest container, in any state"),
    ("no-trunc", "", "bool", "", "show whole ids and commands"),
    ("quiet", "q", "bool", "", "print only ids"),
)
ARGUMENTS = ()
MISCOUNT = ('"ps" requires 0 arguments.', 1)
EXAMPLES = ("isula ps -a", "isula ps --filter status=exited -q")


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Print a line per container."""
    template = options.get("format")
    columns = listing.parse(template) if template is not None else None
    filters: dict[str, list[str]] = {}
    if options.get("filter"):
        from isula_cli.filters import parse

        filters = parse(options["filter"])
    containers = ctx.client.containers(
        all=bool(options.get("all")) or "status" in filters,
        latest=bool(options.get("latest")),
        last=max(options.get("last", 0), 0),
        filters=filters,
    )
    if options.get("quiet"):
        ctx.out("".join(f"{item['id']}\n" for item in containers))
        return 0
    ctx.out(listing.render(containers, columns, full=bool(options.get("no-trunc"))))
    return 0
