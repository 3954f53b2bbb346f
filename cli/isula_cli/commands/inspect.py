"""``isula inspect``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

import json

from isula_cli.inspecting import render
from isula_cli.targets import for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = (
    ("format", "f", "str", "TEMPLATE", "print fields: {{.A.B}} or {{json .A.B}}"),
    ("platform", "", "str", "OS/ARCH", "of a name's images the one for this platform"),
    ("time", "t", "uint", "SECONDS", "time to wait for a container that is busy (120)"),
)
ARGUMENTS = (("object", "+", "CONTAINER|IMAGE..."),)
MISCOUNT = ('"inspect" requires a minimum of 1 argument.', 1)
EXAMPLES = ("isula inspect web", "isula inspect -f '{{.State.Pid}}' web")


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Print what is found; the exit status tells whether all was."""
    template = options.get("format")
    found: list[dict[str, Any]] = []
    seconds, platform = options.get("time", 120), options.get("platform", "")

    def add(name: str) -> None:
        answer = ctx.client.inspect(name, timeout_s=seconds, platform=platform)
        found.append(answer["object"])

    status = for_each(ctx, args, add)
    if template is None:
        if found:
            ctx.out(json.dumps(found, indent=4, ensure_ascii=False) + "\n")
        return status
    for item in found:
        try:
            ctx.out(render(template, item))
        except KeyError as error:
            ctx.err(f"Inspect error: {error.args[0]}\n")
            status = 1
    return status
