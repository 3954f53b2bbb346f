"""An engine whose steps are counted, to be killed or held at any of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.fakes.crashing import Plan
from tests.rig import Engine

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cri.node import Machine

__all__ = ["CountedEngine", "plan"]


class CountedEngine(Engine):
    """An engine that obeys :attr:`plan`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.plan = Plan(folder / "plan", folder, power=False)

    @property
    def command(self) -> list[str]:
        """The words that start the daemon."""
        return self.plan.command(super().command, len(self.network.prefix))


def plan(machine: Machine) -> Plan:
    """The plan of the machine's engine."""
    assert isinstance(machine.engine, CountedEngine)
    return machine.engine.plan
