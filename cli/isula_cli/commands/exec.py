"""``isula exec``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "ENGINE_EXIT", "EXAMPLES", "INTERSPERSED", "MISCOUNT", "OPTIONS", "run"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = (
    ("detach", "d", "bool", "", "return once the command runs"),
    ("detach-keys", "", "str", "KEYS", "keys that leave the command (ctrl-a,q)"),
    ("env", "e", "list", "KEY[=VALUE]", "set a variable; without a value, the client's own"),
    ("env-file", "", "list", "FILE", "read variables from a file of KEY=VALUE lines"),
    ("interactive", "i", "bool", "", "send standard input"),
    ("sig-proxy", "", "bool", "", "pass signals of the client on to the command"),
    ("tty", "t", "bool", "", "give the command a terminal"),
    ("user", "u", "str", "USER[:GROUP]", "user to run as, by names or numbers"),
    ("workdir", "w", "str", "PATH", "working directory"),
)
ARGUMENTS = (
    ("container", "1", "CONTAINER"),
    ("command", "1", "COMMAND"),
    ("arguments", "*", "[ARG]..."),
)
MISCOUNT = ('"exec" requires at least 2 arguments.', 125)
EXAMPLES = ("isula exec web cat /etc/hosts", "isula exec -it web sh")
INTERSPERSED = False
ENGINE_EXIT = 125


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Run the command; the exit code is its own unless it is detached."""
    detach = bool(options.get("detach"))
    tty = bool(options.get("tty"))
    stdin = bool(options.get("interactive")) and not detach
    params: dict[str, Any] = {"ref": args[0], "argv": args[1:], "env": [], "tty": tty}
    params |= {"stdin": stdin, "detach": detach}
    if options.get("env") or options.get("env-file"):
        from isula_cli import keyvalues

        files = options.get("env-file", [])
        params["env"] = keyvalues.collect("env", files, options.get("env", []))
    for name in ("user", "workdir"):
        if options.get(name):
            params[name] = options[name]
    if detach:
        ctx.client.call("container.exec", params)
        return 0
    from isula_cli import relay

    params |= relay.parameters(stdin=stdin, tty=tty)
    keys = options.get("detach-keys", "")
    proxy = bool(options.get("sig-proxy"))
    stream = ctx.client.stream("container.exec", params)
    return relay.attach(stream, stdin=stdin, tty=tty, keys=keys, proxy=proxy)
