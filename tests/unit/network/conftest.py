"""Fake plugins for the tests of networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes.cni import FakeCni

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def cni(tmp_path: Path) -> FakeCni:
    return FakeCni(tmp_path)
