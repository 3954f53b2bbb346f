"""Where probes get their facts: the machine itself, or files saved from one."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from isula_edge import errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from isula_edge.kernel._asker import Asker

__all__ = ["CAP_NET_ADMIN", "CAP_SYS_ADMIN", "Answer", "Live", "Saved", "Source", "has_cap"]

CAP_NET_ADMIN = 12
CAP_SYS_ADMIN = 21

_FILE_LIMIT_BYTES = 1 << 20
_ERRNO_NAMES = {errno.EOPNOTSUPP: "EOPNOTSUPP", errno.EAGAIN: "EAGAIN"}
"""Numbers that have two names; these are the ones in saved files."""


@dataclass(frozen=True)
class Answer:
    """What a system call returned: ``ret``, and the name of errno or '' on success."""

    ret: int
    errname: str = ""

    @property
    def ok(self) -> bool:
        """Whether the call succeeded."""
        return not self.errname

    @property
    def text(self) -> str:
        """The answer in one word."""
        return self.errname or ("success" if self.ret == 0 else str(self.ret))

    @classmethod
    def of(cls, ret: int, number: int) -> Answer:
        """From a libc return value and errno."""
        if ret >= 0:
            return cls(ret)
        return cls(-1, _ERRNO_NAMES.get(number) or errno.errorcode.get(number, str(number)))


class Source(Protocol):
    """Facts about one kernel.  Paths are absolute, as on the machine itself."""

    @property
    def name(self) -> str:
        """``live`` or the directory of the saved files."""

    def read(self, path: str) -> str | None:
        """Text of a file, or None when it is absent or cannot be read."""

    def link(self, path: str) -> str | None:
        """Target of a symbolic link, or None."""

    def exists(self, path: str) -> bool:
        """Whether anything is at ``path`` (a dangling link counts)."""

    def list(self, path: str) -> list[str]:
        """Sorted names of the directories in ``path``, empty when it cannot be read."""

    def call(self, name: str) -> Answer | None:
        """Answer of the call ``group.name``, or None when it was not or cannot be asked."""

    def asking(self) -> AbstractContextManager[None]:
        """While it is entered, calls are asked together and so for less."""

    @property
    def unanswered(self) -> tuple[str, ...]:
        """Calls that were asked and gave no answer in time."""


class Live:
    """This machine.

    Calls are asked in a process that is thrown away (see :mod:`isula_edge.kernel._asker`),
    with arguments that change nothing on the machine (see
    :mod:`isula_edge.kernel._probe_calls`).  Every call is made and every file read at
    most once: take another ``Live`` for fresh facts.
    """

    def __init__(self) -> None:
        self._answers: dict[str, Answer | None] = {}
        self._asker: Asker | None = None
        self._lost: list[str] = []
        self._files: dict[str, str | None] = {}

    @property
    def name(self) -> str:
        """``live``."""
        return "live"

    def read(self, path: str) -> str | None:
        """Text of a file, or None when it is absent or cannot be read."""
        if path not in self._files:
            self._files[path] = _read(path)
        return self._files[path]

    def link(self, path: str) -> str | None:
        """Target of a symbolic link, or None."""
        return _link(path)

    def exists(self, path: str) -> bool:
        """Whether anything is at ``path``."""
        return os.path.lexists(path)

    def list(self, path: str) -> list[str]:
        """Sorted names of the directories in ``path``."""
        return _list(path)

    def call(self, name: str) -> Answer | None:
        """Answer of the call, asked now."""
        if name not in self._answers:
            with self.asking():
                assert self._asker is not None  # noqa: S101
                self._answers[name] = self._asker.answer(name)
        return self._answers[name]

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Keeps one process for all calls that are asked meanwhile."""
        if self._asker is not None:
            yield
            return
        # ctypes and the tables of call numbers are only paid for by who asks
        from isula_edge.kernel import _asker, _probe_calls

        self._asker = asker = _asker.Asker(_probe_calls.ask)
        try:
            yield
        finally:
            asker.close()
            self._asker = None
            self._lost += asker.unanswered

    @property
    def unanswered(self) -> tuple[str, ...]:
        """Calls that gave no answer in time."""
        return tuple(self._lost + (self._asker.unanswered if self._asker else []))


class Saved:
    """Files saved from a machine: ``proc/``, ``sys/`` and ``syscalls.json`` below ``root``.

    Raises NotFound when ``root`` has none of them, and DataLoss when ``syscalls.json``
    cannot be parsed.
    """

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/") or "/"
        if not any(os.path.exists(f"{root}/{name}") for name in ("proc", "sys", "syscalls.json")):
            raise errors.NotFound(
                f"{root} holds no saved kernel: neither proc, sys nor syscalls.json is there",
                kind="directory",
                ref=root,
                hint="check-kernel --save makes such a directory",
            )
        self._answers = _load_answers(f"{root}/syscalls.json")

    @property
    def name(self) -> str:
        """The directory."""
        return self.root

    def read(self, path: str) -> str | None:
        """Text of a file, or None when it was not saved."""
        return _read(self.root + path)

    def link(self, path: str) -> str | None:
        """Target of a symbolic link, or None."""
        return _link(self.root + path)

    def exists(self, path: str) -> bool:
        """Whether anything was saved at ``path``."""
        return os.path.lexists(self.root + path)

    def list(self, path: str) -> list[str]:
        """Sorted names of the directories saved in ``path``."""
        return _list(self.root + path)

    def call(self, name: str) -> Answer | None:
        """Answer recorded for the call."""
        return self._answers.get(name)

    def asking(self) -> AbstractContextManager[None]:
        """Does nothing: all is known."""
        return contextlib.nullcontext()

    @property
    def unanswered(self) -> tuple[str, ...]:
        """Nothing: what gave no answer was not recorded."""
        return ()


def has_cap(source: Source, capability: int) -> bool:
    """Whether the asking process had ``capability`` in its effective set; true when the
    set was not recorded."""
    for line in (source.read("/proc/self/status") or "").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> capability & 1)
    return True


def _read(path: str) -> str | None:
    try:
        with open(path, "rb") as file:
            return file.read(_FILE_LIMIT_BYTES).decode("utf-8", "replace")
    except OSError:
        return None


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None


def _list(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def _load_answers(path: str) -> Mapping[str, Answer]:
    text = _read(path)
    if text is None:
        return {}
    try:
        groups = json.loads(text)
        return {
            f"{group}.{name}": Answer(int(answer["ret"]), str(answer.get("errname", "")))
            for group, calls in groups.items()
            if isinstance(calls, dict)
            for name, answer in calls.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise errors.DataLoss(
            f"{path} is not a record of system calls: {error}", kind="file", ref=path
        ) from error
