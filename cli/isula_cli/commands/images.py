"""``isula images``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

import time

from isula_cli.filters import parse
from isula_cli.human import size, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = (
    ("digests", "", "bool", "", "show the digests of manifests"),
    ("filter", "f", "list", "KEY=VALUE", "dangling=, label=, before=, since=, reference="),
    ("no-trunc", "", "bool", "", "show whole ids"),
    ("quiet", "q", "bool", "", "print only ids"),
)
ARGUMENTS = ()
MISCOUNT = ('"images" requires 0 arguments.', 1)
EXAMPLES = ("isula images", "isula images -q --filter dangling=true")
_LIBRARY = "docker.io/library/"


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Print one line per name."""
    images = ctx.client.images(parse(options.get("filter", [])))
    length = 64 if options.get("no-trunc") else 12
    if options.get("quiet"):
        ctx.out("".join(f"{_id(image, length)}\n" for image in images))
        return 0
    digests = bool(options.get("digests"))
    heads = ["REPOSITORY", "TAG", *(["DIGEST"] if digests else [])]
    # images for other machines are told apart, where there are such
    foreign = not all(image.get("native", True) for image in images)
    rows = [[*heads, "IMAGE ID", "CREATED", "SIZE", *(["PLATFORM"] if foreign else [])]]
    for image in images:
        digest = next(iter(image.get("digests") or []), "<none>").rpartition("@")[2]
        created = time.localtime(image["created_ns"] // 10**9)
        for repository, tag in image["names"] or [("<none>", "<none>")]:
            names = [repository.removeprefix(_LIBRARY), tag, *([digest] if digests else [])]
            when = time.strftime("%Y-%m-%d %H:%M:%S", created)
            row = [*names, _id(image, length), when, size(image["size"])]
            rows.append([*row, image["platform"] or "-"] if foreign else row)
    ctx.out(table(rows))
    return 0


def _id(image: dict[str, Any], length: int) -> str:
    return str(image["id"]).removeprefix("sha256:")[:length]
