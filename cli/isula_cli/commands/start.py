"""``isula start``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

from isula_cli.parser import UsageError
from isula_cli.targets import for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = (
    ("attach", "a", "bool", "", "show the output and exit with the container's exit code"),
    ("detach-keys", "", "str", "KEYS", "keys that leave the container (ctrl-a,q)"),
    ("interactive", "i", "bool", "", "with -a: send standard input"),
    ("sig-proxy", "", "bool", "", "pass signals of the client on to the process"),
)
ARGUMENTS = (("container", "+", "CONTAINER..."),)
MISCOUNT = ('"start" requires at least 1 argument.', 1)
EXAMPLES = ("isula start web", "isula start -a job")


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Start each container, or one attached."""
    if not options.get("attach"):
        return for_each(ctx, args, ctx.client.start)
    if len(args) != 1:
        raise UsageError("You cannot start and attach multiple containers at once.", 1)
    from isula_cli import attached
    from isula_edge.errors import EXIT_ENGINE, EngineError

    try:
        return attached.start(ctx, args[0], options)
    except EngineError as error:
        ctx.engine_exit = EXIT_ENGINE
        return ctx.report(error)
