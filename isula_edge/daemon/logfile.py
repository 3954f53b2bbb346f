"""Where the daemon's own messages go: a file with rotation, syslog, or standard streams."""

from __future__ import annotations

import contextlib
import gzip
import logging
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

from isula_edge.oci import values

if TYPE_CHECKING:
    from isula_edge.daemon.config import DaemonConfig

__all__ = ["set_level", "set_up"]

_LEVELS = {
    "FATAL": logging.CRITICAL,
    "ALERT": logging.CRITICAL,
    "CRIT": logging.CRITICAL,
    "ERROR": logging.ERROR,
    "WARN": logging.WARNING,
    "NOTICE": logging.INFO,
    "INFO": logging.INFO,
    "DEBUG": logging.DEBUG,
    "TRACE": logging.DEBUG,
}
_FORMAT = "isulad %(asctime)s.%(msecs)03d %(levelname)s %(name)s - %(message)s"


def set_up(config: DaemonConfig) -> None:
    """Sends messages where ``config`` says; raises OSError when that cannot be opened."""
    root = logging.getLogger()
    handler = _handler(config)
    if config.log_driver == "syslog":
        handler.setFormatter(logging.Formatter("isulad[%(process)d]: %(name)s: %(message)s"))
    else:
        handler.setFormatter(logging.Formatter(_FORMAT, "%Y-%m-%dT%H:%M:%S"))
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    set_level(config.log_level)


def set_level(level: str) -> None:
    """How much is logged, in iSulad's words."""
    logging.getLogger().setLevel(_LEVELS[level])


def _handler(config: DaemonConfig) -> logging.Handler:
    if config.log_driver in ("stdout", "stderr"):
        return logging.StreamHandler(sys.stdout if config.log_driver == "stdout" else sys.stderr)
    from logging import handlers

    if config.log_driver == "syslog":
        facility = handlers.SysLogHandler.LOG_DAEMON
        return handlers.SysLogHandler("/dev/log", facility=facility)
    options = config.log_options
    folder = options.get("log-path") or config.engine.graph
    os.makedirs(folder, 0o711, exist_ok=True)
    path = f"{folder}/isulad.log"
    mode = int(options.get("log-file-mode", "0600"), 8)

    class File(handlers.RotatingFileHandler):
        """Keeps its mode; with no older files it begins anew when it is full."""

        def doRollover(self) -> None:  # noqa: N802  # logging's own name
            if self.backupCount < 1:
                os.truncate(self.baseFilename, 0)
            else:
                super().doRollover()

        def _open(self) -> Any:
            os.close(os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, mode))
            return super()._open()

    handler = File(
        path,
        maxBytes=values.parse_size("max-size", options.get("max-size", "1MB")),
        backupCount=int(options.get("max-file", "7")) - 1,
        encoding="utf-8",
        errors="backslashreplace",
    )
    handler.namer = lambda name: f"{name}.gz"
    handler.rotator = lambda source, target: _compress(source, target, mode)
    return handler


def _compress(source: str, target: str, mode: int) -> None:
    """Puts a full log file aside; without space for that it is dropped, not the engine."""
    try:
        with open(source, "rb") as plain, gzip.open(target, "wb", 6) as packed:
            shutil.copyfileobj(plain, packed)
        os.chmod(target, mode)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(target)
    os.unlink(source)
