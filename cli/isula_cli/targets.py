"""Commands that do one thing to each of several containers or images."""

from __future__ import annotations

__all__ = ["audit", "for_each"]

from isula_cli.parser import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from isula_cli.context import Context

_MOST = 1000


def for_each(
    ctx: Context, names: list[str], act: Callable[[str], object], *, echo: str = ""
) -> int:
    """Call ``act`` for every name, going on after a refusal: 0, or 1 when one was refused.

    ``echo`` is a format of one ``%s``, printed for each name that succeeded.
    """
    if len(names) > _MOST:
        raise UsageError(f"You specify too many containers or images, {_MOST} at most", 1)
    failed = 0
    for name in names:
        try:
            act(name)
        except Exception as error:
            from isula_edge.errors import EngineError

            if not isinstance(error, EngineError) or error.kind == "daemon":
                raise
            ctx.report(error)
            failed = 1
            continue
        if echo:
            ctx.out(echo % name)
    return failed


def audit(command: str, names: list[str]) -> None:
    """Say in syslog who asked for ``command``: parent's pid and command line."""
    import posix
    import syslog

    parent = posix.getppid()
    try:
        with open(f"/proc/{parent}/cmdline", "rb") as file:
            words = file.read(4096).rstrip(b"\0").replace(b"\0", b" ")
    except OSError:
        words = b"?"
    caller = words.decode("utf-8", "replace")
    what = f"{command} {' '.join(names)}".encode("utf-8", "replace").decode()
    syslog.openlog("isulad-client", syslog.LOG_PID, syslog.LOG_USER)
    syslog.syslog(syslog.LOG_DEBUG, f"{what}: asked by pid {parent}: {caller}")
