"""Runtimes that do everything right but for one command, which goes wrong in a chosen way.

Each is a script around the real runc.  What it starts besides carries the script's folder in
its environment, so that `tests.cri.leavings.processes` finds it.
"""

from __future__ import annotations

import shutil
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FAULTS", "bad_runtime", "foreign_program", "old_runtime"]

_SCRIPT = """\
#!/bin/sh
export BAD_RUNTIME={folder}
verb= log= pid_file= before=
for word; do
    case $before in --log) log=$word ;; --pid-file) pid_file=$word ;; esac
    case $word in create|start|exec|delete|kill) verb=${{verb:-$word}} ;; esac
    before=$word
done
real={runc}
if [ "$verb" = {verb} ] && [ -e {folder}/wrong ]; then
{fault}
fi
exec "$real" "$@"
"""

FAULTS = {
    # says nothing and fails
    "silent": "exit 7",
    # prints what is no text, to everything that is read
    "garbage": """\
head -c 2000 /dev/urandom
head -c 2000 /dev/urandom >&2
head -c 2000 /dev/urandom >>"$log"
exit 1""",
    # the same, and more than anybody would keep
    "huge": """\
head -c 30000000 /dev/zero | tr '\\0' x >&2
head -c 30000000 /dev/zero | tr '\\0' x >>"$log"
exit 1""",
    # puts what blocks, or leads elsewhere, where its log is read
    "fifo": 'rm -f "$log"; mkfifo "$log"; exit 1',
    "link": 'ln -sf /etc/passwd "$log"; exit 1',
    # never ends, with children in its process group and outside
    "hangs": "sleep 1000 & setsid sleep 1000 & sleep 1000; exit 1",
    "hangs-alone": "exec sleep 1000",
    # is killed before it has done anything
    "dies": "kill -KILL $$",
    # has done what was to be done, and is killed before it says so
    "dies-late": '"$real" "$@"; kill -KILL $$',
    # the same, while something that it has started goes on
    "leaves": '"$real" "$@"; setsid sleep 1000 & exit 3',
    # succeeds without having done anything
    "lies": "exit 0",
    # does it, and tells of a process that is not its own
    "wrong-pid": '"$real" "$@" || exit; echo 1 >"$pid_file"; exit 0',
    "no-process": '"$real" "$@" || exit; echo 4194303 >"$pid_file"; exit 0',
    "garbage-pid": '"$real" "$@" || exit; echo x1y >"$pid_file"; exit 0',
}
"""What a command does instead, by a word for it."""


def bad_runtime(folder: Path, verb: str, fault: str) -> Path:
    """A runtime whose command ``verb`` goes wrong while the file ``wrong`` lies beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "wrong").touch()
    path = folder / "runtime"
    text = _SCRIPT.format(
        folder=folder, runc=shutil.which("runc"), verb=verb, fault=FAULTS[fault]
    )
    path.write_text(text)
    path.chmod(0o755)
    return path


def old_runtime(folder: Path, version: str) -> Path:
    """A runtime that says that it is for runtime-spec ``version``, and else is runc."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "old"
    path.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = --version ] && {{ echo asked >>{folder}/asked\n'
        f"printf 'old version 0.1\\nspec: {version}\\n'; exit; }}\n"
        f'exec {shutil.which("runc")} "$@"\n'
    )
    path.chmod(0o755)
    return path


def foreign_program(path: Path) -> Path:
    """An executable ELF file for a machine that nobody has (EM_MMIX, 80)."""
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    rest = struct.pack("<HHIQQQIHHHHHH", 2, 80, 1, 0, 0, 0, 0, 64, 56, 0, 0, 0, 0)
    path.write_bytes(ident + rest)
    path.chmod(0o755)
    return path
