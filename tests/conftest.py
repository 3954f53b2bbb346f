"""What a machine cannot do is skipped, and the reason is said; engines for the tests."""

from __future__ import annotations

import glob
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.rig import Engine, loaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.cri.node import Machine, Node


# a shell that starts the tests in the background has them ignore Ctrl-C and Ctrl-\, and so
# would what they start
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def _lacks() -> dict[str, str]:
    """Markers of the tests that cannot be run here, and why."""
    lacks = {}
    if os.geteuid() != 0:
        lacks["root"] = "needs to be root"
    if shutil.which("lxc-start") is None:
        lacks["lxc"] = "lxc-start is not installed"
    if not glob.glob("/proc/sys/fs/binfmt_misc/qemu-*"):
        lacks["qemu"] = "no emulator is registered: ci/qemu/register"
    return lacks


def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    """Skips by marker; with ISULA_TEST_ALL nothing is skipped, so that a lack is a failure."""
    if os.environ.get("ISULA_TEST_ALL"):
        return
    lacks = _lacks()
    for item in items:
        for name in lacks.keys() & {mark.name for mark in item.iter_markers()}:
            item.add_marker(pytest.mark.skip(reason=lacks[name]))


@pytest.fixture(scope="session")
def images() -> Path:
    """Folder of the busybox images that ci/images makes: oci/, oci.tar, docker.tar."""
    folder = Path(__file__).parents[1] / "build" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "ci/images", str(folder)], check=True, cwd=folder.parents[1])
    return folder


@pytest.fixture(scope="session")
def shared_engine(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Engine]:
    """An engine with busybox:latest, for tests that leave images and engine alone."""
    engine = Engine(tmp_path_factory.mktemp("engine"))
    with loaded(engine, images):
        yield engine


@pytest.fixture
def engine(shared_engine: Engine) -> Iterator[Engine]:
    """The shared engine; containers that a test leaves are removed after it."""
    yield shared_engine
    shared_engine.remove_containers()


@pytest.fixture(params=["lxc", "runc"])
def runtime(request: pytest.FixtureRequest) -> str:
    """Each runtime that every machine has."""
    return str(request.param)


@pytest.fixture
def make_engine(tmp_path: Path, images: Path) -> Iterator[Callable[..., Engine]]:
    """Makes started engines of a test's own: ``make_engine(*flags, load=True, **options)``."""
    made: list[Engine] = []

    def make(*args: str, load: bool = True, **options: object) -> Engine:
        engine = Engine(tmp_path / f"engine{len(made)}", *args, **options)  # type: ignore[arg-type]
        made.append(engine)
        engine.start()
        if load:
            engine.ok("load", "-i", str(images / "docker.tar"))
        return engine

    try:
        yield make
    finally:
        for engine in made:
            engine.close()


@pytest.fixture
def node(machine: Machine, runtime: str) -> Iterator[Node]:
    """A client for each runtime; the pods that a test leaves are removed after it."""
    found = machine.node(runtime)
    yield found
    found.close()


@pytest.fixture
def plain(machine: Machine) -> Iterator[Node]:
    """A client for what does not depend on the runtime."""
    found = machine.node()
    yield found
    found.close()
