"""Case A02: the power goes at any step; afterwards nothing is lost and everything works."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from isula_edge.client import Client
from tests.fakes.crashing import Plan
from tests.fakes.disk import Disk
from tests.fakes.images import FakeLayer, docker_archive, make_image
from tests.rig import Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1500)]

BASE = FakeLayer.of({"base": b"b" * 20_000})
OLD = make_image([BASE, FakeLayer.of({"old": b"o" * 20_000})])
NEW = make_image([BASE, FakeLayer.of({"new": b"n" * 20_000}), FakeLayer.of({"top": b"t"})])


class CrashingEngine(Engine):
    """An engine on a disk of its own whose power goes when the plan says so."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.plan = Plan(folder / "plan", self.graph)
        self.disk = Disk(folder / "image", self.graph)

    @property
    def command(self) -> list[str]:
        return self.plan.command(super().command, len(self.network.prefix))

    def power_returns(self) -> None:
        """After the power was lost: the machine boots."""
        assert self.process is not None
        assert self.process.wait(60) == -9
        self.process = None
        self.plan.arm(0)
        self.disk.power_cycle()
        self.start()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[CrashingEngine]:
    engine = CrashingEngine(tmp_path / "engine")
    with engine.disk.mounted():
        try:
            (tmp_path / "old.tar").write_bytes(docker_archive({"old:v1": OLD}))
            (tmp_path / "new.tar").write_bytes(docker_archive({"new:v1": NEW, "new:v2": NEW}))
            engine.start()
            engine.ok("load", "-i", str(tmp_path / "old.tar"))
            yield engine
        finally:
            engine.close()


@pytest.fixture
def registry(engine: CrashingEngine) -> Iterator[str]:
    """Name of an image of two layers in a registry beside the engine."""
    words = [*engine.network.prefix, sys.executable, "-m", "tests.fakes.slow_registry"]
    with subprocess.Popen(
        [*words, "2", "30000"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        process.stdin.write("0\n")
        process.stdin.flush()
        yield name
        process.stdin.close()


def names(engine: Engine) -> set[str]:
    with Client(engine.host) as client:
        return {":".join(name) for image in client.images() for name in image["names"]}


def remove(engine: Engine, *names: str) -> None:
    with Client(engine.host) as client:
        for name in names:
            client.remove_image(name)


def whole(engine: Engine, where: str = "") -> None:
    """Every blob of every image is there and has its digest."""
    with Client(engine.host) as client:
        assert client.check()["problems"] == [], where


def at_every_step(
    engine: CrashingEngine, words: list[str], ready: Callable[[], object], *allowed: set[str]
) -> list[str]:
    """Loses the power at each step of a command in turn; the steps that there were.

    ``ready`` makes the state before the command.  ``allowed`` are the names of images that
    there may be afterwards, besides the old one; then the command succeeds.
    """
    step = 0
    while True:
        step += 1
        ready()
        engine.plan.arm(step)
        code = engine.isula(*words).code
        steps = engine.plan.steps
        if len(steps) < step:
            assert code == 0
            return steps
        assert code != 0
        engine.power_returns()
        where = f"after {steps[-1]}, the power lost at step {step}"
        found = names(engine)
        assert "old:v1" in found, where
        assert found - {"old:v1"} in allowed, where
        assert not (engine.graph / "quarantine").exists(), where
        whole(engine, where)


def test_a_pull(engine: CrashingEngine, registry: str) -> None:
    repository = registry.removesuffix(":latest")

    def ready() -> None:
        """Pulls it, which must succeed after every crash, and removes it."""
        engine.ok("pull", registry)
        whole(engine)
        remove(engine, registry)

    steps = at_every_step(engine, ["pull", registry], ready, set(), {f"{repository}:latest"})
    # layers that are ready at the same time are forced to the disk together
    assert 1 <= sum(step.startswith("syncfs") for step in steps) <= 2
    assert sum(step.startswith("rename layers/") for step in steps) == 2
    assert sum(step.startswith("rename images/") for step in steps) == 1


def test_a_load(engine: CrashingEngine, tmp_path: Path) -> None:
    words = ["load", "-i", str(tmp_path / "new.tar")]

    def ready() -> None:
        engine.ok(*words)
        whole(engine)
        remove(engine, "new:v2", "new:v1")

    both = {"new:v1", "new:v2"}
    steps = at_every_step(engine, words, ready, set(), {"new:v1"}, {"new:v2"}, both)
    # the base is shared with the old image
    assert sum(step.startswith("rename layers/") for step in steps) == 2


@pytest.mark.parametrize(
    ("words", "after"),
    [
        (["rmi", "new:v1"], {"new:v2"}),
        (["tag", "new:v1", "new:v3"], {"new:v1", "new:v2", "new:v3"}),
        (["tag", "old:v1", "new:v1"], {"new:v1", "new:v2"}),
    ],
    ids=["untag", "tag", "tag that moves a name"],
)
def test_names(engine: CrashingEngine, tmp_path: Path, words: list[str], after: set[str]) -> None:
    archive = ["load", "-i", str(tmp_path / "new.tar")]

    def ready() -> None:
        remove(engine, *(names(engine) - {"old:v1"}))
        engine.ok(*archive)

    steps = at_every_step(engine, words, ready, {"new:v1", "new:v2"}, after)
    assert len(steps) >= 3


def test_the_removal_of_an_image(engine: CrashingEngine, tmp_path: Path) -> None:
    archive = ["load", "-i", str(tmp_path / "new.tar")]

    def ready() -> None:
        engine.ok(*archive)
        remove(engine, "new:v2")

    steps = at_every_step(engine, ["rmi", "new:v1"], ready, set(), {"new:v1"})
    assert [step.split("/")[0] for step in steps[:2]] == ["unlink images", "fsync images"]
    assert sum(step.startswith("unlink layers/") for step in steps) == 2
