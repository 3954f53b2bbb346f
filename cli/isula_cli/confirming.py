"""A question before something is removed."""

from __future__ import annotations

__all__ = ["confirmed"]

import posix

from isula_cli.parser import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from isula_cli.context import Context


def confirmed(ctx: Context, warning: str) -> bool:
    """Whether the user at the terminal answers with y; raises UsageError without a terminal."""
    if not posix.isatty(0):
        raise UsageError("standard input is no terminal to ask at: give -f to go on", 1)
    ctx.out(f"{warning}\nAre you sure you want to continue? [y/N] ")
    answer = b""
    while not answer.endswith(b"\n"):
        data = posix.read(0, 1024)
        if not data:
            break
        answer += data
    return answer.strip().lower() in (b"y", b"yes")
