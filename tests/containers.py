"""What tests of containers ask an engine for, in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.rig import until

if TYPE_CHECKING:
    from tests.rig import Engine

__all__ = ["logged", "run", "script"]


def run(engine: Engine, runtime: str, name: str, *words: str) -> str:
    """Starts a container that goes on by itself; its id."""
    return engine.ok("run", "-d", "--name", name, "--runtime", runtime, *words)


def script(engine: Engine, runtime: str, name: str, text: str, *flags: str) -> str:
    """Starts a container that runs a script of busybox's shell; its id."""
    return run(engine, runtime, name, *flags, "busybox", "sh", "-c", text)


def logged(engine: Engine, name: str, text: str) -> None:
    """Waits until ``text`` stands in the container's log."""
    until(lambda: text in engine.ok("logs", name), f"{text!r} in the log of {name}")
