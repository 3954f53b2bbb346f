"""``isula run``."""

from __future__ import annotations

__all__ = [
    "ALIASES",
    "ARGUMENTS",
    "ENGINE_EXIT",
    "EXAMPLES",
    "INTERSPERSED",
    "MISCOUNT",
    "OPTIONS",
    "run",
]

from isula_cli import creation
from isula_cli.creation_options import ALIASES
from isula_cli.creation_options import OPTIONS as CREATION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context
    from isula_edge.client import Stream

OPTIONS = (
    *CREATION,
    ("detach", "d", "bool", "", "print the id and leave the container running"),
    ("detach-keys", "", "str", "KEYS", "keys that leave the container (ctrl-a,q)"),
    ("sig-proxy", "", "bool", "", "pass signals of the client on to the process"),
)
ARGUMENTS = (("image", "1", "IMAGE|none"), ("command", "*", "[COMMAND] [ARG]..."))
MISCOUNT = ('"run" requires at least 1 argument.', 125)
EXAMPLES = ("isula run -it --rm busybox sh", "isula run -d --name web busybox httpd -f")
INTERSPERSED = False
ENGINE_EXIT = 125


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Create and start; attached, the exit code is the container's."""
    creation.check_cidfile(options)
    detach = bool(options.get("detach"))
    tty = bool(options.get("tty"))
    stdin = bool(options.get("interactive")) and not detach
    params = creation.request(options, args)
    params["detach"] = detach
    params["stdin"] = stdin
    if not detach:
        from isula_cli import relay

        params.update(relay.parameters(stdin=stdin, tty=tty))
    made = creation.with_image(ctx, options, args[0], lambda: _begin(ctx, params))
    creation.made(ctx, options, made)
    stream: Stream = made["stream"]
    if detach:
        stream.wait()
        ctx.out(f"{made['id']}\n")
        return 0
    keys = options.get("detach-keys", "")
    proxy = bool(options.get("sig-proxy", True))
    return relay.attach(stream, stdin=stdin, tty=tty, keys=keys, proxy=proxy)


def _begin(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    stream = ctx.client.stream("container.run", params)
    for kind, value in stream:
        if kind == "v":
            return {**value, "stream": stream}
    return {"id": "", **(stream.result or {}), "stream": stream}
