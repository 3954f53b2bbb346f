"""``isula rmi``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

from isula_cli.targets import for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = (("force", "f", "bool", "", "take the names of an image that containers use"),)
ARGUMENTS = (("image", "+", "IMAGE..."),)
MISCOUNT = ('"rmi" requires at least 1 argument.', 1)
EXAMPLES = ("isula rmi busybox:latest",)


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Remove each image, or its name."""
    force = bool(options.get("force"))
    remove = ctx.client.remove_image
    return for_each(ctx, args, lambda name: remove(name, force=force), echo='Image "%s" removed\n')
