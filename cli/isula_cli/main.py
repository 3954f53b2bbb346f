"""Entry point of ``isula``: find the command, read its flags, run it.

What succeeds goes through here without loading click; ``--help``, completion and
mistakes on the command line are handed to :mod:`isula_cli.clickui`.
"""

from __future__ import annotations

__all__ = ["main"]

import posix
import sys

from isula_cli.commands import COMMANDS, COMMON, GROUPS, module_name
from isula_cli.parser import HelpRequested, UsageError, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
_COMPLETION = b"_ISULA_COMPLETE"


def main(argv: list[str] | None = None) -> int:
    """Run ``isula`` with the words after the program's name: the exit status."""
    open_standard_descriptors()
    try:
        return _dispatch(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return EXIT_BROKEN_PIPE


def open_standard_descriptors() -> None:
    """Open /dev/null for those of fds 0-2 that are closed, so that no socket lands there."""
    for fd in (0, 1, 2):
        try:
            posix.fstat(fd)
        except OSError:
            posix.open("/dev/null", posix.O_RDWR)
            posix.set_inheritable(fd, True)


def _dispatch(argv: list[str]) -> int:
    if _COMPLETION in posix.environ:
        from isula_cli import clickui

        return clickui.complete()
    argv, name = _command_name(argv)
    if name in GROUPS:
        argv, word = _command_name(argv)
        if f"{name} {word}" not in COMMANDS:
            from isula_cli import clickui

            return clickui.group_level(name, [word, *argv] if word else argv)
        name = f"{name} {word}"
    if name not in COMMANDS:
        from isula_cli import clickui

        return clickui.top_level([name, *argv] if name else argv)
    module: ModuleType = __import__(module_name(name), fromlist=["run"])
    try:
        options, args = parse(module, argv)
        host = _host(options)
    except HelpRequested:
        from isula_cli import clickui

        return clickui.command_help(name)
    except UsageError as error:
        from isula_cli import clickui

        return clickui.usage_error(name, error)
    return _run(module, name, host, options, args)


def _command_name(argv: list[str]) -> tuple[list[str], str]:
    """The words without the command, and the command; flags of every command may precede it."""
    if not argv or argv[0][:1] != "-":
        return argv[1:], argv[0] if argv else ""
    takes_value = {"-" + row[1] for row in COMMON if row[1] and row[2] != "bool"}
    takes_value |= {"--" + row[0] for row in COMMON if row[2] != "bool"}
    at = 0
    while at < len(argv) and argv[at][:1] == "-":
        word = argv[at].partition("=")[0]
        if word[2:] not in {row[0] for row in COMMON} and word[1:] not in {r[1] for r in COMMON}:
            return argv, ""
        at += 2 if argv[at] in takes_value else 1
    return argv[:at] + argv[at + 1 :], "".join(argv[at : at + 1])


def _host(options: dict[str, Any]) -> str:
    host: str = options.get("host") or ""
    if not host:
        host = posix.environ.get(b"ISULAD_HOST", b"").decode("utf-8", "surrogateescape")
    if options.get("tls") or options.get("tlsverify"):
        raise UsageError("TLS is not supported by this client yet: use a unix:// socket")
    return host or "unix:///var/run/isulad.sock"


def _run(module: ModuleType, name: str, host: str, options: dict[str, Any], args: list[str]) -> int:
    from isula_cli.context import Context

    engine_exit: int = getattr(module, "ENGINE_EXIT", 1)
    try:
        status: int = module.run(Context(host, engine_exit), options, args)
    except UsageError as error:
        from isula_cli import clickui

        return clickui.usage_error(name, error)
    except (KeyboardInterrupt, BrokenPipeError):
        raise
    except Exception as error:  # noqa: BLE001 - the outermost loop of the program
        return _failed(error, engine_exit, debug=bool(options.get("debug")))
    return status


def _failed(error: Exception, engine_exit: int, *, debug: bool) -> int:
    from isula_cli.context import report_error, write_error
    from isula_edge.errors import EngineError

    if isinstance(error, EngineError):
        return report_error(error, engine_exit)
    if debug:
        raise error
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        write_error(f"isula: {where}{error.strerror}\n")
    else:
        kind = type(error).__name__
        write_error(f"isula: {kind}: {error} (a bug of the client; -D shows where)\n")
    return engine_exit
