"""An engine with a registry beside it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.fakes.measuring import Measuring
from tests.rig import loaded, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.rig import Engine

CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder}/registry}}}}
http: {{addr: "127.0.0.1:5000", secret: tests}}
"""


class Pulling:
    """An engine and a registry in one network namespace."""

    def __init__(self, engine: Engine, images: Path, folder: Path) -> None:
        self.engine, self.images, self.folder = engine, images, folder
        (folder / "registry.yml").write_text(CONFIG.format(folder=folder))
        self.process: subprocess.Popen[bytes] | None = None

    def up(self) -> None:
        self.process = subprocess.Popen(
            [
                *self.engine.network.prefix,
                "docker-registry",
                "serve",
                f"{self.folder}/registry.yml",
            ],
            stdin=subprocess.DEVNULL,
        )
        code = "import socket; socket.create_connection(('127.0.0.1', 5000)).close()"
        words = [*self.engine.network.prefix, sys.executable, "-c", code]
        until(
            lambda: subprocess.run(words, stderr=subprocess.DEVNULL, check=False).returncode == 0,
            "the registry answering",
        )

    def down(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def push(self) -> None:
        subprocess.run(
            [
                *(*self.engine.network.prefix, sys.executable, "ci/images", str(self.images)),
                *("--push", "127.0.0.1:5000"),
            ],
            check=True,
        )


@pytest.fixture
def pulling(make_engine: Callable[..., Engine], images: Path, tmp_path: Path) -> Iterator[Pulling]:
    """A fresh engine, and a registry that has busybox."""
    found = Pulling(make_engine(load=False), images, tmp_path)
    try:
        found.up()
        found.push()
        yield found
    finally:
        found.down()


@pytest.fixture(scope="session")
def shared_measuring(
    tmp_path_factory: pytest.TempPathFactory, images: Path
) -> Iterator[Measuring]:
    """An engine with busybox that also answers what only the CRI asks for."""
    engine = Measuring(tmp_path_factory.mktemp("measuring"))
    with loaded(engine, images):
        yield engine


@pytest.fixture
def measuring(shared_measuring: Measuring) -> Iterator[Measuring]:
    """The shared one; containers that a test leaves are removed after it."""
    yield shared_measuring
    shared_measuring.remove_containers()
