"""The program of a container, looked at before it is started (case A31k).

The runtime's own words for a program of another architecture, or for a script whose
interpreter is missing, are "exec format error" and "no such file or directory".
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.profile import elf
from isula_edge.runtime.base import binds
from isula_edge.sys import paths

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["check"]

_DEPTH = 4
"""How often an interpreter may have one (BINPRM_MAX_RECURSION)."""


def check(root: str, spec: Mapping[str, Any], executable: Callable[[str], None]) -> None:
    """Raises what starting the program would: CommandNotFound, CommandNotExecutable.

    ``executable`` is asked about the program, the interpreters of a script and the loader
    of a dynamic program; it raises for what the machine cannot run.  Nothing is said of
    what a mount hides.
    """
    process, mounts = spec["process"], binds(spec)
    program = process["args"][0]
    env = dict(pair.partition("=")[::2] for pair in process.get("env") or ())
    cwd = process.get("cwd") or "/"
    _, host = paths.find_program(root, program, env.get("PATH", ""), cwd, mounts)
    for _ in range(_DEPTH):
        if not host:
            break
        executable(host)
        needed = elf.interpreter(host)
        if not needed.startswith("/"):
            break
        host = _needed(root, program, needed, mounts)


def _needed(root: str, program: str, needed: str, mounts: Sequence[tuple[str, str]]) -> str:
    host = paths.resolve(root, needed, mounts)
    if host and not os.path.exists(host):
        raise errors.CommandNotFound(
            f'exec: "{program}": no such file or directory: its interpreter {needed} is missing',
            kind="command",
            ref=program,
            hint="the program needs an image with that interpreter or C library",
        )
    return host
