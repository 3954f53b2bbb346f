"""``isula logs``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

from isula_cli.context import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = (
    ("follow", "f", "bool", "", "go on until the container stops"),
    ("since", "", "str", "TIME", "only what was written at or after TIME"),
    ("tail", "n", "str", "NUMBER", "only the last lines"),
    ("timestamps", "t", "bool", "", "put the time in front of each line"),
    ("until", "", "str", "TIME", "only what was written before TIME"),
)
ARGUMENTS = (("container", "1", "CONTAINER"),)
MISCOUNT = ('"logs" requires exactly 1 argument.', 1)
EXAMPLES = ("isula logs web", "isula logs -f --tail 10 web")


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Print the log, standard error to standard error."""
    points: dict[str, int] = {}
    for name in ("since", "until"):
        if options.get(name):
            from isula_cli.times import parse

            points[name + "_ns"] = parse(name, options[name])
    tail = options.get("tail", "")
    stream = ctx.client.logs(
        args[0],
        follow=bool(options.get("follow")),
        tail=int(tail) if tail.isascii() and tail.isdigit() else -1,
        timestamps=bool(options.get("timestamps")),
        **points,
    )
    for kind, value in stream:
        write_all(2 if kind == "E" else 1, value)
    return 0
