"""``isula pull``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

from isula_cli.pulling import pull

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = (
    ("platform", "", "str", "OS/ARCH", "platform of the image, such as linux/arm64"),
    ("quiet", "q", "bool", "", "print only the name under which the image is stored"),
)
ARGUMENTS = (("name", "1", "NAME[:TAG|@DIGEST]"),)
MISCOUNT = ('"pull" requires 1 argument.', 1)
EXAMPLES = ("isula pull docker.io/library/busybox:latest",)


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Pull one image."""
    quiet = bool(options.get("quiet"))
    result = pull(ctx, args[0], options.get("platform", ""), quiet=quiet, bars_on=1)
    if quiet:
        ctx.out(f"{result['ref']}\n")
    return 0
