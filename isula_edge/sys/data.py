"""Where data files are: inside the installed package, or beside it in a clone."""

from __future__ import annotations

import os

__all__ = ["data_dir"]


def data_dir(name: str = "kernel-checks") -> str:
    """Path of a data directory: ``isula_edge/_data/<name>`` of an installed package if it
    is there, else ``<name>`` at the top of the clone."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    installed = os.path.join(package, "_data", name)
    if os.path.isdir(installed):
        return installed
    return os.path.join(os.path.dirname(package), name)
