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

__all__ = ["containers", "has_labels", "images"]

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


def has_labels(wanted: Sequence[str], labels: Mapping[str, str]) -> bool:
    """Whether there are all of ``wanted``, ``KEY`` or ``KEY=VALUE``."""
    for item in wanted:
        key, equals, value = item.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def containers(found: Sequence[Container], wanted: Mapping[str, Sequence[str]]) -> list[Container]:
    """Those of ``found`` that match; InvalidArgument for an unknown key or a bad value."""
    tests = [_container_test(key, items) for key, items in wanted.items()]
    return [container for container in found if all(test(container) for test in tests)]


def _container_test(key: str, items: Sequence[str]) -> Callable[[Container], bool]:
    if key in ("id", "name"):
        patterns = [_pattern(key, value) for value in items]
        if key == "id":
            return lambda it: any(pattern.match(it.id) for pattern in patterns)
        return lambda it: any(pattern.search(it.name) for pattern in patterns)
    if key == "label":
        return lambda it: has_labels(items, it.settings.labels)
    if key == "status":
        for value in items:
            if value not in _STATES:
                raise _bad(key, value)
        states = {_STATES[value] for value in items}
        return lambda it: str(it.state.status) in states
    raise _bad(key, ", ".join(items))


def images(
    found: Sequence[Image], wanted: Mapping[str, Sequence[str]], store: ImageStore
) -> list[Image]:
    """Those of ``found`` that match; InvalidArgument for an unknown key or a bad value."""
    tests = [_image_test(key, items, store) for key, items in wanted.items()]
    return [image for image in found if all(test(image) for test in tests)]


def _image_test(key: str, items: Sequence[str], store: ImageStore) -> Callable[[Image], bool]:
    if key == "dangling":
        for value in items:
            if value not in ("true", "false", "1", "0"):
                raise _bad(key, value)
        answers = {value in ("true", "1") for value in items}
        return lambda it: (not it.names) in answers
    if key == "label":
        return lambda it: has_labels(items, it.run_config.get("Labels") or {})
    if key in ("before", "since"):
        times = [store.get(value).created_ns for value in items]
        if key == "before":
            return lambda it: any(it.created_ns < at for at in times)
        return lambda it: any(it.created_ns > at for at in times)
    if key == "reference":
        return lambda it: any(_reference(it, pattern) for pattern in items)
    raise _bad(key, ", ".join(items))


def _reference(image: Image, pattern: str) -> bool:
    return any(
        fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name.rpartition(":")[0], pattern)
        for name in image.names
    )
