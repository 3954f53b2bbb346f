"""``isula pull``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

from isula_cli.pulling import pull

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = (
    ("all-tags", "a", "bool", "", "pull every tag of the name"),
    ("platform", "", "str", "OS/ARCH", "platform of the image, such as linux/arm64"),
    ("quiet", "q", "bool", "", "print only the name under which the image is stored"),
)
ARGUMENTS = (("name", "1", "NAME[:TAG|@DIGEST]"),)
MISCOUNT = ('"pull" requires 1 argument.', 1)
EXAMPLES = (
    "isula pull docker.io/library/busybox:latest",
    "isula pull -a registry.example.com/project/name",
)


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Pull an image, or all of a name; tags that are no images for this machine are told."""
    quiet, all_tags = bool(options.get("quiet")), bool(options.get("all-tags"))
    result = pull(
        ctx, args[0], options.get("platform", ""), quiet=quiet, bars_on=1, all_tags=all_tags
    )
    for item in result.get("skipped") or ():
        ctx.err(f'Image "{item["ref"]}" skipped: {item["reason"]}\n')
    if quiet:
        ctx.out("".join(f"{image['ref']}\n" for image in result.get("images") or [result]))
    return 0
