"""The commands that are timed, in the order in which one container after another meets them."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from benchmarks.process import Step

if TYPE_CHECKING:
    from benchmarks.config import Config
    from benchmarks.engines import Engine

__all__ = ["OPERATIONS", "chain"]

OPERATIONS = {
    "version": "the client's start, which every other figure contains",
    "create -t": "ptcr's Create of today",
    "start": "of a shell with a terminal, which goes on running",
    "exec true": "",
    "kill": "",
    "stop -t 0": "of a running container",
    "rm": "of a stopped container",
    "create": "ptcr's Create as published: without a terminal",
    "start, ends": "ptcr's Start as published: the shell ends at once",
    "stop, ended": "ptcr's Stop as published: the container has ended already",
    "rm -f, ended": "ptcr's Remove as published",
    "run -d": "ptcr's Run",
    "rm -f": "of a running container, killed at once",
    "run --rm echo": "until the container has ended and is gone",
}
"""Every operation that has figures, and a remark."""


def chain(engine: Engine, config: Config) -> list[Step]:
    """All commands on three new containers and a transient one; every chain has equal steps."""
    tty, plain, detached = (secrets.token_hex(8) for _ in range(3))
    flags, image = engine.create_flags, config.image_name
    time_out = str(config.time_out)
    steps: list[tuple[str | None, tuple[str, ...]]] = [
        ("version", ("version",)),
        ("create -t", ("create", "-t", "--name", tty, *flags, image)),
        ("start", ("start", tty)),
        ("exec true", ("exec", tty, "true")),
        ("kill", ("kill", tty)),
        # podman does not wait for what it has killed
        (None, ("wait", tty)),
        (None, ("start", tty)),
        ("stop -t 0", ("stop", "-t", "0", tty)),
        ("rm", ("rm", tty)),
        ("create", ("create", "--name", plain, *flags, image)),
        ("start, ends", ("start", plain)),
        (None, ("wait", plain)),
        ("stop, ended", ("stop", "--time", time_out, plain)),
        ("rm -f, ended", ("rm", "-f", plain)),
        ("run -d", ("run", "--name", detached, "-d", *flags, image, *config.start_cmd)),
        ("rm -f", (*engine.force, detached)),
        ("run --rm echo", ("run", "--rm", *flags, image, "echo", "hello")),
    ]
    return [Step(operation, engine.words(*words)) for operation, words in steps]
