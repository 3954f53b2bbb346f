"""OCI hooks, for a runtime that has none of its own (runtime-spec, config: POSIX-platform hooks).

Each hook gets the container's state as JSON on standard input, exactly its own arguments
and environment, and its own time-out: without one it is killed after two minutes, so that a
hook which hangs cannot hold a container for ever.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from isula_edge.runtime.program import one_line

if TYPE_CHECKING:
    from isula_edge.runtime.base import Bundle
    from isula_edge.sys.process import Reaper

__all__ = ["command", "listed", "patience", "run_hooks", "seconds", "state", "variables"]

_DEFAULT_TIMEOUT_S = 120


def state(bundle: Bundle, status: str, pid: str) -> str:
    """The state of a container as JSON (runtime-spec, State), with the text ``pid`` as its pid."""
    found = {
        "ociVersion": bundle.spec.get("ociVersion", "1.0.2"),
        "id": bundle.id,
        "status": status,
        "pid": 0,
        "bundle": bundle.dir,
        "annotations": bundle.spec.get("annotations") or {},
    }
    return json.dumps(found).replace('"pid": 0', f'"pid": {pid}', 1)


def listed(bundle: Bundle, *names: str) -> list[dict[str, Any]]:
    """The hooks under these names of the runtime-spec, in order."""
    table = bundle.spec.get("hooks") or {}
    return [hook for name in names for hook in table.get(name) or ()]


def variables(hook: dict[str, Any]) -> list[str]:
    """``NAME=VALUE`` of a hook; without a name it would be a program to env(1)."""
    return [pair for pair in hook.get("env") or () if pair.find("=") > 0]


def seconds(hook: dict[str, Any]) -> int:
    """How long a hook may take."""
    return hook.get("timeout") or _DEFAULT_TIMEOUT_S


def command(hook: dict[str, Any]) -> list[str]:
    """What runs a hook on the host: with its own variables alone, and its time-out."""
    args = list(hook.get("args") or [hook["path"]])
    # env -i: a hook sees just the variables that are listed for it
    return [
        "/usr/bin/env", "-i", "--", *variables(hook),
        "/usr/bin/timeout", "-s", "KILL", str(seconds(hook)), hook["path"], *args[1:],
    ]  # fmt: skip


def patience(bundle: Bundle) -> float:
    """Seconds that the hooks of a start were allowed to take, beyond what a start may take."""
    kinds = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart")
    return float(sum(hook.get("timeout") or 0 for hook in listed(bundle, *kinds)))


async def run_hooks(bundle: Bundle, name: str, status: str, pid: int, reaper: Reaper) -> list[str]:
    """Runs the hooks ``name`` one after another; what went wrong, one text per hook.

    Used for poststart and poststop, whose failures are logged and change nothing.
    """
    problems = []
    for hook in listed(bundle, name):
        if not os.access(hook["path"], os.X_OK):
            problems.append(f"{name} hook {hook['path']} cannot be executed: permission denied")
            continue
        try:
            code, _, err = await reaper.run(
                command(hook),
                data=state(bundle, status, str(pid)).encode(),
                timeout_s=seconds(hook) + 5.0,
                group=True,
            )
        except TimeoutError:
            problems.append(f"{name} hook {hook['path']} did not end")
            continue
        if code:
            words = one_line(err.decode(errors="replace"))
            problems.append(f"{name} hook {hook['path']} failed with status {code}: {words}")
    return problems
