"""Machines of all profiles, and how a program for one is run here."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge.profile.code import Code, find
from isula_edge.profile.profile import all_profiles

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["EVERY", "MACHINES", "RUNNING", "code_of", "run"]

MACHINES = tuple(profile.machines[0] for profile in all_profiles())
"""A word of uname for each profile."""
EVERY = pytest.mark.parametrize("machine", MACHINES)


def _starter(machine: str) -> list[str] | None:
    """The words before a program for ``machine``; None where it cannot be run.

    Not by binfmt_misc: what this machine happens to have registered decides nothing.
    """
    if os.uname().machine in code_of(machine).profile.machines:
        return []
    emulator = shutil.which(f"{code_of(machine).profile.emulator}-static")
    return [emulator] if emulator else None


def code_of(machine: str) -> Code:
    found = find(machine)
    assert found is not None
    return found


def _marks(machine: str) -> list[pytest.MarkDecorator]:
    if _starter(machine) == []:
        return []
    # the root file system of an emulated suite has no emulator of others
    absent = _starter(machine) is None and not os.environ.get("ISULA_TEST_ALL")
    reason = f"no emulator for {machine}: package qemu-user-static"
    return [pytest.mark.native, pytest.mark.skipif(absent, reason=reason)]


RUNNING = pytest.mark.parametrize(
    "machine", [pytest.param(machine, marks=_marks(machine)) for machine in MACHINES]
)
"""Each machine whose programs can be run."""


def run(
    machine: str, program: Path, *words: str, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Runs a program for ``machine``, to its end."""
    starter = _starter(machine)
    assert starter is not None, f"no emulator for {machine}"
    return subprocess.run(
        [*starter, str(program), *words],
        **{"capture_output": True, "text": True, "check": False, "timeout": 60, **options},
    )
