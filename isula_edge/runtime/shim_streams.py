"""The FIFOs between a shim and whoever has a container's or an exec's standard streams.

A shim writes output to FIFOs and keeps their other end open itself: without a reader the
process blocks after 64 KiB.  So a container's are read by a relay, a few lines of shell under
conmon that outlive the engine; an exec's by the engine, as long as its client is there.

The end of file is not the end of the container, which may have closed its output: a keeper in
the relay holds the FIFOs open until the engine, told of the exit by the shim, ends it by the
FIFO ``gate``.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from isula_edge.runtime.base import Bundle

__all__ = ["CLOSED", "GATE", "Fifos", "folder", "launcher", "make", "release"]

GATE = "gate"
CLOSED = "closed"
"""The file that the relay makes when nothing more comes on standard input."""


class Fifos(NamedTuple):
    """Paths of the FIFOs; '' where there is none."""

    stdin: str = ""
    stdout: str = ""
    stderr: str = ""

    def remove(self) -> None:
        """Removes them and their folder."""
        for path in filter(None, self):
            with contextlib.suppress(OSError):
                os.unlink(path)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(self.stdout))


def folder(bundle: Bundle) -> str:
    """The folder of the container's own FIFOs."""
    return f"{bundle.run_dir}/io"


def make(place: str, *, stdin: bool, terminal: bool) -> Fifos:
    """Makes ``place`` and the FIFOs in it; a terminal has no standard error of its own."""
    os.mkdir(place, 0o700)
    found = Fifos(
        f"{place}/in" if stdin else "", f"{place}/out", "" if terminal else f"{place}/err"
    )
    for path in filter(None, found):
        os.mkfifo(path, 0o600)
    return found


def launcher(bundle: Bundle) -> bytes:
    """The program conmon takes for a runtime; what it leaves behind copies until the end."""
    lines = [
        "#!/bin/sh",
        'while [ $# -gt 0 ]; do case "$1" in --pid-file) pid_file=$2 ;; esac; shift; done',
        f"cd {shlex.quote(folder(bundle))} || exit 1",
        # the standard input of what runs in the background is /dev/null
        "exec 3<&0",
        "(",
    ]
    if bundle.stdin_open:
        lines.append(f"( exec 4>in && cat <&3 >&4; exec 4>&-; : >{CLOSED} ) 2>/dev/null &")
    lines.append("exec 3<&-")
    held = "8<>out" if bundle.terminal else "8<>out 9<>err"
    lines.append(f"( exec {held}; read -r _ <{GATE} ) &")
    if bundle.terminal:
        lines.append("cat <out")
    else:
        lines += ["cat <err >&2 &", "errors=$!", "cat <out", "wait $errors"]
    lines += [") &", "exec 3<&-", 'echo $! >"$pid_file"', ""]
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def release(bundle: Bundle) -> bool:
    """Ends the keeper: the relay ends with the output.  False when nobody waits there (yet)."""
    try:
        fd = os.open(f"{folder(bundle)}/{GATE}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    os.close(fd)
    return True
