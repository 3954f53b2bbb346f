"""All tags of a repository, page by page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.image.reference import is_tag

if TYPE_CHECKING:
    from isula_edge.image.registry import Registry

__all__ = ["list_tags"]

_PAGE = 1000
_MAX_PAGES = 1000
_MAX_TAGS = 100_000
_MAX_BODY = 8 << 20


def list_tags(registry: Registry, name: str) -> list[str]:
    """The tags of the registry's repository in its order, each once.

    Pages follow the header Link; what it says is taken as it comes, since registries count in
    ways of their own.  Raises NotFound when there are none.
    """
    tags: dict[str, None] = {}
    path, seen = f"tags/list?n={_PAGE}", set[str]()
    for _ in range(_MAX_PAGES):
        data, following = registry.page(path, _MAX_BODY, f"the list of tags of {name}")
        tags.update(dict.fromkeys(_parse(data, name)))
        if len(tags) > _MAX_TAGS:
            break
        if not following:
            if not tags:
                raise errors.NotFound(f"{name} has no tags", kind="image", ref=name)
            return list(tags)
        if following in seen:
            raise _bad(name, "leads in a circle")
        seen.add(following)
        path = following
    raise _bad(name, "does not end")


def _parse(data: bytes, name: str) -> list[str]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _bad(name, "is no JSON") from error
    found = document.get("tags") if isinstance(document, dict) else document
    # null is an empty list in Go
    if found is None and isinstance(document, dict):
        return []
    if not isinstance(found, list):
        raise _bad(name, "has no tags")
    return [tag for tag in found if isinstance(tag, str) and is_tag(tag)]


def _bad(name: str, what: str) -> errors.Unavailable:
    return errors.Unavailable(f"the list of tags of {name} {what}", kind="image", ref=name)
