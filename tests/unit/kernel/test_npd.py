"""Plugins of node-problem-detector: exit status, one short line, and the example."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors, kernel
from isula_edge.kernel import npd
from tests.unit.kernel.test_booted_kernels import SEEN, load
from tests.unit.kernel.test_check_kernel import run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.kernel.conftest import Made

TOP = os.path.abspath(f"{os.path.dirname(__file__)}/../../..")
EXAMPLE = f"{TOP}/contrib/node-problem-detector.json"


@pytest.mark.parametrize("seen", SEEN, ids=lambda seen: seen.directory)
def test_the_line_fits_and_the_status_is_the_verdict(kernels: Path, seen: object) -> None:
    features = load(kernels, seen.directory)  # type: ignore[attr-defined]
    verdict = features.verdict()
    for subject in npd.subjects():
        status, message = npd.check(features, subject)
        assert 0 < len(message.encode()) <= npd.MESSAGE_BYTES, message
        assert "\n" not in message
        assert status in (npd.OK, npd.PROBLEM)
    assert npd.check(features, "needed").status == bool(verdict.missing)
    assert npd.check(features, "all").status == bool(verdict.missing or verdict.degraded)
    for runtime, lack in verdict.runtimes.items():
        assert npd.check(features, f"runtime:{runtime}").status == bool(lack)


LINES = [
    ("x86_64-3.0.1", "needed", 1, "missing: o-path-fchdir, child-subreaper"),
    ("x86_64-3.4.111", "needed", 0, "the engine can run"),
    ("x86_64-3.4.111", "cgroups", 1, "missing: cgroup-pids"),
    ("x86_64-3.4.111", "network", 0, "nothing needed or wanted is missing"),
    ("x86_64-3.4.111", "runtime:runc", 1, "missing: unshare-pid, join-namespaces"),
    ("x86_64-3.4.111", "runtime:lxc", 0, "runtime lxc can start containers"),
    (
        "x86_64-3.4.111",
        "all",
        1,
        "missing: cgroup-namespace, join-namespaces, cgroup-pids, overlay and 4 more",
    ),
]


@pytest.mark.parametrize(("name", "subject", "status", "message"), LINES)
def test_lines(kernels: Path, name: str, subject: str, status: int, message: str) -> None:
    assert npd.check(load(kernels, name), subject) == (status, message)


def test_what_could_not_be_asked_is_unknown(made: Made) -> None:
    features = kernel.probe(made({"/proc/self/status": "Uid:\t0\t0\t0\t0\n"}))
    assert npd.check(features, "network").status in (npd.PROBLEM, npd.UNKNOWN)
    status, message = npd.check(features, "security")
    assert status == npd.UNKNOWN
    assert message.startswith("could not be asked: no-new-privs, ")


def test_a_subject_that_is_none(kernels: Path) -> None:
    with pytest.raises(errors.InvalidArgument, match="nothing of the kernel is called disk"):
        npd.check(load(kernels, "x86_64-3.4.111"), "disk")


def test_the_command(kernels: Path) -> None:
    root = str(kernels / "x86_64-3.4.111-v1")
    bad = run("--root", root, "--npd", "cgroups")
    assert (bad.returncode, bad.stdout) == (1, "missing: cgroup-pids\n")
    good = run("--root", root, "--npd", "needed")
    assert (good.returncode, good.stdout) == (0, "the engine can run\n")
    every = run("--root", root, "--npd")
    assert every.returncode == 1
    # whatever else goes wrong is unknown to the detector, and said where it listens
    wrong = run("--root", root, "--npd", "disk")
    assert wrong.returncode == 3
    assert "nothing of the kernel is called disk" in wrong.stdout


def test_example_is_what_the_detector_takes() -> None:
    with open(EXAMPLE, encoding="utf-8") as file:
        config = json.load(file)
    assert config["plugin"] == "custom"
    settings = config["pluginConfig"]
    assert settings["max_output_length"] >= npd.MESSAGE_BYTES
    conditions = {item["type"] for item in config["conditions"]}
    rules = config["rules"]
    permanent = [rule for rule in rules if rule["type"] == "permanent"]
    # a healthy rule resets its condition, so no two may share one
    assert sorted(rule["condition"] for rule in permanent) == sorted(conditions)
    for item in config["conditions"]:
        assert re.fullmatch(r"[A-Z]\w+", item["type"])
        assert re.fullmatch(r"[A-Z]\w+", item["reason"])
        assert item["message"]
    for rule in rules:
        assert re.fullmatch(r"[A-Z]\w+", rule["reason"])
        assert rule["args"][0] == "--npd"
        assert rule["args"][1] in npd.subjects()
        assert seconds(rule["timeout"]) <= seconds(settings["timeout"])


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def test_rules_of_the_example_run(kernels: Path) -> None:
    """As the detector does: path and arguments of each rule, here on a saved kernel."""
    with open(EXAMPLE, encoding="utf-8") as file:
        rules = json.load(file)["rules"]
    seen = {}
    for rule in rules:
        program = f"{TOP}/kernel-checks/{os.path.basename(rule['path'])}"
        done = subprocess.run(
            [sys.executable, program, *rule["args"], "--root", str(kernels / "x86_64-3.0.1-v1")],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.stderr == ""
        seen[rule["condition"]] = done.returncode
    assert seen["KernelCannotRunContainers"] == 1
    assert seen["KernelNetworkDegraded"] == 0
