"""What a container has changed in its image's files: a tar of what is there, names of the rest."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Any

from isula_edge.image.export import Exporter
from isula_edge.image.folders import Folders
from isula_edge.image.save import TarWriter
from isula_edge.image.tree import join

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from isula_edge.image.job import Job
    from isula_edge.image.tree import Directory

__all__ = ["diff"]

_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
_ABSENT = (errno.ENODATA, errno.ENOTSUP, errno.EPERM)


def diff(
    fd: int, root: str, lowers: Sequence[str], excluded: Iterable[str], job: Job, *, whole: bool
) -> dict[str, Any]:
    """Writes what ``root`` has to ``fd``: ``{"size": bytes, "deleted": [absolute paths]}``.

    ``root`` is the upper directory of an overlay over ``lowers``, topmost first, or, if it is
    ``whole``, a copy of the one in ``lowers`` that was changed.  The paths ``excluded`` and
    all below are left out.
    """
    writer = TarWriter(fd)
    found = _Diff(writer, root, job, lowers, {path.lstrip("/") for path in excluded}, whole)
    found.run()
    writer.end()
    deleted = [f"/{os.fsdecode(path)}" for path in found.deleted]
    # a record of the wire is UTF-8
    names = [name.encode("utf-8", "replace").decode() for name in deleted]
    return {"size": writer.size_bytes, "deleted": sorted(names)}


class _Diff(Exporter):
    def __init__(
        self,
        writer: TarWriter,
        root: str,
        job: Job,
        lowers: Sequence[str],
        excluded: set[str],
        whole: bool,
    ) -> None:
        super().__init__(writer, root, job)
        self._lowers = [Folders(lower) for lower in lowers]
        self._excluded = {os.fsencode(path) for path in excluded}
        self._whole = whole
        self.deleted: list[bytes] = []

    def directory(self, here: Directory) -> list[bytes]:
        """As the base class; and notes what of the image's it hides."""
        if self._whole or _is_opaque(here.fd):
            own = set(map(os.fsencode, os.listdir(here.fd)))
            self._note(join(here.path, name) for name in self._below(here.path) - own)
        return [path for path in super().directory(here) if path not in self._excluded]

    def entry(self, parent: Directory, name: bytes, path: bytes) -> None:
        """As the base class; a whiteout is noted and not written."""
        if path in self._excluded:
            return
        if _is_whiteout(os.stat(name, dir_fd=parent.fd, follow_symlinks=False)):
            self._note([path])
        else:
            super().entry(parent, name, path)

    def _note(self, paths: Iterable[bytes]) -> None:
        self.deleted += [path for path in paths if path not in self._excluded]

    def _below(self, path: bytes) -> set[bytes]:
        """Names in the image's directory at ``path``."""
        found: set[bytes] = set()
        hidden: set[bytes] = set()
        for lower in self._lowers:
            try:
                here = lower.at(path)
            except FileNotFoundError:
                continue
            except OSError:
                # something else than a directory hides what is under it
                break
            with os.scandir(here.fd) as entries:
                for entry in entries:
                    name = os.fsencode(entry.name)
                    if _is_whiteout(entry.stat(follow_symlinks=False)):
                        hidden.add(name)
                    elif name not in hidden:
                        found.add(name)
            if _is_opaque(here.fd):
                break
        return found


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def _is_opaque(fd: int) -> bool:
    for name in _OPAQUE:
        try:
            return os.getxattr(fd, name) == b"y"
        except OSError as error:
            if error.errno not in _ABSENT:
                raise
    return False
