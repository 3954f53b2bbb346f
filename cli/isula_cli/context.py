"""What a command works with: the connection to the daemon, and output to fds 1 and 2.

Output goes straight to the file descriptors, not through ``sys.stdout``: bytes are
written as they are, nothing is left to flush at the end, and a closed standard output
is :class:`BrokenPipeError` where it happens.
"""

from __future__ import annotations

__all__ = ["Context", "report_error", "shown", "write_all", "write_error"]

import posix

from isula_edge.client import Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from isula_edge.errors import EngineError


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data``, also to a descriptor that somebody made non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[posix.write(fd, view) :]
        except BlockingIOError:
            import select

            poller = select.poll()
            poller.register(fd, select.POLLOUT)
            poller.poll()


class Context:
    """One run of one command.

    ``engine_exit`` is the exit status of an engine error that has none of its own.
    """

    def __init__(self, host: str, engine_exit: int = 1) -> None:
        self.client = Client(host)
        self.engine_exit = engine_exit

    def out(self, text: str) -> None:
        """Write ``text`` to standard output."""
        write_all(1, text.encode("utf-8", "surrogateescape"))

    def err(self, text: str) -> None:
        """Write ``text``, as :func:`shown` makes it, to standard error."""
        write_error(shown(text))

    def report(self, error: EngineError) -> int:
        """Show an error of the engine: the exit status that goes with it."""
        return report_error(error, self.engine_exit)


def shown(text: str, keep: str = "\n") -> str:
    """``text`` for a terminal: what moves the cursor or changes colours is spelt out.

    Names, registries' answers and paths are what others chose.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else ascii(char)[1:-1] for char in text
    )


def write_error(text: str) -> None:
    """Write ``text`` to standard error; a closed one is no reason to fail."""
    try:
        write_all(2, text.encode("utf-8", "surrogateescape"))
    except OSError:
        return


def report_error(error: EngineError, engine_exit: int) -> int:
    """Show an error of the engine: its exit status, ``engine_exit`` when it has no own."""
    prefix = "" if error.kind == "daemon" else "Error response from daemon: "
    text = f"{prefix}{error.message}\n"
    if error.hint:
        text += f"Hint: {error.hint}\n"
    write_error(shown(text))
    return error.exit_status if error.exit_status != 1 else engine_exit
