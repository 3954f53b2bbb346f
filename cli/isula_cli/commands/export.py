"""``isula export``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "ENGINE_EXIT", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

import posix

from isula_cli.downloads import download

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = (("output", "o", "str", "FILE", "file to write instead of standard output"),)
ARGUMENTS = (("container", "1", "CONTAINER"),)
MISCOUNT = ("Export requires exactly 1 container name", 125)
EXAMPLES = ("isula export -o rootfs.tar web",)
ENGINE_EXIT = 125


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Write the archive."""
    path = options.get("output") or ""
    if not path and posix.isatty(1):
        ctx.err("Missing output file, use -o,--output option\n")
        return 125
    download(lambda write: ctx.client.export(args[0], write), path)
    return 0
