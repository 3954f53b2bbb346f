"""check-kernel on a device before anything is installed: the oldest Python, nothing beside it."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from isula_edge import kernel
from isula_edge.kernel import _toml

TOP = Path(__file__).resolve().parents[3]
SCRIPT = TOP / "kernel-checks/check-kernel"
FEATURES = TOP / "kernel-checks/features.toml"
FLOOR = (3, 9)


def parts() -> list[Path]:
    """Every file of the project that check-kernel imports."""
    code = (
        "import runpy, sys; sys.argv = ['x', '--json']\n"
        "try: runpy.run_path(sys.orig_argv[-1], run_name='__main__')\n"
        "except SystemExit: pass\n"
        "from isula_edge.kernel import npd\n"
        "names = [m.__file__ for n, m in sys.modules.items() if n.startswith('isula_edge')]\n"
        "print('\\n'.join(names), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(SCRIPT)],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    return [SCRIPT, *(Path(line) for line in done.stderr.split())]


def test_its_files_are_few_and_old_enough() -> None:
    files = parts()
    assert {path.parent.name for path in files} == {"kernel-checks", "isula_edge", "kernel", "sys"}
    for path in files:
        ast.parse(path.read_text(), str(path), feature_version=FLOOR)


@pytest.fixture(scope="session")
def old_python() -> str:
    """Debian 11's interpreter, which ci/old-python fetches."""
    done = subprocess.run(
        [TOP / "ci/old-python", TOP / "build/old-python"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if done.returncode != 0:
        cannot = pytest.fail if os.environ.get("ISULA_TEST_ALL") else pytest.skip
        cannot(f"no Python 3.9: {done.stderr.strip()}")
    return done.stdout.strip()


@pytest.mark.native  # it is this machine's interpreter, and needs its packages
def test_the_oldest_python_says_the_same(old_python: str, kernels: Path, tmp_path: Path) -> None:
    version = subprocess.run(
        [old_python, "-c", "import sys; print(sys.version_info[:2])"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert version.stdout.strip() == str(FLOOR)
    # only what it needs, somewhere else, as it would be copied to a device
    for path in parts():
        copied = tmp_path / path.relative_to(TOP)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_bytes(path.read_bytes())
    (tmp_path / "kernel-checks/features.toml").write_bytes(FEATURES.read_bytes())
    script = str(tmp_path / "kernel-checks/check-kernel")

    def old(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [old_python, "-I", "-S", "-W", "error", script, *words],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )

    for name in ("x86_64-3.4.111-v1", "aarch64-6.12.117+deb13-cloud-arm64-v2"):
        root = str(kernels / name)
        done = old("--json", "--root", root)
        assert done.stderr == ""
        assert json.loads(done.stdout) == kernel.probe(kernel.Saved(root)).to_json()
    live = old("--json")
    assert live.stderr == ""
    ours = kernel.probe().to_json()
    theirs = json.loads(live.stdout)
    assert theirs["verdict"] == ours["verdict"]
    states = {item["name"]: item["state"] for item in theirs["features"]}
    assert states == {item["name"]: item["state"] for item in ours["features"]}
    assert old("--npd", "needed").stdout == "the engine can run\n"


def test_inside_an_installed_package(kernels: Path, tmp_path: Path) -> None:
    """A link to it is enough, for a Python that does not know the package."""
    data = tmp_path / "site-packages/isula_edge/_data/kernel-checks"
    data.mkdir(parents=True)
    for path in parts():
        name = path.relative_to(TOP)
        copied = data / path.name if path == SCRIPT else tmp_path / "site-packages" / name
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_bytes(path.read_bytes())
    (data / "features.toml").write_bytes(FEATURES.read_bytes())
    (tmp_path / "check-kernel").symlink_to(data / "check-kernel")
    root = str(kernels / "x86_64-3.4.111-v1")
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(tmp_path / "check-kernel"), "--npd", "--root", root],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("missing: ")


def test_the_reader_agrees_with_tomllib() -> None:
    text = FEATURES.read_text()
    assert _toml.parse(text) == tomllib.loads(text)


def test_the_reader_knows_its_part() -> None:
    text = '# c\n[a.b-c]\nx = "q \\"w\\" \\\\ \\t"\ny = [\n  "1", "2, 3",\n  "]",\n]\n[d]\nz = []\n'
    assert _toml.parse(text) == tomllib.loads(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1", "line 1: not a string"),
        ("\nx", "line 2: neither a table nor a key"),
        ('x = ["a", 1]', "line 1: not an array of strings"),
        ('x = ["a",', "line 1: an array without an end"),
        ('x = "a" # c', "line 1: not a string"),
        ('x = "a"\n[x.y]', "line 2: x is a key and a table"),
    ],
)
def test_what_the_reader_does_not_know_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        _toml.parse(text)
