"""A number of transfers at once, over all processes."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.image.slots import Slots
from tests.fakes.jobs import FakeDaemon

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = """\
import sys
from isula_edge.image.job import Job
from isula_edge.image.slots import Slots
with Slots(sys.argv[1], 2).one(Job(print)):
    print("in", flush=True)
    sys.stdin.read()
"""


class WaitedError(Exception):
    """There was a wait."""


class Impatient(FakeDaemon):
    """Whose job does not wait."""

    def __init__(self) -> None:
        super().__init__()

        def refuse(_seconds: float) -> None:
            raise WaitedError

        self.job.sleep = refuse  # type: ignore[method-assign,assignment]


def test_as_many_as_there_are(tmp_path: Path) -> None:
    job = Impatient().job
    slots = Slots(str(tmp_path), 2)
    with slots.one(job):
        with slots.one(job), pytest.raises(WaitedError), Slots(str(tmp_path), 2).one(job):
            pass
        with slots.one(job):
            pass
        with pytest.raises(WaitedError), Slots(str(tmp_path), 1).one(job):
            pass
    with Slots(str(tmp_path), 0).one(job):
        pass


def test_a_slot_of_a_killed_process_is_free(tmp_path: Path) -> None:
    job = Impatient().job
    slots = Slots(str(tmp_path), 1)
    words = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"in\n"
        with pytest.raises(WaitedError), slots.one(job):
            pass
        holder.kill()
    with slots.one(job):
        pass


def test_who_waits_gets_the_next_one_or_is_cancelled(tmp_path: Path) -> None:
    daemon = FakeDaemon()
    slots = Slots(str(tmp_path), 1)
    waited = threading.Event()
    with contextlib.ExitStack() as taken:
        taken.enter_context(slots.one(daemon.job))

        def sleep(seconds: float) -> None:
            daemon.clock.sleep(seconds)
            if not waited.is_set():
                waited.set()
                taken.close()

        daemon.job._sleep = sleep
        with slots.one(daemon.job):
            assert waited.is_set()
            daemon.job.cancel()
            with pytest.raises(errors.Aborted), slots.one(daemon.job):
                pass
