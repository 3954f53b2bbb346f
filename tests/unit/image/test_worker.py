"""The worker as a process: frames in, frames out, cancelled by its daemon's end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from tests.fakes.images import FakeLayer, docker_archive, make_image, tar_of
from tests.fakes.workers import WorkerProcess

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.registry import FakeRegistry

IMAGE = make_image([FakeLayer.of({"a": b"1"}), FakeLayer.of({"b": os.urandom(500_000)})])


def unfinished(graph: Path) -> list[str]:
    return [name for name in os.listdir(graph / "storage/vfs") if "ingest" in name]


def test_pull(graph: Path, registry: FakeRegistry) -> None:
    registry.add("library/busybox", "latest", IMAGE)
    request = {"op": "pull", "ref": "busybox", "mirrors": [registry.url]}
    with WorkerProcess(request, graph) as worker:
        assert worker.result() == {"ref": "busybox:latest", "id": IMAGE.id}
        (image,) = worker.of("image")
        assert image["config"] == IMAGE.config
        assert worker.of("need") == [IMAGE.chain_ids]
        assert worker.of("layer") == IMAGE.chain_ids
    assert worker.process.returncode == 0
    with WorkerProcess(request, graph, held=set(IMAGE.chain_ids)) as worker:
        worker.result()
        assert worker.of("layer") == []


def test_a_failure_is_the_last_frame(graph: Path, registry: FakeRegistry) -> None:
    request = {"op": "pull", "ref": "busybox", "mirrors": [registry.url]}
    with WorkerProcess(request, graph) as worker, pytest.raises(errors.NotFound, match="busybox"):
        worker.result()
    assert worker.process.returncode == 0


def test_credentials_and_platform(graph: Path, registry: FakeRegistry) -> None:
    registry.add("a/b", "latest", IMAGE)
    registry.faults.auth = "basic"
    registry.faults.users = {"u": "p"}
    request = {
        "op": "pull",
        "ref": f"{registry.host}/a/b",
        "auths": {registry.host: {"username": "u", "password": "p"}},
        "platform": "linux/amd64",
        "max_concurrent": 1,
    }
    with WorkerProcess(request, graph) as worker:
        assert worker.result()["id"] == IMAGE.id


def test_load_from_a_file_and_import_from_a_descriptor(graph: Path, tmp_path: Path) -> None:
    path = tmp_path / "archive"
    path.write_bytes(docker_archive({"a:1": IMAGE}))
    with WorkerProcess({"op": "load", "path": str(path)}, graph) as worker:
        assert worker.result() == {"images": ["a:1"]}
    read_end, write_end = os.pipe()
    with WorkerProcess({"op": "import", "fd": read_end, "ref": "new"}, graph) as worker:
        os.close(read_end)
        with open(write_end, "wb") as file:
            file.write(tar_of({"etc/name": b"x"}))
        assert worker.result()["ref"] == "new:latest"


@pytest.mark.parametrize(
    ("wanted", "kind"),
    [
        ({"op": "dance"}, errors.InvalidArgument),
        ({"op": "load", "path": "/nonexistent"}, errors.NotFound),
        ({"op": "import", "path": "/etc/hosts", "ref": "x"}, errors.EngineError),
        ({"op": "pull", "ref": "k~k"}, errors.InvalidArgument),
        ({"op": "pull"}, errors.Internal),
    ],
)
def test_bad_requests(graph: Path, wanted: dict[str, Any], kind: type[Exception]) -> None:
    with WorkerProcess(wanted, graph) as worker, pytest.raises(kind):
        worker.result()
    assert worker.process.returncode == 0


@pytest.mark.parametrize("data", [b"", b"\0\0", b"\xff\xff\xff\xff"])
def test_no_request(data: bytes) -> None:
    command = [sys.executable, "-m", "isula_edge.image.worker"]
    done = subprocess.run(command, input=data, capture_output=True, timeout=20, check=False)
    assert done.returncode == 1
    assert done.stdout == b""


@pytest.mark.parametrize("how", ["signal", "hang up", "hang up instead of an answer"])
def test_cancelled(graph: Path, registry: FakeRegistry, how: str) -> None:
    registry.add("a/b", "latest", IMAGE)
    registry.faults.bytes_per_s = 100_000
    request = {"op": "pull", "ref": "a/b", "mirrors": [registry.url]}
    with WorkerProcess(request, graph) as worker:
        if how == "signal":
            worker.until("layer")
            worker.process.send_signal(signal.SIGTERM)
        else:
            worker.until("layer" if how == "hang up" else "need")
            worker.hang_up()
        with pytest.raises(errors.Aborted):
            worker.result()
    assert worker.process.returncode == 0
    assert unfinished(graph) == []


def test_a_daemon_that_is_gone(graph: Path, registry: FakeRegistry) -> None:
    registry.add("a/b", "latest", IMAGE)
    registry.faults.bytes_per_s = 100_000
    with WorkerProcess({"op": "pull", "ref": "a/b", "mirrors": [registry.url]}, graph) as worker:
        worker.until("layer")
    assert worker.process.returncode == 1
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


def test_cancelled_while_a_connection_is_made(graph: Path) -> None:
    """Nobody accepts, and the queue of the listener is full: connect(2) waits."""
    with socket.socket() as listener, contextlib.ExitStack() as clients:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        mirror = f"http://127.0.0.1:{listener.getsockname()[1]}"
        request = {"op": "pull", "ref": "a/b", "mirrors": [mirror]}
        with WorkerProcess(request, graph) as worker:
            worker.hang_up()
            with pytest.raises(errors.Aborted):
                worker.result()
