"""``isula load``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

import posix

from isula_cli.parser import UsageError
from isula_cli.pulling import Progress
from isula_cli.uploads import absolute, upload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = (
    ("input", "i", "str", "FILE", "archive to load, - for standard input"),
    ("quiet", "q", "bool", "", "do not show progress"),
    ("tag", "", "str", "NAME", "name for the one image of the archive"),
    ("type", "t", "str", "TYPE", "type of the archive (docker)"),
)
ARGUMENTS = ()
MISCOUNT = ('"load" requires 0 arguments.', 1)
EXAMPLES = ("isula load -i images.tar",)


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Load the images and print their names."""
    path = options.get("input")
    if not path:
        raise UsageError("missing image input, use -i,--input option", 1)
    params = {"path": "-" if path == "-" else absolute(path)}
    params |= {name: options[name] for name in ("tag", "type") if options.get(name)}
    bars = Progress(2) if posix.isatty(2) and not options.get("quiet") else None
    result = upload(ctx, "image.load", params, bars.item if bars else None)
    if bars:
        bars.draw()
    ctx.out("".join(f"Loaded image: {name}\n" for name in result["images"]))
    return 0
