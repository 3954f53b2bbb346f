"""``isula top``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "INTERSPERSED", "MISCOUNT", "OPTIONS", "run"]

from isula_cli.context import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = ()
ARGUMENTS = (("container", "1", "CONTAINER"), ("arguments", "*", "[PS-OPTION]..."))
MISCOUNT = ('"top" requires at least 1 argument.', 1)
EXAMPLES = ("isula top web", "isula top web -ef")
INTERSPERSED = False


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Print what ps says of a container's processes."""
    text = ctx.client.top(args[0], args[1:])
    text = shown(text, "\n\t")
    ctx.out(text if text.endswith("\n") else text + "\n")
    return 0
