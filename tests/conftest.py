"""What a machine cannot do is skipped, and the reason is said."""

from __future__ import annotations

import glob
import os
import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable


def _lacks() -> dict[str, str]:
    """Markers of the tests that cannot be run here, and why."""
    lacks = {}
    if os.geteuid() != 0:
        lacks["root"] = "needs to be root"
    if shutil.which("lxc-start") is None:
        lacks["lxc"] = "lxc-start is not installed"
    if not glob.glob("/proc/sys/fs/binfmt_misc/qemu-*"):
        lacks["qemu"] = "no emulator is registered: ci/qemu/register"
    return lacks


def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    """Skips by marker; with ISULA_TEST_ALL nothing is skipped, so that a lack is a failure."""
    if os.environ.get("ISULA_TEST_ALL"):
        return
    lacks = _lacks()
    for item in items:
        for name in lacks.keys() & {mark.name for mark in item.iter_markers()}:
            item.add_marker(pytest.mark.skip(reason=lacks[name]))
