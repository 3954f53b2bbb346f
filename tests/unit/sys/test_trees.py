"""Processes with everything below them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from isula_edge.sys import process, trees

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SUBREAPER = """\
import ctypes, os, subprocess, sys, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
subprocess.Popen(["sh", "-c", sys.argv[1]], start_new_session=True)
while True:
    time.sleep(1000)
"""


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def marked(path: Path) -> set[int]:
    """Processes whose environment names ``path``."""
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
            if str(path).encode() in file.read() and int(name) != os.getpid():
                found.add(int(name))
    return found


def test_who_is_whose_parent() -> None:
    with subprocess.Popen(["sleep", "1000"]) as child:
        assert trees.parent(child.pid) == os.getpid()
        child.kill()
    assert trees.parent(child.pid) is None
    for pid in (0, -1, 4194304):
        assert trees.parent(pid) is None


@pytest.mark.parametrize(
    ("script", "count"),
    [
        ("sleep 1000", 2),
        ("sleep 1000 & sleep 1000 & wait", 4),
        # orphans, in a session of their own
        ("(setsid sleep 1000 &); (setsid sleep 1000 &); sleep 1000", 4),
        # somebody who makes more all the time
        ("while :; do (sleep 1000 &); sleep 0.05; done", 5),
    ],
)
@pytest.mark.native
def test_a_tree_is_ended_whole(tmp_path: Path, script: str, count: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SUBREAPER, script], env={**os.environ, "MARK": str(tmp_path)}
    ) as root:
        until(lambda: len(marked(tmp_path)) >= count)
        found = process.identify(root.pid)
        assert found is not None
        asyncio.run(trees.end_tree(found))
        assert root.wait(60) == -signal.SIGKILL
    assert marked(tmp_path) == set()


def test_a_process_that_is_gone_is_fine() -> None:
    with subprocess.Popen(["true"]) as child:
        found = process.Identity(child.pid, 1, "another boot")
    asyncio.run(trees.end_tree(found))
    assert asyncio.run(trees.end([found]))


def test_others_are_left_alone(tmp_path: Path) -> None:
    environment = {**os.environ, "MARK": str(tmp_path)}
    with (
        subprocess.Popen(["sleep", "1000"], env=environment) as other,
        subprocess.Popen(["sleep", "1000"]) as root,
    ):
        found = process.identify(root.pid)
        assert found is not None
        asyncio.run(trees.end_tree(found))
        assert other.poll() is None
        assert root.wait(60) == -signal.SIGKILL
        other.kill()
