"""Pulling an image: the request, and what is said about it."""

from __future__ import annotations

__all__ = ["pull"]

from isula_cli.context import write_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context


def pull(
    ctx: Context, image: str, platform: str, *, quiet: bool, bars_on: int, all_tags: bool = False
) -> dict[str, Any]:
    """Pull ``image``: see ``Client.pull``; bars go to fd ``bars_on`` if that is a terminal.

    They go to standard error if only that is one, and as plain lines if neither is.
    """
    if quiet:
        return ctx.client.pull(image, platform=platform, all_tags=all_tags)
    from isula_cli.progress import follow, show

    write_error(f'Image "{image}" pulling\n')
    params: dict[str, Any] = {"ref": image}
    params |= {"platform": platform} if platform else {}
    params |= {"all_tags": True} if all_tags else {}
    with show(bars_on) as shown:
        result = follow(ctx.client.stream("image.pull", params), shown)
        shown.summary()
    for one in result.get("images") or [{"ref": image}]:
        ctx.err(f'Image "{one["ref"]}" pulled\n')
    return result
