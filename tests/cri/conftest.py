"""One engine for all tests of the CRI."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cri import node as nodes

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def machine(images: Path) -> Iterator[nodes.Machine]:
    """The engine under test, or the one that ISULA_CRI_ENDPOINT names."""
    # not pytest's own: root of a pod's user namespace must get through to it
    with tempfile.TemporaryDirectory(prefix="isula-cri-", dir="/var/tmp") as folder:
        os.chmod(folder, 0o711)
        with nodes.machine(Path(folder), images) as found:
            yield found
