"""The runtimes that the contract suite is run over, and the engine that has them all."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import kata_runtime
from tests.fakes.measuring import Measuring
from tests.rig import Engine, loaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RUNTIMES = ["lxc", "runc", "crun", "shim"]


def configuration(folder: Path) -> dict[str, Any]:
    """daemon.json of an engine: what is not built in and stands in `RUNTIMES`.

    ``kata1``, which is the command line of kata 1.x, is a program that is made in ``folder``.
    """
    return {
        "runtimes": {
            "shim": {"runtimeType": "io.containerd.runc.v2"},
            "kata1": {"path": str(kata_runtime.install(folder / "kata1"))},
        }
    }


@pytest.fixture(params=os.environ.get("ISULA_TEST_RUNTIMES", "").split() or RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    """Each runtime by its name, or those that the environment names (ci/lxc-versions)."""
    return str(request.param)


@pytest.fixture(scope="session")
def shared_engine(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Measuring]:
    """An engine with busybox:latest that also answers what only the CRI asks for."""
    folder = tmp_path_factory.mktemp("runtimes")
    engine = Measuring(folder, config=configuration(folder))
    with loaded(engine, images):
        yield engine


@pytest.fixture
def measuring(shared_engine: Measuring) -> Iterator[Measuring]:
    """The shared engine; containers that a test leaves are removed after it."""
    yield shared_engine
    shared_engine.remove_containers()


@pytest.fixture
def make_engine(make_engine: Callable[..., Engine], tmp_path: Path) -> Callable[..., Engine]:
    """As everywhere, with those runtimes: ``make_engine(*flags)``."""
    return functools.partial(make_engine, config=configuration(tmp_path))
