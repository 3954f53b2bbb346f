"""What an installed isula-edge consists of."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="hatchling is not installed")
TOP = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=TOP, check=True, capture_output=True)
    (path,) = folder.glob("isula_edge-*.whl")
    return path


def test_contents(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if ".dist-info" not in top} == {
        *("isula_edge", "isula_cli", "isula_cri"),
    }
    for name in (
        "isula_edge/_data/kernel-checks/features.toml",
        "isula_edge/_data/kernel-checks/check-kernel",
        "isula_cli/launcher.py",
        "isula_cri/__init__.py",
        # messages are made of these at the first import
        *(f"isula_cri/{name}.{kind}" for name in ("api", "nri") for kind in ("binpb", "proto")),
    ):
        assert name in names
    assert any(name.startswith("isula_edge/_data/profiles/arm64/") for name in names)
    assert any(name.startswith("isula_edge/_data/profiles/x86_64/") for name in names)
    assert not [name for name in names if "fixtures" in name or "tests" in name]


def test_scripts(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        text = archive.read(name).decode()
    assert text.splitlines() == [
        "[console_scripts]",
        "isula = isula_cli.main:main",
        "isulad = isula_edge.daemon.main:main",
    ]
