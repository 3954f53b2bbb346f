"""Archives that the daemon reads from a path, or the client sends from standard input."""

from __future__ import annotations

__all__ = ["absolute", "upload"]

import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from isula_cli.context import Context


def absolute(path: str) -> str:
    """``path`` as the daemon, whose working directory is another one, can open it."""
    return path if path[:1] == "/" else f"{posix.getcwd()}/{path}"


def upload(
    ctx: Context,
    method: str,
    params: dict[str, Any],
    on_item: Callable[[Any], None] | None = None,
) -> dict[str, Any]:
    """Result of ``method``; a ``path`` of ``-`` sends standard input."""
    stream = ctx.client.stream(method, params)
    if params["path"] == "-":
        from isula_cli import relay

        return relay.pump(stream, on_item)
    for kind, value in stream:
        if kind == "v" and on_item is not None:
            on_item(value)
    return stream.result or {}
