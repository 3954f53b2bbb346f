"""``isula kill``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

from isula_cli.targets import audit, for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = (("signal", "s", "str", "SIGNAL", "signal, by name or number (SIGKILL)"),)
ARGUMENTS = (("container", "+", "CONTAINER..."),)
MISCOUNT = ('"kill" requires at least 1 argument.', 1)
EXAMPLES = ("isula kill web", "isula kill -s HUP web")


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Send the signal to each container and print its name."""
    number = options.get("signal", "SIGKILL")
    audit("kill", args)
    return for_each(ctx, args, lambda name: ctx.client.kill(name, number), echo="%s\n")
