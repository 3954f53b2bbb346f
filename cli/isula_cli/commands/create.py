"""``isula create``."""

from __future__ import annotations

__all__ = ["ALIASES", "ARGUMENTS", "EXAMPLES", "INTERSPERSED", "MISCOUNT", "OPTIONS", "run"]

from isula_cli import creation
from isula_cli.creation_options import ALIASES
from isula_cli.creation_options import OPTIONS as CREATION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = CREATION
ARGUMENTS = (("image", "1", "IMAGE|none"), ("command", "*", "[COMMAND] [ARG]..."))
MISCOUNT = ('"create" requires at least 1 argument.', 125)
EXAMPLES = ("isula create --name web -m 64m busybox httpd -f",)
INTERSPERSED = False


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Create a container and print its id."""
    creation.check_cidfile(options)
    params = creation.request(options, args)
    call = ctx.client.call
    made = creation.with_image(ctx, options, args[0], lambda: call("container.create", params))
    creation.made(ctx, options, made)
    ctx.out(f"{made['id']}\n")
    return 0
