"""The job of docs/ci-matrix.md, as it stands there, for both platforms on one machine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.integration.conftest import Pulling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.rig import Engine

pytestmark = [pytest.mark.root, pytest.mark.lxc, pytest.mark.qemu]

DOCUMENT = (Path(__file__).parents[2] / "docs/ci-matrix.md").read_text()
PLATFORMS = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
IMAGE = "127.0.0.1:5000/busybox:latest"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)


@pytest.fixture
def pulling(
    make_engine: Callable[..., Engine], images: Path, tmp_path: Path
) -> Iterator[Pulling]:
    """An engine that has no image, and a registry that has one for both platforms."""
    found = Pulling(make_engine(load=False), images, tmp_path)
    try:
        found.up()
        found.push()
        yield found
    finally:
        found.down()


def job(
    engine: Engine, project: Path, platform: str, test: str
) -> subprocess.CompletedProcess[str]:
    """Runs the job as a runner does."""
    (script,) = blocks("sh")
    (project / "ci").mkdir(parents=True, exist_ok=True)
    (project / "ci/matrix-job").write_text(script)
    programs = Path(sys.executable).parent
    env = {
        **engine.client_env,
        "PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin",
        "PLATFORM": platform,
        "IMAGE": IMAGE,
        "TEST": test,
    }
    return subprocess.run(
        ["sh", "-eu", "ci/matrix-job"],
        cwd=project,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_one_project_is_tested_for_both_platforms(pulling: Pulling, tmp_path: Path) -> None:
    engine, project = pulling.engine, tmp_path / "project"
    project.mkdir()
    tests = project / "run-tests"
    tests.write_text('#!/bin/sh\nuname -m >"result-$(uname -m)"\nuname -m\n')
    tests.chmod(0o755)
    for first in (True, False):
        for platform, machine in PLATFORMS.items():
            done = job(engine, project, platform, "./run-tests")
            assert done.returncode == 0, done
            assert done.stdout.splitlines()[-1] == machine
            # each is fetched once, whatever the other one is
            assert ("Unable to find image" in done.stderr) is first
            # the project's own folder was there
            assert (project / f"result-{machine}").read_text() == f"{machine}\n"
    listed = [line.split() for line in engine.ok("images").splitlines()[1:]]
    assert [row[:2] for row in listed] == [IMAGE.rsplit(":", 1)] * 2
    assert {row[-1].removesuffix("/v8") for row in listed} == set(PLATFORMS)
    assert engine.ok("ps", "-aq") == ""


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_test_that_fails_fails_the_job(
    pulling: Pulling, tmp_path: Path, platform: str
) -> None:
    project = tmp_path / "project"
    assert job(pulling.engine, project, platform, "echo before; false; echo after").returncode == 1
    done = job(pulling.engine, project, platform, "exit 42")
    assert done.returncode == 42
    done = job(pulling.engine, project, platform, "no-such-command")
    assert done.returncode == 127


def test_an_architecture_without_a_profile_is_named(pulling: Pulling, tmp_path: Path) -> None:
    done = job(pulling.engine, tmp_path / "project", "linux/s390x", "true")
    assert done.returncode == 1
    assert "no profile for architecture s390x" in done.stderr


def test_the_pipelines_run_that_job_for_both() -> None:
    github, gitlab = (yaml.safe_load(text) for text in blocks("yaml"))
    action: dict[str, Any] = github["jobs"]["test"]
    assert action["strategy"]["matrix"]["platform"] == [*PLATFORMS]
    assert action["env"]["PLATFORM"] == "${{ matrix.platform }}"
    assert action["steps"][-1]["run"] == gitlab["test"]["script"][0] == "sh -eu ci/matrix-job"
    assert gitlab["test"]["parallel"]["matrix"] == [{"PLATFORM": [*PLATFORMS]}]
    (script,) = blocks("sh")
    variables = set(re.findall(r"\$\{?([A-Z]+)", script)) - {"PWD"}
    assert variables == set(action["env"]) == {"PLATFORM", *gitlab["test"]["variables"]}
