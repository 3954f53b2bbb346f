"""Plugins that are installed on the machine: found by name, started with a socket."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isula_cri.nri.plugin import INDEX, NAME
from isula_edge.sys.process import identify, signal_process, spawn

if TYPE_CHECKING:
    from isula_edge.sys.process import Identity, Reaper

__all__ = ["Installed", "end", "find", "launch"]

_log = logging.getLogger(__name__)
_SOCKET = 3
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Installed:
    """A program ``INDEX-NAME`` of the plugins' directory, and its configuration."""

    path: str
    index: str
    name: str
    config: str


def find(plugin_dir: str, config_dir: str) -> list[Installed]:
    """The plugins in ``plugin_dir``, in order; one that cannot be used is logged."""
    found = []
    try:
        names = sorted(os.listdir(plugin_dir))
    except FileNotFoundError:
        return []
    except OSError as error:
        _log.error("NRI: %s cannot be read: %s", plugin_dir, error)
        return []
    for file in names:
        path = f"{plugin_dir}/{file}"
        if not os.path.isfile(path) or not os.access(path, os.X_OK):
            continue
        index, _, name = file.partition("-")
        if not INDEX.fullmatch(index) or not NAME.fullmatch(name):
            _log.error("NRI: %s is left out: plugins are called NN-NAME", path)
            continue
        try:
            found.append(Installed(path, index, name, _config(config_dir, file, name)))
        except (OSError, UnicodeDecodeError) as error:
            _log.error("NRI: %s is left out: its configuration cannot be read: %s", path, error)
    return found


def _config(config_dir: str, *names: str) -> str:
    for name in names:
        try:
            with open(f"{config_dir}/{name}.conf", encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            continue
    return ""


async def launch(
    plugin: Installed, reaper: Reaper
) -> tuple[Identity | None, tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """The process of ``plugin``, and our end of its socket.  Raises OSError."""
    ours, theirs = socket.socketpair()
    try:
        env = {
            "PATH": _PATH,
            "NRI_PLUGIN_NAME": plugin.name,
            "NRI_PLUGIN_IDX": plugin.index,
            "NRI_PLUGIN_SOCKET": str(_SOCKET),
        }
        pid = reaper.spawned(spawn([plugin.path], fds={_SOCKET: theirs.fileno()}, env=env))
        ours.setblocking(False)
        return identify(pid), await asyncio.open_unix_connection(sock=ours)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()


def end(process: Identity | None) -> None:
    """Kills a plugin's process."""
    if process is not None:
        signal_process(process, signal.SIGKILL)
