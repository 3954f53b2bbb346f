"""``isula logout``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = ()
ARGUMENTS = (("server", "1", "SERVER"),)
MISCOUNT = ('"logout" requires 1 argument.', 1)
EXAMPLES = ("isula logout registry.example.com",)


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Have the daemon forget the credentials of a registry; there need be none."""
    ctx.client.logout(args[0])
    ctx.err("Logout Succeeded\n")
    return 0
