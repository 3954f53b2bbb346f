"""``isula events``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

from isula_cli.context import shown
from isula_cli.times import parse, stamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = (
    ("name", "n", "str", "CONTAINER", "only events of one container"),
    ("since", "S", "str", "TIME", "begin with events that happened since TIME"),
    ("until", "U", "str", "TIME", "end at TIME"),
)
ARGUMENTS = ()
MISCOUNT = ('"events" requires 0 arguments.', 1)
EXAMPLES = ("isula events -n web", "isula events --since 2024-01-02T15:04:05")


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Print a line per event."""
    since, until = (
        parse(name, options[name]) if options.get(name) else None for name in ("since", "until")
    )
    for event in ctx.client.events(since_ns=since, until_ns=until, name=options.get("name", "")):
        line = f"{stamp(event['time_ns'])} {event['kind']} {event['action']} {event['id']}"
        attributes = ", ".join(f"{k}={v}" for k, v in (event.get("attributes") or {}).items())
        line += f" ({attributes})" if attributes else ""
        ctx.out(shown(line, "") + "\n")
    return 0
