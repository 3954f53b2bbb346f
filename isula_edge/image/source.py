"""Where an archive comes from: a file that the daemon names, or a descriptor it passes."""

from __future__ import annotations

import io
import os
import stat

from isula_edge import errors
from isula_edge.image import decompress
from isula_edge.image.spool import unnamed_file
from isula_edge.sys import atomic

__all__ = ["open_source", "seekable_plain"]

_CHUNK = 256 * 1024


def open_source(path: str, fd: int) -> io.BufferedReader:
    """The archive at ``path``, or behind ``fd`` when ``path`` is empty, ready to be read.

    Raises NotFound, or InvalidArgument for what is neither a file nor a pipe.
    """
    try:
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if path else fd
        mode = os.fstat(source).st_mode
    except FileNotFoundError as error:
        raise errors.NotFound(f"{path}: no such file", kind="file", ref=path) from error
    except OSError as error:
        raise errors.InvalidArgument(
            f"cannot read {path}: {error.strerror}", kind="file", ref=path
        ) from error
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        raise errors.InvalidArgument(f"{path}: not a regular file", kind="file", ref=path)
    return _reader(source)


def seekable_plain(source: io.BufferedReader, tmpdir: str) -> io.BufferedReader:
    """``source`` itself when it is an uncompressed regular file, else a plain copy in ``tmpdir``.

    The copy has no name and is gone when it is closed.
    """
    head = source.peek(_CHUNK)
    regular = stat.S_ISREG(os.fstat(source.fileno()).st_mode)
    if regular and head[257:262] == b"ustar":
        return source
    plain = decompress.open_stream(source)
    fd = unnamed_file(tmpdir)
    with atomic.space_errors(tmpdir), open(fd, "wb", buffering=0, closefd=False) as copy:
        while data := plain.read(_CHUNK):
            copy.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    return _reader(fd)


def _reader(fd: int) -> io.BufferedReader:
    return io.BufferedReader(io.FileIO(fd, "rb"), _CHUNK)
