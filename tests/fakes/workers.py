"""The daemon's side of an image worker, for tests that run it as a process."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

from isula_edge import errors, wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["WorkerProcess", "peak_rss_bytes"]


def peak_rss_bytes(pid: int) -> int:
    """VmHWM of a running process."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    raise LookupError(f"no VmHWM for {pid}")


class WorkerProcess:
    """Starts a worker with one request; ``held`` are the chain ids it need not bring."""

    def __init__(
        self,
        request: Mapping[str, Any],
        graph: Path,
        *,
        driver: str = "vfs",
        held: set[str] | None = None,
    ) -> None:
        self.events: list[dict[str, Any]] = []
        self._held = held or set()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "isula_edge.image.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[request["fd"]] if "fd" in request else [],
        )
        base = {"graph": str(graph), "driver": driver, "tmpdir": str(graph / "tmp")}
        self.send({**base, **request})

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *_error: object) -> None:
        guard = threading.Timer(20, self.process.kill)
        guard.start()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self.process.wait()
        guard.cancel()

    def send(self, frame: Mapping[str, Any]) -> None:
        """Writes a frame to the worker."""
        assert self.process.stdin is not None
        self.process.stdin.write(wire.pack(frame))
        self.process.stdin.flush()

    def hang_up(self) -> None:
        """Ends the worker's standard input, as the end of the daemon does."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def frames(self) -> Iterator[dict[str, Any]]:
        """What the worker sends, as it comes."""
        out = self.process.stdout
        assert out is not None
        while head := out.read(4):
            frame = wire.decode(out.read(int.from_bytes(head, "big")))
            self.events.append(frame)
            yield frame

    def until(self, key: str) -> Any:
        """The value of the next event with ``key``, answering what the worker asks."""
        for frame in self.frames():
            if "need" in frame and key != "need":
                self.send({"have": [item for item in frame["need"] if item in self._held]})
            if key in frame:
                return frame[key]
        raise AssertionError(f"no {key} in {self.events[-5:]}")

    def result(self) -> dict[str, Any]:
        """The result; raises the error that the worker ends with instead."""
        for frame in self.frames():
            if "need" in frame:
                self.send({"have": [item for item in frame["need"] if item in self._held]})
            if "x" in frame:
                raise errors.from_wire(frame["x"])
            if "r" in frame:
                assert isinstance(frame["r"], dict)
                return frame["r"]
        raise AssertionError(f"no end in {self.events[-5:]}")

    def of(self, kind: str) -> list[Any]:
        """The values of all events of one kind so far."""
        return [event[kind] for event in self.events if kind in event]
