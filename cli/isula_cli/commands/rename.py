"""``isula rename``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = ()
ARGUMENTS = (("container", "1", "OLD"), ("name", "1", "NEW"))
MISCOUNT = ('"rename" requires 2 arguments.', 1)
EXAMPLES = ("isula rename web web-old",)


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Rename a container."""
    ctx.client.rename(args[0], args[1])
    return 0
