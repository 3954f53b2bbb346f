"""OCI hooks for a runtime that has none of its own (runtime-spec, config: POSIX-platform hooks).

Each hook gets the container's state as JSON on standard input, exactly its own arguments
and environment, and its own time-out.
"""

from __future__ import annotations

import json
import os
import shlex
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.sys import atomic

if TYPE_CHECKING:
    from isula_edge.runtime.base import Bundle
    from isula_edge.sys.process import Reaper

__all__ = ["lxc_hook", "run_hooks"]

_BEFORE = ("prestart", "createRuntime")
_INSIDE = ("createContainer", "startContainer")
_DEFAULT_TIMEOUT_S = 120


def _state(bundle: Bundle, status: str, pid: str) -> str:
    state = {
        "ociVersion": bundle.spec.get("ociVersion", "1.0.2"),
        "id": bundle.id,
        "status": status,
        "pid": 0,
        "bundle": bundle.dir,
        "annotations": bundle.spec.get("annotations") or {},
    }
    return json.dumps(state).replace('"pid": 0', f'"pid": {pid}', 1)


def _hooks(bundle: Bundle, *names: str) -> list[dict[str, Any]]:
    table = bundle.spec.get("hooks") or {}
    return [hook for name in names for hook in table.get(name) or ()]


def _command(hook: dict[str, Any]) -> list[str]:
    seconds = str(hook.get("timeout") or _DEFAULT_TIMEOUT_S)
    args = list(hook.get("args") or [hook["path"]])
    # env -i: a hook sees just the variables that are listed for it
    return [
        "/usr/bin/env", "-i", *(hook.get("env") or ()),
        "/usr/bin/timeout", "-s", "KILL", seconds, hook["path"], *args[1:],
    ]  # fmt: skip


def lxc_hook(bundle: Bundle, path: str) -> str:
    """Configuration line for the hooks that run before the process, their script at ``path``.

    LXC runs a ``start-host`` hook in the host's namespaces once those of the container exist,
    which is what OCI asks of prestart and createRuntime.  Hooks that run inside the container
    are refused.
    """
    inside = _hooks(bundle, *_INSIDE)
    if inside:
        raise errors.Unimplemented(
            "runtime lxc runs no createContainer or startContainer hooks",
            kind="hook",
            ref=str(inside[0].get("path", "")),
            hint="use --runtime runc",
        )
    before = _hooks(bundle, *_BEFORE)
    if not before:
        return ""
    state = shlex.quote(_state(bundle, "created", "PID"))
    lines = [
        "#!/bin/sh",
        f'state=$(printf \'%s\' {state} | sed "s/\\"pid\\": PID/\\"pid\\": ${{LXC_PID:-0}}/")',
    ]
    for hook in before:
        name, log = shlex.quote(hook["path"]), f"{shlex.quote(path)}.err"
        lines += [
            f"printf '%s' \"$state\" | {shlex.join(_command(hook))} 2>>{log}",
            f"code=$?; [ $code = 0 ] || {{ echo {name} failed with $code >>{log}; exit $code; }}",
        ]
    atomic.write(path, ("\n".join(lines) + "\n").encode(), 0o700, durable=False)
    return f"lxc.hook.start-host = {path}\n"


async def run_hooks(bundle: Bundle, name: str, status: str, pid: int, reaper: Reaper) -> list[str]:
    """Runs the hooks ``name`` one after another; what went wrong, one text per hook.

    Used for poststart and poststop, whose failures are logged and change nothing.
    """
    problems = []
    for hook in _hooks(bundle, name):
        if not os.access(hook["path"], os.X_OK):
            problems.append(f"{name} hook {hook['path']} cannot be executed: permission denied")
            continue
        seconds = float(hook.get("timeout") or _DEFAULT_TIMEOUT_S) + 5
        try:
            code, _, err = await reaper.run(
                _command(hook), data=_state(bundle, status, str(pid)).encode(), timeout_s=seconds
            )
        except TimeoutError:
            problems.append(f"{name} hook {hook['path']} did not end")
            continue
        if code:
            words = err.decode(errors="replace").strip()
            problems.append(f"{name} hook {hook['path']} failed with status {code}: {words}")
    return problems
