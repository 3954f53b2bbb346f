"""``isula rmi``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

from isula_cli.targets import for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = (
    ("force", "f", "bool", "", "take the names of an image that containers use"),
    ("platform", "", "str", "OS/ARCH", "of a name's images only the one for this platform"),
)
ARGUMENTS = (("image", "+", "IMAGE..."),)
MISCOUNT = ('"rmi" requires at least 1 argument.', 1)
EXAMPLES = ("isula rmi busybox:latest", "isula rmi --platform linux/arm64 busybox")


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Remove each image, or its name."""
    force, platform = bool(options.get("force")), options.get("platform", "")

    def remove(name: str) -> None:
        ctx.client.remove_image(name, force=force, platform=platform)

    return for_each(ctx, args, remove, echo='Image "%s" removed\n')
