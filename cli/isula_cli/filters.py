"""The ``--filter KEY=VALUE`` of lists."""

from __future__ import annotations

__all__ = ["parse"]

from isula_cli.parser import UsageError


def parse(words: list[str]) -> dict[str, list[str]]:
    """Values by key, for the daemon to judge; raises UsageError for a word without ``=``."""
    found: dict[str, list[str]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"Unrecognised filter value: {word}", 1)
        found.setdefault(key.strip().lower(), []).append(value.strip())
    return found
