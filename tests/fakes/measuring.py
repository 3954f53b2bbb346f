"""An isulad whose wire also has what only the CRI asks for: new limits and statistics.

Run as a program: ``python -m tests.fakes.measuring [words of isulad]``.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tests.rig import Engine, program

if TYPE_CHECKING:
    from isula_edge import service

__all__ = ["Measuring", "main"]


class Measuring(Engine):
    """The test's side."""

    @property
    def command(self) -> list[str]:
        """The words that start the daemon."""
        words = super().command
        start = words.index(program("isulad"))
        return [*words[:start], sys.executable, "-m", "tests.fakes.measuring", *words[start + 1 :]]

    def call(self, method: str, **params: Any) -> Any:
        """The answer to one of the methods below."""
        from isula_edge.client import Client

        with Client(self.host) as client:
            return client.call(f"test.{method}", params)

    def start(self) -> Engine:
        """Starts it where this module is found."""
        root = str(Path(__file__).parents[2])
        self.env = {**self.env, "PYTHONPATH": root}
        return super().start()


async def _update(engine: service.engine.Engine, params: dict[str, Any], _: object) -> Any:
    from isula_edge.oci.resources import ResourceChange

    change = dict(params["change"])
    change["hugepages"] = tuple(tuple(item) for item in change.get("hugepages", ()))
    await engine.containers.update(engine.containers.get(params["ref"]), ResourceChange(**change))
    return {}


async def _stats(engine: service.engine.Engine, params: dict[str, Any], _: object) -> Any:
    containers = [engine.containers.get(ref) for ref in params["refs"]]
    found = await engine.stats.containers(containers, detailed=bool(params.get("detailed")))
    return {"items": [asdict(item) for item in found]}


async def _pod(engine: service.engine.Engine, params: dict[str, Any], _: object) -> Any:
    pod: Any = SimpleNamespace(
        id="pod", cgroup_parent=params["parent"], namespaces={"network": params.get("network")}
    )
    containers = [engine.containers.get(ref) for ref in params["refs"]]
    found = await engine.stats.pod(pod, containers, detailed=bool(params.get("detailed")))
    return asdict(found)


def main() -> int:
    """Runs the daemon."""
    from isula_edge.daemon.main import main as run
    from isula_edge.daemon.methods import METHODS

    METHODS.update({"test.update": _update, "test.stats": _stats, "test.pod": _pod})
    return run()


if __name__ == "__main__":
    sys.exit(main())
