"""Bundles for the tests of runtimes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

from isula_edge.runtime.base import Bundle
from isula_edge.types import ContainerId

if TYPE_CHECKING:
    from pathlib import Path

ID = "0123456789abcdef" * 4


class MakeBundle(Protocol):
    """Makes a bundle."""

    def __call__(self, spec: dict[str, Any] | None = None, **changes: Any) -> Bundle:
        """``spec`` is the runtime-spec document, ``changes`` are fields of the bundle."""


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    """A function that makes bundles whose directories exist."""

    def make(spec: dict[str, Any] | None = None, **changes: Any) -> Bundle:
        run = tmp_path / "state" / "lxc" / ID
        folder = tmp_path / "graph" / "engines" / "box"
        for path in (run, folder):
            path.mkdir(parents=True, exist_ok=True)
        fields: dict[str, Any] = {
            "id": ContainerId(ID),
            "name": "box",
            "dir": str(folder),
            "run_dir": str(run),
            "log_path": "/graph/engines/box/console.log",
            "spec": {} if spec is None else spec,
            "cgroup": f"isula/{ID}",
            **changes,
        }
        return Bundle(**fields)

    return make
