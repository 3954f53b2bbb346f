"""``isula rm``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

from isula_cli.targets import audit, for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = (
    ("force", "f", "bool", "", "kill a running container first"),
    ("volumes", "v", "bool", "", "remove its anonymous volumes too"),
)
ARGUMENTS = (("container", "+", "CONTAINER..."),)
MISCOUNT = ('"rm" requires at least 1 argument.', 1)
EXAMPLES = ("isula rm web", "isula rm -f web db")


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Remove each container and print its name."""
    force = bool(options.get("force"))
    volumes = bool(options.get("volumes"))
    audit("rm", args)
    remove = ctx.client.remove
    return for_each(ctx, args, lambda name: remove(name, force=force, volumes=volumes), echo="%s\n")
