"""Formats of ``inspect``: ``{{.A.B}}`` and ``{{json .A.B}}`` with text between."""

from __future__ import annotations

__all__ = ["render"]

import json

from isula_cli.parser import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def render(template: str, item: dict[str, Any]) -> str:
    """``template`` filled in, as one line for each field that only blanks separate.

    Raises KeyError, its argument the text for the user, for a field that is not there,
    and UsageError for a template of any other form.
    """
    text = ""
    rest = template
    filled = False
    while True:
        literal, found, after = rest.partition("{{")
        text += "\n" if found and filled and not literal.strip() else literal
        if not found:
            return text + "\n"
        inside, closed, rest = after.partition("}}")
        words = inside.split()
        as_json = words[:1] == ["json"]
        if as_json:
            words = words[1:]
        if not closed or len(words) != 1 or words[0][:1] != ".":
            known = "{{.A.B}} or {{json .A.B}}"
            raise UsageError(f'invalid format "{template}": use {known}', 1)
        text += _show(_find(item, words[0]), as_json=as_json)
        filled = True


def _find(item: Any, path: str) -> Any:
    for key in path.split("."):
        if not key:
            continue
        if not isinstance(item, dict) or key not in item:
            raise KeyError(f'Template parsing error: map has no entry for key "{key}"')
        item = item[key]
    return item


def _show(value: Any, *, as_json: bool) -> str:
    if isinstance(value, str) and not as_json:
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
