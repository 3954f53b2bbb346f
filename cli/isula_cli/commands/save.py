"""``isula save``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

import posix

from isula_cli.downloads import download

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = (
    ("exclude", "", "list", "IMAGE", "leave out the layers that this image has"),
    ("format", "", "str", "FORMAT", "docker (an OCI layout too) or oci (nothing else)"),
    ("output", "o", "str", "FILE", "file to write instead of standard output"),
    ("platform", "", "str", "OS/ARCH", "of a name's images the one for this platform"),
)
ARGUMENTS = (("image", "+", "IMAGE"),)
MISCOUNT = ('"save" requires a minimum of 1 argument.', 1)
EXAMPLES = (
    "isula save -o images.tar busybox alpine:3.20",
    "isula save -o update.tar --exclude app:1 app:2",
)


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Write the archive."""
    path = options.get("output") or ""
    if not path and posix.isatty(1):
        ctx.err("Cowardly refusing to save to a terminal. Use the -o flag or redirect.\n")
        return 1
    exclude, format = options.get("exclude") or [], options.get("format") or "docker"
    platform = options.get("platform", "")
    download(
        lambda write: ctx.client.save(
            args, write, exclude=exclude, format=format, platform=platform
        ),
        path,
    )
    return 0
