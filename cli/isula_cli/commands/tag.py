"""``isula tag``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = ()
ARGUMENTS = (("source", "1", "SOURCE"), ("target", "1", "TARGET[:TAG]"))
MISCOUNT = ('"tag" requires 2 arguments.', 1)
EXAMPLES = ("isula tag busybox:latest tools:1",)


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Give an image another name."""
    ctx.client.tag(args[0], args[1])
    return 0
