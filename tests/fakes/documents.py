"""A driven engine whose runtime-spec documents a test changes before a runtime gets them.

Some fields have no option of ours; hooks, CDI and NRI set them.  A change is a merge patch
(RFC 7386): objects are merged, null removes, anything else replaces.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from isula_edge.oci import spec
from tests.fakes import driven

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Documents", "merged"]


def merged(document: Any, patch: Any) -> Any:
    """``document`` with a merge patch applied."""
    if not isinstance(patch, dict):
        return patch
    found = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value)
    return found


class Documents(driven.Driven):
    """The engine from outside."""

    module = "tests.fakes.documents"

    def patch(self, patch: Mapping[str, Any], mounts: list[dict[str, Any]] | None = None) -> None:
        """Changes the documents of containers that are started from now on.

        ``mounts`` are appended to theirs.
        """
        self.ask("patch", patch=patch, mounts=mounts or [])


class _Patching(driven.Answers):
    """The engine from inside."""

    _patch: Mapping[str, Any] = {}
    _mounts: list[dict[str, Any]] = []  # noqa: RUF012  # replaced, never changed

    async def patch(self, patch: Mapping[str, Any], mounts: list[dict[str, Any]]) -> None:
        _Patching._patch, _Patching._mounts = patch, mounts

    @classmethod
    def apply(cls, document: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = merged(document, cls._patch)
        found["mounts"] = [*found["mounts"], *cls._mounts]
        return found


if __name__ == "__main__":
    build = spec.build
    spec.build = lambda settings, subject: _Patching.apply(build(settings, subject))
    asyncio.run(driven.serve(sys.argv[1], sys.argv[2], _Patching))
