"""``isula load``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

import posix

from isula_cli.parser import UsageError
from isula_cli.uploads import absolute, upload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = (
    ("input", "i", "str", "FILE", "archive to load, - for standard input"),
    ("quiet", "q", "bool", "", "do not show progress"),
    ("tag", "", "str", "NAME", "name for the one image of the archive"),
    ("type", "t", "str", "TYPE", "type of the archive (docker)"),
)
ARGUMENTS = ()
MISCOUNT = ('"load" requires 0 arguments.', 1)
EXAMPLES = ("isula load -i images.tar", "isula load -i -")
_FORMAT = 0o170000
_CARRIERS = (0o010000, 0o100000, 0o140000)


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Load the images and print their names."""
    path = options.get("input") or ("-" if _is_given(0) else "")
    if not path:
        raise UsageError("missing image input, use -i,--input option", 1)
    params = {"path": "-" if path == "-" else absolute(path)}
    params |= {name: options[name] for name in ("tag", "type") if options.get(name)}
    result = upload(ctx, "image.load", params, quiet=bool(options.get("quiet")))
    ctx.out("".join(f"Loaded image: {name}\n" for name in result["images"]))
    return 0


def _is_given(fd: int) -> bool:
    """Whether ``fd`` is a pipe, a file or a socket: neither a terminal nor /dev/null."""
    return posix.fstat(fd).st_mode & _FORMAT in _CARRIERS
