"""Formats of fields, ``{{.Name}}``, with a leading ``table`` for headings.

A format is a list of substitutions, not a template language.
"""

from __future__ import annotations

__all__ = ["fill", "split"]

from isula_cli.parser import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    Part = tuple[str, bool]


def split(template: str, names: Container[str]) -> tuple[bool, list[Part]]:
    """Whether headings are wanted, then literal text and names of fields (True).

    Raises UsageError for a field that is not one of ``names``.
    """
    text = template.strip()
    headed = text == "table" or text[:6] in ("table ", "table\t")
    if headed:
        template = text[5:].lstrip()
    template = template.replace("\\\\", "\0").replace("\\n", "\n").replace("\\t", "\t")
    template = template.replace("\0", "\\")
    parts: list[Part] = []
    while template:
        literal, found, rest = template.partition("{{")
        if literal:
            parts.append((literal, False))
        if not found:
            break
        name, closed, template = rest.partition("}}")
        name = name.strip()
        if not closed or name[:1] != "." or name[1:] not in names:
            raise UsageError(f'Invalid filter: unknown field "{name}" in the format', 1)
        parts.append((name[1:], True))
    return headed, parts


def fill(parts: list[Part], values: Mapping[str, str]) -> str:
    """The line for one object."""
    return "".join(values[text] if field else text for text, field in parts)
