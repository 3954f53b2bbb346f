"""Saved kernels for the tests: real ones from the archive, and made-up ones."""

from __future__ import annotations

import json
import os
import tarfile
from typing import TYPE_CHECKING, Protocol

import pytest

from isula_edge import kernel

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ARCHIVE = os.path.join(os.path.dirname(__file__), "../../../kernel-checks/fixtures/kernels.tar.xz")


class Made(Protocol):
    """Makes a saved kernel of files and answers."""

    def __call__(
        self, files: Mapping[str, str], calls: Mapping[str, str] | None = None
    ) -> kernel.Saved:
        """``calls`` maps ``group.name`` to an errno's name or ''."""


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with the real kernels, one directory each."""
    root = tmp_path_factory.mktemp("kernels")
    with tarfile.open(ARCHIVE) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4
        archive.extractall(root)
    return root


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A function that makes a saved kernel."""

    def make(files: Mapping[str, str], calls: Mapping[str, str] | None = None) -> kernel.Saved:
        root = tmp_path / f"made{len(os.listdir(tmp_path))}"
        (root / "proc").mkdir(parents=True)
        for name, text in files.items():
            path = root / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        groups: dict[str, dict[str, object]] = {}
        for name, word in (calls or {}).items():
            group, _, call = name.partition(".")
            groups.setdefault(group, {})[call] = {"ret": -1 if word else 0, "errname": word}
        (root / "syscalls.json").write_text(json.dumps(groups))
        return kernel.Saved(str(root))

    return make
