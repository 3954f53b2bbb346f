"""check-kernel as a user runs it: text, JSON, saved files, exit statuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from isula_edge import kernel

if TYPE_CHECKING:
    from pathlib import Path

TOP = os.path.abspath(f"{os.path.dirname(__file__)}/../../..")
SCRIPT = f"{TOP}/kernel-checks/check-kernel"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the script outside the clone, with no path but its own to the package."""
    return subprocess.run(
        [sys.executable, "-I", "-S", SCRIPT, *arguments],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_it_is_executable() -> None:
    assert os.access(SCRIPT, os.X_OK)


def test_text_of_this_machine() -> None:
    done = run()
    status = kernel.probe().verdict().status
    assert done.returncode == {"ok": 0, "degraded": 1, "cannot-run": 2}[status.value]
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == f"kernel {os.uname().release} (live)"
    assert lines[-1].startswith("verdict: ")
    for group in ("namespaces", "cgroups", "storage", "security", "processes", "network"):
        assert group in lines
    assert "\x1b" not in done.stdout
    for name in kernel.NAMES:
        assert any(line.startswith(f"  {name} ") for line in lines), name


def test_json_of_this_machine() -> None:
    done = run("--json")
    table = json.loads(done.stdout)
    assert table["schema"] == 1
    assert table["verdict"]["status"] in ("ok", "degraded", "cannot-run")
    assert [item["name"] for item in table["features"]] == list(kernel.describe())
    for item in table["features"]:
        assert item["why"], item
        assert item["state"] in ("present", "absent", "unusable", "unknown")
    assert table["cgroup"]["version"] in ("v1", "hybrid", "v2", "none")


@pytest.mark.parametrize(
    ("directory", "status", "line"),
    [
        ("x86_64-3.0.1-v1", 2, "verdict: cannot run: o-path-fchdir, child-subreaper missing"),
        ("x86_64-3.4.111-v1", 1, "runtime runc: cannot start, lacks unshare-pid"),
        ("x86_64-3.10.105-v1", 1, "runtime runc: can start"),
        ("x86_64-6.1.0-50-cloud-amd64-v2", 0, "verdict: runs, with everything that is wanted"),
    ],
)
def test_saved_kernels(kernels: Path, directory: str, status: int, line: str) -> None:
    done = run("--root", str(kernels / directory))
    assert done.returncode == status
    assert line in done.stdout
    assert json.loads(run("--json", "--root", str(kernels / directory)).stdout)["features"]


def test_brief_leaves_out_what_is_present(kernels: Path) -> None:
    done = run("--brief", "--root", str(kernels / "x86_64-3.10.105-v1"))
    assert " present " not in done.stdout
    assert "since 3.18; without it: overlayfs-name is used" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--root", "/nonexistent"), "/nonexistent holds no saved kernel"),
        (("--shade",), "unrecognized arguments: --shade"),
        (("--colour", "blue"), "invalid choice: 'blue'"),
        (("--save", "/proc/no/such"), "/proc/no/such"),
    ],
)
def test_bad_input_is_one_line_and_status_3(arguments: tuple[str, ...], text: str) -> None:
    done = run(*arguments)
    assert done.returncode == 3
    assert text in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_damaged_record(tmp_path: Path) -> None:
    (tmp_path / "syscalls.json").write_text("{")
    done = run("--root", str(tmp_path))
    assert done.returncode == 3
    assert "syscalls.json is not a record of system calls" in done.stderr


def test_save_and_judge_elsewhere(kernels: Path, tmp_path: Path) -> None:
    old, new = str(kernels / "x86_64-4.4.155-v1"), str(tmp_path / "new")
    first = run("--json", "--root", old, "--save", new)
    again = run("--json", "--root", new)
    assert first.returncode == again.returncode == 1
    assert first.stdout.replace(old, "") == again.stdout.replace(new, "")
    assert run("--root", old, "--save", new).returncode == 3  # never over another one


def test_colours_on_demand(kernels: Path) -> None:
    root = str(kernels / "x86_64-3.10.105-v1")
    painted = run("--root", root, "--colour", "always")
    plain = run("--root", root, "--colour", "never")
    assert "\x1b[33mverdict: runs degraded" in painted.stdout
    assert "\x1b" not in plain.stdout


def test_help_tells_the_exit_statuses() -> None:
    done = run("--help")
    assert done.returncode == 0
    for status in "0123":
        assert f"\n  {status}  " in done.stdout
