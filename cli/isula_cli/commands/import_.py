"""``isula import``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

from isula_cli.uploads import absolute, upload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = ()
ARGUMENTS = (("file", "1", "FILE|-"), ("name", "1", "NAME[:TAG]"))
MISCOUNT = ('"import" requires exactly 2 arguments.', 1)
EXAMPLES = ("isula import rootfs.tar.xz base:1",)


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Import the tarball and print the image's id."""
    path = "-" if args[0] == "-" else absolute(args[0])
    result = upload(ctx, "image.import", {"path": path, "ref": args[1]})
    ctx.out(f"{result['id']}\n")
    return 0
