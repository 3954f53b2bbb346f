"""Saves what the probes saw, so that it can be looked at elsewhere."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from isula_edge.kernel.source import Answer, Source

__all__ = ["Recorder"]

_UNTOLD = ("/lib/modules/",)
"""Large, and only looked at when nothing better is there."""


class Recorder:
    """A source that passes on what another one says, and remembers it.

    ``save`` writes it in the form that :class:`~isula_edge.kernel.source.Saved` reads:
    only the files that a probe read, and the answers of calls.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._files: dict[str, str] = {}
        self._links: dict[str, str] = {}
        self._seen: set[str] = set()
        self._answers: dict[str, Answer] = {}

    @property
    def name(self) -> str:
        """Name of the source that is recorded."""
        return self._source.name

    def read(self, path: str) -> str | None:
        """Text of a file, or None."""
        text = self._source.read(path)
        if text is not None and not path.startswith(_UNTOLD):
            self._files[path] = text
        return text

    def link(self, path: str) -> str | None:
        """Target of a symbolic link, or None."""
        target = self._source.link(path)
        if target is not None:
            self._links[path] = target
        return target

    def exists(self, path: str) -> bool:
        """Whether anything is at ``path``."""
        found = self._source.exists(path)
        if found:
            self._seen.add(path)
            self.link(path)
        return found

    def list(self, path: str) -> list[str]:
        """Names of the directories in ``path``; only what is then looked at is saved."""
        return self._source.list(path)

    def call(self, name: str) -> Answer | None:
        """Answer of a call, or None."""
        answer = self._source.call(name)
        if answer is not None:
            self._answers[name] = answer
        return answer

    def asking(self) -> AbstractContextManager[None]:
        """That of the source which is recorded."""
        return self._source.asking()

    @property
    def unanswered(self) -> tuple[str, ...]:
        """Those of the source which is recorded."""
        return self._source.unanswered

    def save(self, root: str) -> None:
        """Writes everything that was seen below ``root``, which must not exist."""
        os.mkdir(root)
        for path, target in self._links.items():
            os.makedirs(os.path.dirname(root + path), exist_ok=True)
            os.symlink(target, root + path)
        for path, text in self._files.items():
            if path not in self._links:
                _write(root + path, text)
        # what was only seen to exist: a directory unless something is known below it
        for path in sorted(self._seen):
            if not os.path.lexists(root + path):
                os.makedirs(root + path)
        groups: dict[str, dict[str, dict[str, int | str]]] = {}
        for name, answer in sorted(self._answers.items()):
            group, _, call = name.partition(".")
            groups.setdefault(group, {})[call] = {"ret": answer.ret, "errname": answer.errname}
        _write(f"{root}/syscalls.json", json.dumps(groups, indent=1) + "\n")


def _write(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
