"""``isula unpause``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

from isula_cli.targets import for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = ()
ARGUMENTS = (("container", "+", "CONTAINER..."),)
MISCOUNT = ('"unpause" requires at least 1 argument.', 1)
EXAMPLES = ("isula unpause web",)


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Thaw each container and print its name."""
    return for_each(ctx, args, ctx.client.unpause, echo="%s\n")
