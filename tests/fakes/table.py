"""A table of containers or pods that is only a list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isula_edge import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Table"]


class Table:
    """Containers or pods, found by the beginning of their ids, or by their names."""

    def __init__(self, *items: Any) -> None:
        self.items = list(items)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self.items))

    def get(self, ref: str) -> Any:
        for item in self.items:
            if ref and (item.id.startswith(ref) or ref == getattr(item, "name", "")):
                return item
        raise errors.NotFound(f"No such:{ref}")

    def find(self, ref: str) -> Any:
        try:
            return self.get(ref)
        except errors.NotFound:
            return None
