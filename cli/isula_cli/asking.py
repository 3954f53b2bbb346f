"""Questions to the user at the terminal, with or without echo, and secrets from a pipe."""

from __future__ import annotations

__all__ = ["ask", "read_all"]

import posix

from isula_cli.context import write_all

_LIMIT = 1 << 16


def ask(prompt: str, *, echo: bool = True) -> str:
    """The line that the user types on standard input, '' at its end; the terminal is restored."""
    # a prompt must not end in a file
    out = 1 if posix.isatty(1) else 2
    write_all(out, prompt.encode())
    if echo:
        return _line()
    import termios as t

    old = t.tcgetattr(0)
    silent = [*old[:3], old[3] & ~t.ECHO, *old[4:]]
    try:
        # not TCSAFLUSH: what was typed ahead is an answer too
        t.tcsetattr(0, t.TCSADRAIN, silent)
        return _line()
    finally:
        t.tcsetattr(0, t.TCSADRAIN, old)
        write_all(out, b"\n")


def read_all() -> str:
    """Standard input to its end, at most 64 KiB, without one line ending at the end."""
    data = bytearray()
    while len(data) < _LIMIT and (part := posix.read(0, _LIMIT)):
        data += part
    return data.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r")


def _line() -> str:
    data = bytearray()
    while len(data) < _LIMIT and (part := posix.read(0, 1)) and part != b"\n":
        data += part
    return data.decode("utf-8", "surrogateescape")
