"""``isula system events``: ``isula events`` under Docker's name."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

from isula_cli.commands.events import ARGUMENTS, OPTIONS, run

MISCOUNT = ('"system events" requires 0 arguments.', 1)
EXAMPLES = ("isula system events -n web",)
