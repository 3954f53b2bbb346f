"""Reading lxc-start's log at level INFO: the one place that knows init's pid and exit status.

lxc-start itself always exits 0.  The lines, unchanged from LXC 4 to 6:

- ``Started "PROGRAM" with pid "PID"``: init has been executed (post_start);
- ``Failed to exec "PROGRAM"``, with the errno's text in front;
- ``Child <PID> ended on error (N)`` / ``ended on signal TEXT(N)``: how init ended; no line
  means exit code 0.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass

__all__ = ["Progress", "exit_code", "read_progress"]

_STARTED = re.compile(rb'Started ".*" with pid "(\d+)"')
_EXEC = re.compile(rb'- ([^-]*) - Failed to exec "(.*)"')
_ENDED = re.compile(rb"Child <(\d+)> ended on (error|signal) [^(]*\((\d+)\)")
_ERROR = re.compile(rb" ERROR +\S+ - \S+:(\w+):\d+ - (.*)")
_TAIL = 4096


@dataclass(frozen=True, slots=True)
class Progress:
    """What the log says so far.

    ``pid`` is init's pid once it has been executed, else 0; ``exec_error`` the errno of a
    failed exec, else 0; ``error`` the first error line's text, or ''.
    """

    pid: int = 0
    exec_error: int = 0
    error: str = ""


def read_progress(path: str) -> Progress:
    """The state of a start, from the whole log at ``path`` (a few KB)."""
    try:
        with open(path, "rb") as file:
            data = file.read(1 << 20)
    except OSError:
        return Progress()
    # plain words first: this is asked again for each line that LXC writes
    failed = _EXEC.search(data) if b"Failed to exec" in data else None
    number = 0
    if failed:
        text = failed.group(1).decode(errors="replace").strip()
        number = next((code for code in errno.errorcode if os.strerror(code) == text), errno.EIO)
    started = _STARTED.search(data) if b'Started "' in data else None
    first = _ERROR.search(data) if b" ERROR " in data else None
    message = first.group(2).decode(errors="replace").strip() if first else ""
    return Progress(int(started.group(1)) if started else 0, number, message)


def exit_code(path: str) -> int | None:
    """Init's exit code (128 + signal), 0 without a line about it, None without a log."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            data = file.read()
    except OSError:
        return None
    found = _ENDED.findall(data)
    if not found:
        return 0
    _, how, number = found[-1]
    return 128 + int(number) if how == b"signal" else int(number)
