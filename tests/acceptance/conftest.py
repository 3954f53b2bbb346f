"""An engine that serves the CRI, for the tests of one file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cri import node as nodes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def machine(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[nodes.Machine]:
    """The engine, with a registry and CNI beside it."""
    with nodes.machine(tmp_path_factory.mktemp("machine"), images) as found:
        yield found
