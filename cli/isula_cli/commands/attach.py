"""``isula attach``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

from isula_cli import attached

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = (
    ("detach-keys", "", "str", "KEYS", "keys that leave the container (ctrl-a,q)"),
    ("no-stdin", "", "bool", "", "do not send standard input"),
    ("sig-proxy", "", "bool", "", "pass signals of the client on to the process"),
)
ARGUMENTS = (("container", "1", "CONTAINER"),)
MISCOUNT = ('"attach" requires exactly 1 argument.', 1)
EXAMPLES = ("isula attach web",)


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Join a container; the exit code is the container's when it ends meanwhile."""
    return attached.join(ctx, args[0], options)
