"""``--filter`` of ``ps`` and ``images``: AND between keys, OR between values of one."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

from isula_edge import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from isula_edge.container.record import Container
    from isula_edge.image.store import Image, ImageStore

__all__ = ["containers", "images"]

_STATES = {
    "created": "inited",
    "inited": "inited",
    "starting": "starting",
    "running": "running",
    "paused": "paused",
    "restarting": "restarting",
    "exited": "exited",
    "dead": "dead",
}


def _bad(key: str, value: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(
        f"Unrecognised filter value for {key}: {value}", kind="filter", ref=key
    )


def _pattern(key: str, value: str) -> re.Pattern[str]:
    try:
        return re.compile(value)
    except re.error as error:
        raise _bad(key, value) from error


def _labels(wanted: Sequence[str], labels: Mapping[str, str]) -> bool:
    for item in wanted:
        key, equals, value = item.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def containers(found: Sequence[Container], wanted: Mapping[str, Sequence[str]]) -> list[Container]:
    """Those of ``found`` that match; InvalidArgument for an unknown key or a bad value."""
    tests: list[Callable[[Container], bool]] = []
    for key, items in wanted.items():
        if key == "id":
            tests.append(
                lambda c, p=[_pattern(key, v) for v in items]: any(x.match(c.id) for x in p)
            )  # type: ignore[misc]
        elif key == "name":
            tests.append(
                lambda c, p=[_pattern(key, v) for v in items]: any(x.search(c.name) for x in p)
            )  # type: ignore[misc]
        elif key == "label":
            tests.append(lambda c, v=items: _labels(v, c.settings.labels))  # type: ignore[misc]
        elif key == "status":
            for value in items:
                if value not in _STATES:
                    raise _bad(key, value)
            tests.append(lambda c, v={_STATES[i] for i in items}: str(c.state.status) in v)  # type: ignore[misc]
        else:
            raise _bad(key, ", ".join(items))
    return [container for container in found if all(test(container) for test in tests)]


def images(
    found: Sequence[Image], wanted: Mapping[str, Sequence[str]], store: ImageStore
) -> list[Image]:
    """Those of ``found`` that match; InvalidArgument for an unknown key or a bad value."""
    tests: list[Callable[[Image], bool]] = []
    for key, items in wanted.items():
        if key == "dangling":
            for value in items:
                if value not in ("true", "false", "1", "0"):
                    raise _bad(key, value)
            tests.append(lambda i, v={w in ("true", "1") for w in items}: (not i.names) in v)  # type: ignore[misc]
        elif key == "label":
            tests.append(lambda i, v=items: _labels(v, i.run_config.get("Labels") or {}))  # type: ignore[misc]
        elif key in ("before", "since"):
            times = [store.get(value).created_ns for value in items]
            tests.append(
                lambda i, t=times, k=key: any(  # type: ignore[misc]
                    i.created_ns < at if k == "before" else i.created_ns > at for at in t
                )
            )
        elif key == "reference":
            tests.append(lambda i, v=items: any(_reference(i, pattern) for pattern in v))  # type: ignore[misc]
        else:
            raise _bad(key, ", ".join(items))
    return [image for image in found if all(test(image) for test in tests)]


def _reference(image: Image, pattern: str) -> bool:
    return any(
        fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name.rpartition(":")[0], pattern)
        for name in image.names
    )
