"""Options as a client sends them, read on a machine of four CPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

from isula_edge.oci import capabilities, options

if TYPE_CHECKING:
    from isula_edge.oci.options import Settings


class Parse(Protocol):
    """Reads options."""

    def __call__(self, **options: Any) -> Settings:
        """Options by their long names."""


@pytest.fixture
def parse() -> Parse:
    """A function that reads options: four CPUs, of which 0-3 may be used, and node 0."""

    def read(**given: Any) -> Settings:
        return options.parse(given, cpus=4, cpuset="0-3", mems="0")

    return read


@pytest.fixture
def capable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine may hand on every capability, whoever runs the tests."""
    monkeypatch.setattr(capabilities, "bounding_set", lambda: frozenset(capabilities.ALL))
