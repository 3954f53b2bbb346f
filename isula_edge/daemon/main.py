"""The ``isulad`` program."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

_TLS = "ISULAD_TLS"
if not os.environ.get(_TLS):
    # asyncio would load it, and nothing in the daemon speaks TLS but streams of the CRI, if told
    sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]

import asyncio

from isula_edge import errors
from isula_edge.daemon import config as settings
from isula_edge.daemon import logfile, methods, sockets
from isula_edge.daemon.cri import CriGate
from isula_edge.daemon.server import Server
from isula_edge.service.engine import Engine
from isula_edge.sys.notify import notify
from isula_edge.sys.sandbox import refused_as_absent
from isula_edge.version import VERSION

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from isula_edge.daemon.config import DaemonConfig

__all__ = ["main"]

_log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the daemon until it is told to end: the exit status."""
    options = settings.parse_arguments(sys.argv[1:] if argv is None else argv)
    try:
        config = settings.load(options)
        if options.validate:
            return _validate(config, options)
        if os.geteuid() != 0:
            raise errors.PermissionDenied("isulad must be run as root")
        os.umask(0o022)
        _with_tls(config)
        lock = _pid_file(config.pidfile)
        try:
            logfile.set_up(config)
            _settle_sandbox()
            return asyncio.run(_Daemon(config, options).run())
        finally:
            with contextlib.suppress(OSError):
                os.unlink(config.pidfile)
            os.close(lock)
    except errors.EngineError as error:
        _refuse(error)
    except OSError as error:
        _refuse(errors.Internal(str(error)))
    return 1


def _with_tls(config: DaemonConfig) -> None:
    """Begins anew where streams want TLS, this time with it; the process stays the same."""
    if config.engine.cri.stream_cert and not os.environ.get(_TLS):
        os.environ[_TLS] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _settle_sandbox() -> None:
    """Before there is a thread: the C library may not be able to start one otherwise."""
    try:
        names = refused_as_absent()
    except OSError as error:
        _log.warning("system calls that answer EPERM stay as they are: %s", error)
        return
    if names:
        _log.info("a sandbox refuses %s; programs see them as absent", ", ".join(names))


def _refuse(error: errors.EngineError) -> None:
    text = error.message + (f" ({error.hint})" if error.hint else "")
    _log.debug("ending: %s", text)
    print(f"isulad: {text}", file=sys.stderr)  # noqa: T201


def _validate(config: DaemonConfig, options: argparse.Namespace) -> int:
    for problem in config.problems:
        print(problem, file=sys.stderr)  # noqa: T201
    if not config.problems:
        print(f"{options.config or settings.DEFAULT_FILE}: no problems found")  # noqa: T201
    return 1 if config.problems else 0


def _pid_file(path: str) -> int:
    """Writes the process id into a locked file; FailedPrecondition when a daemon has it."""
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(fd, 32).decode(errors="replace").strip()
        os.close(fd)
        raise errors.FailedPrecondition(
            f"isulad runs already as process {holder}, {path} is locked"
        ) from None
    os.ftruncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode())
    return fd


class _Daemon:
    def __init__(self, config: DaemonConfig, options: argparse.Namespace) -> None:
        self._config = config
        self._options = options
        self._end = asyncio.Event()

    async def run(self) -> int:
        """Serves until SIGTERM or SIGINT: the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        for number in (signal.SIGUSR1, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        self._warn()
        listening = sockets.listen(self._config.hosts, self._config.group)
        engine = gate = None
        try:
            engine = self._engine = await Engine.open(self._config.engine)
            # supervisors leave a file "oom" where they are started
            os.chdir(self._config.engine.state)
            gate = CriGate(engine, sockets.group_id(self._config.group))
            if self._config.engine.cri.eager:
                await gate.open()
            server = Server(lambda *request: methods.call(engine, *request), gate.hand_over)
            for sock in listening:
                await server.listen(sock)
            gc.collect()
            gc.freeze()
            notify("READY=1", f"STATUS=serving on {', '.join(self._config.hosts)}")
            _log.info("isulad %s serves on %s", VERSION, ", ".join(self._config.hosts))
            await self._end.wait()
            _log.info("isulad ends; containers go on")
            notify("STOPPING=1")
            await server.close()
        finally:
            if gate is not None:
                await gate.close()
            if engine is not None:
                await engine.close()
            sockets.remove(listening)
        return 0

    def _warn(self) -> None:
        if self._config.problems:
            _log.warning("%s", "; ".join(self._config.problems))

    def _reload(self) -> None:
        """SIGHUP: mirrors, insecure registries and the log level are read again."""
        notify("RELOADING=1", f"MONOTONIC_USEC={int(loop_time() * 1e6)}")
        try:
            fresh = settings.load(self._options)
            self._config = settings.reloaded(self._config, fresh)
            self._engine.reconfigure(self._config.engine)
            logfile.set_level(self._config.log_level)
            self._warn()
            _log.info("the settings were read again")
        except errors.EngineError as error:
            _log.error("the settings stay as they were: %s", error)
        notify("READY=1")


def loop_time() -> float:
    """CLOCK_MONOTONIC in seconds, as sd_notify(3) wants it."""
    return asyncio.get_running_loop().time()


if __name__ == "__main__":
    sys.exit(main())
