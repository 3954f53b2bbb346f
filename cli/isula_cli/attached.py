"""Joining a container that exists already: ``start -a`` and ``attach``.

Whether it has a terminal and reads standard input is asked for first.
"""

from __future__ import annotations

__all__ = ["join", "start"]

import posix

from isula_cli import relay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context


def start(ctx: Context, ref: str, options: dict[str, Any]) -> int:
    """Start ``ref`` and stay with it: its exit code."""
    config = _config(ctx, ref)
    tty = bool(config.get("Tty"))
    stdin = bool(options.get("interactive") or config.get("OpenStdin", tty))
    params = {"ref": ref, "attach": True, **relay.parameters(stdin=stdin, tty=tty)}
    return _relay(ctx, "container.start", params, options, tty=tty)


def join(ctx: Context, ref: str, options: dict[str, Any]) -> int:
    """Join ``ref``, which runs: its exit code when it ends, 0 when the user leaves."""
    container = ctx.client.inspect(ref, kind="container")["object"]
    config: dict[str, Any] = container.get("Config") or {}
    state = container.get("State") or {}
    tty = bool(config.get("Tty"))
    stdin = bool(config.get("OpenStdin", True)) and not options.get("no-stdin")
    # what does not run is the engine's to refuse
    if tty and stdin and state.get("Running") and not posix.isatty(0):
        ctx.err("the input device is not a TTY\n")
        return 1
    params = {"ref": ref, **relay.parameters(stdin=stdin, tty=tty)}
    return _relay(ctx, "container.attach", params, options, tty=tty)


def _config(ctx: Context, ref: str) -> dict[str, Any]:
    config: dict[str, Any] = ctx.client.inspect(ref, kind="container")["object"].get("Config") or {}
    return config


def _relay(
    ctx: Context, method: str, params: dict[str, Any], options: dict[str, Any], *, tty: bool
) -> int:
    return relay.attach(
        ctx.client.stream(method, params),
        stdin=params["stdin"],
        tty=tty,
        keys=options.get("detach-keys", ""),
        proxy=bool(options.get("sig-proxy", True)),
    )
