"""A store and a registry for every test that wants them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from isula_edge.snapshot import LayerStore
from tests.fakes.registry import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """An empty graph of the copying driver, which needs no root and no kernel feature."""
    graph = tmp_path / "graph"
    for name in ("layers", "quarantine", "storage/vfs", "tmp"):
        os.makedirs(graph / name)
    return graph


@pytest.fixture
def store(graph: Path) -> LayerStore:
    """The layers of ``graph``."""
    return LayerStore(str(graph), "vfs")


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    """A registry on 127.0.0.1 in plain HTTP."""
    with FakeRegistry() as registry:
        yield registry


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies of the machine's environment play no part."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
