"""``isula wait``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

from isula_cli.targets import for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = ()
ARGUMENTS = (("container", "+", "CONTAINER..."),)
MISCOUNT = ('"wait" requires at least 1 argument.', 1)
EXAMPLES = ("isula wait job",)


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Print the exit code of each container once it has ended."""
    return for_each(ctx, args, lambda name: ctx.out(f"{ctx.client.wait(name)}\n"))
