"""The daemon is killed at any moment of work on shared layers; afterwards all is consistent."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.fakes.images import FakeLayer, docker_archive, make_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.rig import Engine

pytestmark = [pytest.mark.root, pytest.mark.lxc, pytest.mark.slow, pytest.mark.timeout(900)]
ROUNDS = 6
BASE = FakeLayer.of({f"base{n}": b"b" * 3000 for n in range(200)})
IMAGES = {
    f"image{number}:v1": make_image(
        [BASE, FakeLayer.of({f"own{number}": b"o" * (100_000 + number)})]
    )
    for number in range(3)
}


def loads(engine: Engine, folder: Path) -> None:
    for name in IMAGES:
        engine.ok("load", "-i", str(folder / name))


@pytest.mark.parametrize("driver", ["overlay", "vfs"])
def test_the_daemon_is_killed_again_and_again(
    make_engine: Callable[..., Engine], tmp_path: Path, driver: str
) -> None:
    numbers = random.Random(driver)
    engine = make_engine("--storage-driver", driver)
    for name, image in IMAGES.items():
        (tmp_path / name).write_bytes(docker_archive({name: image}))
    engine.ok("run", "-d", "--name", "steady", "busybox", "sleep", "1000")
    pid = engine.state_of("steady")["Pid"]
    for number in range(ROUNDS):
        clients = [
            engine.popen(*words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for name in IMAGES
            for words in (
                ("load", "-i", str(tmp_path / name)),
                ("rmi", name),
                ("load", "-i", str(tmp_path / name)),
                ("run", "--rm", "busybox", "true"),
                ("tag", "busybox", f"busybox:{number}"),
                ("rmi", f"busybox:{number}"),
            )
        ]
        time.sleep(numbers.uniform(0.0, 1.5))
        engine.restart(signal.SIGKILL)
        for client in clients:
            client.wait()
        result = engine.isula("system", "check")
        assert result.code == 0, f"round {number}: {result}\n{engine.log_text()[-3000:]}"
        assert not (engine.graph / "quarantine").exists()
        assert engine.state_of("steady")["Pid"] == pid
        assert engine.ok("exec", "steady", "echo", "alive") == "alive"
    loads(engine, tmp_path)
    assert engine.ok("system", "check")
    for name in IMAGES:
        engine.ok("rmi", name)
    engine.ok("system", "prune", "-f")
    # what is left is the image that the container runs on
    needed = len(list((engine.graph / "layers").iterdir()))
    engine.ok("rm", "-f", "steady")
    engine.ok("rmi", engine.image("busybox")["id"])
    assert needed >= 1
    assert list((engine.graph / "layers").iterdir()) == []
    home = engine.graph / "storage" / driver
    assert [path.name for path in home.iterdir() if path.name not in ("rw", "l")] == []
