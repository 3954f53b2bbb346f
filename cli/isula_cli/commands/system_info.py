"""``isula system info``: ``isula info`` under Docker's name."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

from isula_cli.commands.info import ARGUMENTS, OPTIONS, run

MISCOUNT = ('"system info" requires 0 arguments.', 1)
EXAMPLES = ("isula system info",)
