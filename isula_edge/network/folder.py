"""The directory of network configurations, always as it is now.

It need not exist, and may be replaced as a whole: the nearest parent that exists is watched
too.  inotify only makes news known at once; whoever asks gets what the files hold at that
moment, since their modification times are compared first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
from functools import partial
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.network import config
from isula_edge.sys import syscalls

if TYPE_CHECKING:
    from isula_edge.network.config import NetworkConf
    from isula_edge.sys.inotify import Watcher

__all__ = ["ConfFolder"]

log = logging.getLogger(__name__)

_ENDINGS = (".conf", ".conflist", ".json")
_MOST_FILES = 1024
_LARGEST = 1 << 20
_SETTLE_S = 0.05
_MASK = (
    syscalls.IN_CREATE
    | syscalls.IN_CLOSE_WRITE
    | syscalls.IN_MOVED_FROM
    | syscalls.IN_MOVED_TO
    | syscalls.IN_DELETE
    | syscalls.IN_DELETE_SELF
    | syscalls.IN_MOVE_SELF
)

_Stamp = tuple[int, int, int, int]


def _stamp(path: str) -> _Stamp | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


class ConfFolder:
    """Networks of a directory's files, in ascending order of the files' names.

    Files that cannot be used are skipped, with one warning for each of their states.
    """

    def __init__(self, path: str, watcher: Watcher | None = None) -> None:
        self.path = os.path.abspath(path)
        self._watcher = watcher
        self._watches: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._networks: tuple[NetworkConf, ...] = ()
        # everything that was looked at, as it was then
        self._seen: dict[str, _Stamp | None] = {}
        self._told: dict[str, _Stamp | None] = {}
        self._arm()

    def networks(self) -> tuple[NetworkConf, ...]:
        """All valid networks, those of ``isula network`` too."""
        if not self._seen or any(_stamp(path) != was for path, was in self._seen.items()):
            self._load()
        return self._networks

    def close(self) -> None:
        """Ends the watches."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._disarm()
        self._watcher = None

    # watching

    def _arm(self) -> None:
        self._disarm()
        if self._watcher is None:
            return
        with contextlib.suppress(OSError):
            self._watches.append(self._watcher.add(self.path, _MASK, self._changed))
        child = self.path
        while child != "/":
            parent, name = os.path.split(child)
            try:
                watch = self._watcher.add(parent, _MASK, partial(self._above, name))
            except OSError:
                child = parent
                continue
            self._watches.append(watch)
            break

    def _disarm(self) -> None:
        if self._watcher is not None:
            for watch in self._watches:
                self._watcher.remove(watch)
        self._watches = []

    def _above(self, name: str, seen: str) -> None:
        # '' is the parent itself, gone or renamed
        if seen in ("", name):
            self._changed(seen)

    def _changed(self, _name: str) -> None:
        # two writes within the clock's tick leave the same modification time
        self._seen = {}
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SETTLE_S, self._settled)

    def _settled(self) -> None:
        self._timer = None
        self._arm()
        self.networks()

    # loading

    def _load(self) -> None:
        self._seen = {self.path: _stamp(self.path)}
        found: dict[str, NetworkConf] = {}
        for name in self._names():
            path = f"{self.path}/{name}"
            self._seen[path] = _stamp(path)
            try:
                network = self._read(name, path)
            except (errors.EngineError, OSError) as error:
                self._warn(path, str(error))
                continue
            if network is None:
                continue
            if network.name in found:
                self._warn(path, f"{found[network.name].path} has a network of that name too")
                continue
            found[network.name] = network
            self._told.pop(path, None)
        if [*found] != [network.name for network in self._networks]:
            log.info("CNI networks of %s: %s", self.path, ", ".join(found) or "none")
        self._networks = tuple(found.values())
        self._told = {path: was for path, was in self._told.items() if path in self._seen}

    def _names(self) -> list[str]:
        try:
            names = sorted(name for name in os.listdir(self.path) if name.endswith(_ENDINGS))
        except OSError:
            return []
        if len(names) > _MOST_FILES:
            log.warning("only the first %d files of %s are read", _MOST_FILES, self.path)
        return names[:_MOST_FILES]

    def _read(self, name: str, path: str) -> NetworkConf | None:
        """The network of a file, None for a directory; raises InvalidArgument or OSError."""
        data = _content(path)
        if data is None:
            return None
        base, ending = os.path.splitext(name)
        raw = config.load_object(data, "the file")
        if ending != ".conflist":
            return config.parse_conf(raw, base, path)
        return config.parse_list(raw, base, path, self._others(raw, base))

    def _others(self, raw: dict[str, object], base: str) -> list[dict[str, object]]:
        """Plugins of the folder that is named after a list's network (CNI 1.1)."""
        if config.flag(raw, "loadOnlyInlinedPlugins"):
            return []
        network = raw.get("name", base)
        if not isinstance(network, str):
            return []
        config.check_name(network, "network name")
        folder = f"{self.path}/{network}"
        self._seen[folder] = _stamp(folder)
        try:
            names = sorted(name for name in os.listdir(folder) if name.endswith(".conf"))
        except OSError:
            return []
        plugins = []
        for name in names[:_MOST_FILES]:
            path = f"{folder}/{name}"
            self._seen[path] = _stamp(path)
            data = _content(path)
            if data is not None:
                plugins.append(config.parse_plugin(config.load_object(data, path)))
        return plugins

    def _warn(self, path: str, reason: str) -> None:
        was = self._seen.get(path)
        if path not in self._told or self._told[path] != was:
            log.warning("CNI configuration %s is not used: %s", path, reason)
            self._told[path] = was


def _content(path: str) -> bytes | None:
    """What a file holds, None for a directory; raises InvalidArgument or OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if stat.S_ISDIR(found.st_mode):
            return None
        if not stat.S_ISREG(found.st_mode):
            raise errors.InvalidArgument("it is no regular file")
        data = bytearray()
        while chunk := os.read(fd, 65536):
            data += chunk
            if len(data) > _LARGEST:
                raise errors.InvalidArgument(f"it is larger than {_LARGEST} bytes")
        return bytes(data)
    finally:
        os.close(fd)
