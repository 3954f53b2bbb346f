"""Archives that the daemon reads from a path, or the client sends from standard input."""

from __future__ import annotations

__all__ = ["absolute", "upload"]

import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context
    from isula_cli.progress import Progress
    from isula_edge.client import Stream


def absolute(path: str) -> str:
    """``path`` as the daemon, whose working directory is another one, can open it."""
    return path if path[:1] == "/" else f"{posix.getcwd()}/{path}"


def upload(
    ctx: Context, method: str, params: dict[str, Any], *, quiet: bool = False
) -> dict[str, Any]:
    """Result of ``method``; a ``path`` of ``-`` sends standard input.

    Progress goes to standard error unless ``quiet``.
    """
    stream = ctx.client.stream(method, params)
    if quiet:
        return _send(stream) if params["path"] == "-" else stream.wait()
    from isula_cli.progress import follow, show

    with show(2) as shown:
        return _send(stream, shown) if params["path"] == "-" else follow(stream, shown)


def _send(stream: Stream, shown: Progress | None = None) -> dict[str, Any]:
    from isula_cli import relay

    return relay.pump(stream, shown)
