"""The registry that all engines pull from, on the loopback of the sandbox."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import urllib.request
from typing import TYPE_CHECKING

from benchmarks import process
from benchmarks.engines import PATH, EngineError, find

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["CUTTING", "PLAIN", "Registry"]

PLAIN = "127.0.0.1:5000"
CUTTING = "127.0.0.1:5001"
"""The same registry behind :mod:`benchmarks.cutting`."""
_CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}}}
http: {{addr: "{address}", secret: benchmarks}}
"""
_START_S = 30.0
_PUSH_S = 300.0


class Registry:
    """Debian's docker-registry and, before it, a proxy that cuts connections."""

    def __init__(self, folder: Path, programs: Mapping[str, str]) -> None:
        folder.mkdir(parents=True)
        self._folder, self._programs = folder, programs
        self.pids: list[int] = []

    def start(self) -> None:
        """Starts both and waits until they answer."""
        config = self._folder / "registry.yml"
        config.write_text(_CONFIG.format(folder=self._folder, address=PLAIN))
        registry = find("docker-registry", self._programs)
        self._spawn((registry, "serve", str(config)), PLAIN)
        self._spawn((sys.executable, "-m", "benchmarks.cutting", CUTTING, PLAIN), CUTTING)

    def _spawn(self, argv: Sequence[str], address: str) -> None:
        log = str(self._folder / "log")
        pid = process.spawn(argv, {**os.environ, "PATH": PATH}, log, log)
        self.pids.append(pid)
        host, _, port = address.partition(":")
        deadline = time.monotonic() + _START_S
        while True:
            try:
                socket.create_connection((host, int(port)), 1).close()
                return
            except OSError as error:
                if process.wait_for(pid, 0.1) is not None or time.monotonic() > deadline:
                    raise EngineError(f"{argv[0]} does not answer on {address}") from error

    def push(self, layout: Path, name: str) -> None:
        """Gives it the image ``latest`` of an OCI layout."""
        argv = (
            *(find("skopeo", self._programs), "--insecure-policy", "copy", "-q"),
            *("--dest-tls-verify=false", f"oci:{layout}:latest", f"docker://{PLAIN}/{name}:latest"),
        )
        done = process.capture(argv, {"PATH": PATH, "HOME": str(self._folder)}, _PUSH_S)
        if done.status != 0:
            raise EngineError(f"{' '.join(argv)}: {done.err.strip()}")

    def cut(self, *parts: float) -> None:
        """From now on each blob's connection is cut at these parts of the blob, once each."""
        _get(f"http://{CUTTING}/bench/cut/{','.join(map(str, parts))}")

    def sent_bytes(self) -> int:
        """Bytes of blobs that went over the proxy's connections since :meth:`cut`."""
        return int(_get(f"http://{CUTTING}/bench/sent"))

    def stop(self) -> None:
        """Ends both."""
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
            process.wait_for(pid, _START_S)
        self.pids.clear()


def _get(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=_START_S) as answer:
        return str(answer.read(), "ascii")
