"""``isula login``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

import posix

from isula_cli.parser import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = (
    ("username", "u", "str", "NAME", "name of the user"),
    ("password", "p", "str", "PASSWORD", "the password; others can see it in the process list"),
    ("password-stdin", "", "bool", "", "read the password from standard input"),
)
ARGUMENTS = (("server", "1", "SERVER"),)
MISCOUNT = ('"login" requires 1 argument.', 1)
EXAMPLES = (
    "isula login registry.example.com",
    "isula login -u me --password-stdin registry.example.com:5000",
)

_INSECURE = "WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n"
_NO_TERMINAL = "Error: Cannot perform an interactive login from a non TTY device\n"


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Have the daemon check the credentials at the registry and keep them."""
    username, password = options.get("username") or "", options.get("password") or ""
    if options.get("password-stdin"):
        from isula_cli.asking import read_all

        if "password" in options:
            raise UsageError("--password and --password-stdin are mutually exclusive", 1)
        if not username:
            raise UsageError("Must provide --username with --password-stdin", 1)
        password = read_all()
    else:
        if password:
            ctx.out(_INSECURE)
        if not username or not password:
            if not posix.isatty(0):
                ctx.err(_NO_TERMINAL)
                return 1
            from isula_cli.asking import ask

            username = username or ask("Username: ")
            password = password or (ask("Password: ", echo=False) if username else "")
    for text, lack in ((username, "Non-null Username Required"), (password, "Password Required")):
        if not text:
            ctx.err(f"Error: {lack}\n")
            return 1
    ctx.client.login(args[0], _checked("username", username), _checked("password", password))
    ctx.err("Login Succeeded\n")
    return 0


def _checked(what: str, text: str) -> str:
    """The text, which must be one and not just bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"the {what} is not UTF-8", 1) from None
    return text
