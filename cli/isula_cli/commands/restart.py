"""``isula restart``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

from isula_cli.targets import audit, for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = (("time", "t", "int", "SECONDS", "time until the container is killed (10)"),)
ARGUMENTS = (("container", "+", "CONTAINER..."),)
MISCOUNT = ('"restart" requires at least 1 argument.', 1)
EXAMPLES = ("isula restart web",)


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Restart each container and print its name."""
    seconds = options.get("time")
    if seconds is not None:
        seconds = max(seconds, -1)
    audit("restart", args)
    restart = ctx.client.restart
    return for_each(ctx, args, lambda name: restart(name, timeout_s=seconds), echo="%s\n")
