"""``isula system prune``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

from isula_cli.filters import parse
from isula_cli.human import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = (
    ("all", "a", "bool", "", "remove all images that no container uses"),
    ("filter", "", "list", "KEY=VALUE", "until=, label=, label!= of containers and images"),
    ("force", "f", "bool", "", "do not ask"),
)
ARGUMENTS = ()
MISCOUNT = ('"system prune" requires 0 arguments.', 1)
EXAMPLES = ("isula system prune -f", "isula system prune -a --filter until=24h")


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Remove what nobody uses, and say what it was and how much space that gave."""
    everything = bool(options.get("all"))
    filters = parse(options.get("filter", []))
    if "until" in filters:
        from isula_cli.times import parse as point

        filters["until"] = [str(point("filter until", text)) for text in filters["until"]]
    if not options.get("force"):
        from isula_cli.confirming import confirmed

        if not confirmed(ctx, _warning(everything)):
            return 0
    result = ctx.client.prune(all=everything, filters=filters)
    ctx.out(_report(result))
    return 0


def _warning(everything: bool) -> str:
    images = "all images that no container uses" if everything else "all images without a name"
    return (
        "WARNING! This will remove:\n"
        "  - all stopped containers\n"
        f"  - {images}\n"
        "  - unfinished downloads\n"
        "  - what interrupted work left, and damaged records that were put aside\n"
    )


def _report(result: dict[str, Any]) -> str:
    text = ""
    if result["containers"]:
        text += "Deleted Containers:\n" + "".join(f"{one}\n" for one in result["containers"])
        text += "\n"
    if result["images"]:
        lines = [f"{key}: {value}\n" for item in result["images"] for key, value in item.items()]
        text += "Deleted Images:\n" + "".join(lines) + "\n"
    if result["downloads"]:
        text += f"Deleted Unfinished Downloads: {result['downloads']}\n\n"
    if result["leftovers"]:
        text += f"Deleted Leftovers: {result['leftovers']}\n\n"
    return f"{text}Total reclaimed space: {size(result['reclaimed'])}\n"
