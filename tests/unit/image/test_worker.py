"""The worker as a process: frames in, frames out, cancelled by its daemon's end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors, wire
from tests.fakes.images import FakeLayer, docker_archive, make_image, tar_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fakes.registry import FakeRegistry

IMAGE = make_image([FakeLayer.of({"a": b"1"}), FakeLayer.of({"b": os.urandom(500_000)})])


class Worker:
    """Speaks for the daemon."""

    def __init__(self, request: dict[str, Any], graph: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "isula_edge.image.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[request["fd"]] if "fd" in request else [],
        )
        self.events: list[dict[str, Any]] = []
        self.send({"graph": str(graph), "driver": "vfs", "tmpdir": str(graph / "tmp"), **request})

    def send(self, frame: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(wire.pack(frame))
        self.process.stdin.flush()

    def frames(self) -> Iterator[dict[str, Any]]:
        out = self.process.stdout
        assert out is not None
        while head := out.read(4):
            yield wire.decode(out.read(int.from_bytes(head, "big")))

    def until(self, key: str) -> Any:
        """The value of the first event with ``key``; ``need`` is answered by nothing."""
        for frame in self.frames():
            self.events.append(frame)
            if "need" in frame:
                self.send({"have": []})
            if key in frame:
                return frame[key]
        pytest.fail(f"no {key} in {self.events}")

    def error(self) -> errors.EngineError:
        return errors.from_wire(self.until("x"))

    def end(self) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        status = self.process.wait(20)
        self.process.stdout.close()
        return status


def unfinished(graph: Path) -> list[str]:
    return [name for name in os.listdir(graph / "storage/vfs") if "ingest" in name]


def test_pull(graph: Path, registry: FakeRegistry) -> None:
    registry.add("library/busybox", "latest", IMAGE)
    worker = Worker({"op": "pull", "ref": "busybox", "mirrors": [registry.url]}, graph)
    assert worker.until("r") == {"ref": "busybox:latest", "id": IMAGE.id}
    (image,) = (event["image"] for event in worker.events if "image" in event)
    assert image["config"] == IMAGE.config
    assert [event["layer"] for event in worker.events if "layer" in event] == IMAGE.chain_ids
    assert worker.end() == 0


def test_a_failure_is_the_last_frame(graph: Path, registry: FakeRegistry) -> None:
    worker = Worker({"op": "pull", "ref": "busybox", "mirrors": [registry.url]}, graph)
    error = worker.error()
    assert isinstance(error, errors.NotFound)
    assert "busybox:latest" in str(error)
    assert worker.end() == 0


def test_load_from_a_file_and_import_from_a_descriptor(graph: Path, tmp_path: Path) -> None:
    path = tmp_path / "archive"
    path.write_bytes(docker_archive({"a:1": IMAGE}))
    worker = Worker({"op": "load", "path": str(path)}, graph)
    assert worker.until("r") == {"images": ["a:1"]}
    assert worker.end() == 0
    read_end, write_end = os.pipe()
    worker = Worker({"op": "import", "fd": read_end, "ref": "new"}, graph)
    os.close(read_end)
    with open(write_end, "wb") as file:
        file.write(tar_of({"etc/name": b"x"}))
    assert worker.until("r")["ref"] == "new:latest"
    assert worker.end() == 0


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        ({"op": "dance"}, errors.InvalidArgument),
        ({"op": "load", "path": "/nonexistent"}, errors.NotFound),
        ({"op": "import", "path": "/etc/hosts", "ref": "x"}, errors.EngineError),
        ({"op": "pull", "ref": "k~k"}, errors.InvalidArgument),
        ({"op": "pull"}, errors.Internal),
    ],
)
def test_bad_requests(graph: Path, request_: dict[str, Any], kind: type[Exception]) -> None:
    worker = Worker(request_, graph)
    assert isinstance(worker.error(), kind)
    assert worker.end() == 0


def test_no_request(graph: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "isula_edge.image.worker"], input=b"", timeout=20, check=False
    )
    assert done.returncode == 1


@pytest.mark.parametrize("how", ["signal", "stdin", "unasked"])
def test_cancelled(graph: Path, registry: FakeRegistry, how: str) -> None:
    registry.add("a/b", "latest", IMAGE)
    registry.faults.bytes_per_s = 100_000
    worker = Worker({"op": "pull", "ref": "a/b", "mirrors": [registry.url]}, graph)
    assert worker.process.stdin is not None
    if how == "unasked":
        for frame in worker.frames():
            if "need" in frame:
                break
        worker.process.stdin.close()
    else:
        worker.until("layer")
        if how == "signal":
            worker.process.send_signal(signal.SIGTERM)
        else:
            worker.process.stdin.close()
    assert isinstance(worker.error(), errors.Aborted)
    assert worker.process.wait(20) == 0
    assert worker.process.stdout is not None
    worker.process.stdout.close()
    assert unfinished(graph) == []


def test_a_daemon_that_is_gone(graph: Path, registry: FakeRegistry) -> None:
    registry.add("a/b", "latest", IMAGE)
    registry.faults.bytes_per_s = 100_000
    worker = Worker({"op": "pull", "ref": "a/b", "mirrors": [registry.url]}, graph)
    worker.until("layer")
    assert worker.process.stdout is not None
    worker.process.stdout.close()
    assert worker.process.wait(20) == 1
    assert worker.process.stdin is not None
    worker.process.stdin.close()
    assert unfinished(graph) == []


def test_what_the_worker_loads() -> None:
    """Without a pull there is no HTTP and no TLS."""
    code = (
        "import sys; import isula_edge.image.worker, isula_edge.image.load,"
        " isula_edge.image.import_; print([m for m in ('urllib3', 'ssl', 'tarfile', 'asyncio',"
        " 'cbor2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"
