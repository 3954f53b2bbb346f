"""``isula stop``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

from isula_cli.targets import audit, for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = (
    ("force", "f", "bool", "", "kill at once"),
    ("time", "t", "int", "SECONDS", "time until the container is killed (10), -1 for never"),
)
ARGUMENTS = (("container", "+", "CONTAINER..."),)
MISCOUNT = ('"stop" requires at least 1 argument.', 1)
EXAMPLES = ("isula stop web", "isula stop -t 30 web db")


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Stop each container and print its name."""
    force = bool(options.get("force"))
    seconds = options.get("time")
    if seconds is not None:
        seconds = max(seconds, -1)
    audit("stop", args)
    stop = ctx.client.stop
    return for_each(ctx, args, lambda name: stop(name, timeout_s=seconds, force=force), echo="%s\n")
