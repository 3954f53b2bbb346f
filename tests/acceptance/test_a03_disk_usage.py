"""Case A03: what interrupted pulls leave is shown by ``system df`` and goes with ``prune``."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.fakes.disk import Disk, used_bytes
from tests.rig import Engine, children, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.lxc, pytest.mark.slow, pytest.mark.timeout(600)]
LAYERS, SIZE = 3, 2_000_000


@pytest.fixture(params=["overlay", "vfs"])
def engine(request: pytest.FixtureRequest, tmp_path: Path, images: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path / "engine", "--storage-driver", request.param)
    disk = Disk(tmp_path / "image", engine.graph, size=128 << 20)
    with disk.mounted():
        try:
            engine.start()
            engine.ok("load", "-i", str(images / "docker.tar"))
            engine.ok("create", "--name", "idle", "busybox", "true")
            yield engine
        finally:
            engine.close()


class Slow:
    """A registry beside the engine that sends as many bytes a second as it is told."""

    def __init__(self, engine: Engine) -> None:
        words = [*engine.network.prefix, sys.executable, "-m", "tests.fakes.slow_registry"]
        self.process = subprocess.Popen(
            [*words, str(LAYERS), str(SIZE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.name = self.process.stdout.readline().strip()

    def rate(self, bytes_per_s: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{bytes_per_s}\n")
        self.process.stdin.flush()

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


@pytest.fixture
def slow(engine: Engine) -> Iterator[Slow]:
    slow = Slow(engine)
    try:
        yield slow
    finally:
        slow.close()


def total(engine: Engine) -> int:
    """All that ``system df`` reports, with its rows."""
    rows = [json.loads(line) for line in engine.ok("system", "df", "--format", "json").splitlines()]
    assert {"Images", "Containers", "Unfinished downloads"} <= {row["Type"] for row in rows}
    return sum(row["Bytes"] for row in rows)


def agree(engine: Engine) -> int:
    """What is below the graph, which ``system df`` reports to within 1 %."""
    os.sync()
    found = used_bytes(engine.graph)
    assert abs(total(engine) - found) <= found / 100
    return found


def arriving(engine: Engine, least: int) -> None:
    until(lambda: used_bytes(engine.graph) > least, "some of the image arriving")


def workers(engine: Engine) -> list[int]:
    found = []
    for pid in children(engine.pid):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            if b"isula_edge.image.worker" in file.read():
                found.append(pid)
    return found


def test_five_pulls_are_interrupted(engine: Engine, slow: Slow) -> None:
    before = agree(engine)
    for number in range(1, 6):
        client = engine.popen(
            "pull", slow.name, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        arriving(engine, before + number * 250_000)
        for pid in workers(engine):
            os.kill(pid, signal.SIGKILL)
        engine.restart(signal.SIGKILL)
        client.wait()
    kept = agree(engine)
    assert kept > before + 500_000
    lines = engine.ok("system", "df").splitlines()
    (row,) = [line for line in lines if line.startswith("Unfinished downloads")]
    assert "(100%)" in row
    said = engine.ok("system", "prune", "--filter", "label=none", "-f")
    assert "Unfinished Downloads" in said
    assert not said.endswith("Total reclaimed space: 0B")
    after = agree(engine)
    # directories do not shrink
    assert abs(after - before) <= 16_384
    assert engine.ok("ps", "-a", "--format", "{{.Names}}") == "idle"
    slow.rate(0)
    engine.ok("pull", slow.name)
    assert agree(engine) > before + LAYERS * SIZE
    assert engine.ok("system", "check")


def test_what_is_under_way_is_not_pruned(engine: Engine, slow: Slow) -> None:
    before = used_bytes(engine.graph)
    client = engine.popen("pull", "-q", slow.name, stdout=subprocess.DEVNULL)
    arriving(engine, before + 500_000)
    engine.ok("system", "prune", "-f")
    assert client.poll() is None
    slow.rate(0)
    assert client.wait() == 0
    assert engine.ok("system", "check")


def test_prune_takes_what_docker_takes(engine: Engine) -> None:
    engine.ok("run", "-d", "--name", "web", "busybox", "sleep", "1000")
    image = engine.image("busybox")["id"]
    said = engine.ok("system", "prune", "-f")
    assert "Deleted Containers:" in said
    assert image not in said
    assert engine.image("busybox")["id"] == image
    # an image that a container uses stays, whatever is asked for
    engine.ok("create", "--label", "keep=1", "--name", "kept", "busybox", "true")
    engine.ok("system", "prune", "-a", "-f", "--filter", "label!=keep=1")
    assert engine.image("busybox")["id"] == image
    assert "kept" in engine.ok("ps", "-a", "--format", "{{.Names}}").split()
    engine.ok("rm", "-f", *engine.ok("ps", "-aq").split())
    said = engine.ok("system", "prune", "-a", "-f")
    assert f"deleted: sha256:{image}" in said
    assert "untagged: busybox:latest" in said
    assert engine.ok("images", "-q") == ""
    rows = [json.loads(line) for line in engine.ok("system", "df", "--format", "json").splitlines()]
    assert {row["Type"]: row["TotalCount"] for row in rows}["Images"] == "0"


def test_prune_asks_and_does_nothing_without_an_answer(engine: Engine) -> None:
    result = engine.isula("system", "prune")
    assert result.code == 1
    assert "-f" in result.err
    assert engine.ok("ps", "-a", "--format", "{{.Names}}") == "idle"
