"""Images of another architecture, run by an emulator that the kernel knows."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import Pulling
    from tests.rig import Engine

pytestmark = [pytest.mark.root, pytest.mark.lxc, pytest.mark.qemu]

OTHER, MACHINE = {"x86_64": ("arm64", "aarch64"), "aarch64": ("amd64", "x86_64")}[
    os.uname().machine
]
NAME = "127.0.0.1:5000/busybox:latest"


@pytest.fixture(autouse=True, scope="module")
def emulator() -> None:
    """Registered as a user does it."""
    top = Path(__file__).parents[2]
    subprocess.run(["ci/qemu/register"], cwd=top, check=True, stdout=subprocess.DEVNULL)


def test_run_of_a_platform(pulling: Pulling, runtime: str) -> None:
    engine = pulling.engine
    words = ("--rm", "--runtime", runtime, "--platform", f"linux/{OTHER}", NAME)
    assert engine.ok("run", *words, "uname", "-m") == MACHINE
    assert engine.isula("run", *words, "sh", "-c", "exit 42").code == 42
    engine.ok("run", "-d", "--name", "other", *words[1:], "sleep", "1000")
    assert engine.ok("exec", "other", "uname", "-m") == MACHINE
    assert OTHER in engine.ok("info")


def test_the_image_that_is_there_is_of_the_wrong_platform(pulling: Pulling) -> None:
    engine = pulling.engine
    engine.ok("pull", NAME)
    refused = engine.isula("run", "--rm", "--pull", "never", "--platform", f"linux/{OTHER}", NAME)
    assert refused.code == 125
    assert f"linux/{OTHER}" in refused.err
    # what is missing is pulled
    words = ("--rm", "--platform", f"linux/{OTHER}", NAME, "uname", "-m")
    assert engine.ok("run", *words) == MACHINE


def of_other(engine: Engine) -> str:
    """Id of the image for the other platform."""
    return engine.ok("inspect", "-f", "{{.image.id}}", "--platform", OTHER, NAME)


def test_a_pull_for_one_platform_leaves_the_other_one_alone(pulling: Pulling) -> None:
    engine = pulling.engine
    engine.ok("pull", NAME)
    here = engine.image(NAME)["id"]
    engine.ok("pull", "--platform", f"linux/{OTHER}", NAME)
    there = of_other(engine)
    assert there != here
    assert engine.image(NAME)["id"] == here
    # again, and in the other order
    engine.ok("pull", NAME)
    assert (engine.image(NAME)["id"], of_other(engine)) == (here, there)
    pulling.down()
    for words, machine in (((), os.uname().machine), (("--platform", OTHER), MACHINE)):
        assert engine.ok("run", "--rm", *words, NAME, "uname", "-m") == machine
