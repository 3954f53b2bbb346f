"""Changing the limits of a cgroup whose processes run: all of them or none."""

from __future__ import annotations

import contextlib
import errno
import logging
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.cgroup.convert import CgroupFile, resource_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from isula_edge.cgroup.host import Host

__all__ = ["apply", "changes", "restore"]

_log = logging.getLogger(__name__)
_CLASSES: dict[int, type[errors.EngineError]] = {
    errno.EINVAL: errors.InvalidArgument,
    errno.ERANGE: errors.InvalidArgument,
    errno.ENOENT: errors.Unimplemented,
    errno.EOPNOTSUPP: errors.Unimplemented,
    errno.EBUSY: errors.FailedPrecondition,
    errno.ENOSPC: errors.FailedPrecondition,
    errno.EACCES: errors.PermissionDenied,
    errno.EPERM: errors.PermissionDenied,
}


def changes(
    old: Mapping[str, Any], new: Mapping[str, Any], version: str
) -> list[CgroupFile]:
    """The files whose value is another after ``linux.resources`` became ``new``.

    Of a file that stands there twice the last value counts: ``unified`` wins.
    """
    before = {file.name: file for file in resource_files(old, version)}
    after = {file.name: file for file in resource_files(new, version)}
    return [file for name, file in after.items() if before.get(name) != file]


def apply(host: Host, group: str, files: Sequence[CgroupFile]) -> list[CgroupFile]:
    """Writes ``files`` in an order that the kernel accepts: what they held before.

    When one cannot be written the former values are restored, and the error names the file
    and the value.
    """
    former = [
        CgroupFile(file.controller, file.name, host.read(file.controller, group, file.name))
        for file in files
    ]
    _check_memory(host, group, files)
    failed = _write(host, group, files)
    if failed is not None:
        restore(host, group, former)
        file, error = failed
        raise _explain(file, error) from error
    return former


def restore(host: Host, group: str, former: Iterable[CgroupFile]) -> None:
    """Writes back what :func:`apply` returned; what cannot be is logged."""
    failed = _write(host, group, [file for file in former if file.value])
    if failed is not None:
        _log.error("cgroup %s: cannot restore %s: %s", group, failed[0].name, failed[1])


def _write(
    host: Host, group: str, files: Sequence[CgroupFile]
) -> tuple[CgroupFile, OSError] | None:
    """Writes all files, or gives one that cannot be written and the reason.

    Which of two values has to come first (memory and memory with swap, quota and period)
    depends on what is there and on the parent's limits, so one that is refused gets another
    chance after the rest.
    """
    pending = list(files)
    while pending:
        refused: list[tuple[CgroupFile, OSError]] = []
        for file in pending:
            try:
                # some files take one line at a time (io.max)
                for line in file.value.splitlines():
                    host.write(file.controller, group, file.name, line)
            except KeyError:
                missing = OSError(errno.ENOENT, f"no {file.controller} controller", file.name)
                return file, missing
            except OSError as error:
                refused.append((file, error))
        if len(refused) == len(pending):
            return refused[0]
        pending = [file for file, _ in refused]
    return None


def _check_memory(host: Host, group: str, files: Sequence[CgroupFile]) -> None:
    """Refuses a limit below what is used: version 2 would kill processes at once.

    Version 1 refuses by itself (EBUSY) when it cannot reclaim enough.
    """
    for file in files:
        if file.name != "memory.max" or file.value == "max":
            continue
        with contextlib.suppress(ValueError):
            used = int(host.read("memory", group, "memory.current"))
            if int(file.value) < used:
                raise errors.FailedPrecondition(
                    f"cannot set memory.max to {file.value}: {used} bytes are in use",
                    kind="cgroup",
                    ref=group,
                )


def _explain(file: CgroupFile, error: OSError) -> errors.EngineError:
    cls = _CLASSES.get(error.errno or 0, errors.Internal)
    return cls(
        f"cannot set {file.name} to {file.value}: {error.strerror or error}",
        kind="cgroup",
        ref=file.name,
    )
