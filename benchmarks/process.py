"""Starts programs and times them, without threads: the harness must not cost the engines time.

SIGCHLD stays blocked in the harness and is waited for, so that a batch of any size is reaped
as it ends; children get the signals as a shell would give them.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.statistics import Sample

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Batch", "Output", "Step", "capture", "prepare", "run_chains", "spawn", "wait_for"]

_NULL = "/dev/null"


@dataclass(frozen=True, slots=True)
class Step:
    """A command; without an operation it is not timed."""

    operation: str | None
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """All samples of some commands, and the wall time of the whole."""

    samples: tuple[Sample, ...]
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Output:
    """What a command said."""

    status: int
    out: str
    err: str


@dataclass(slots=True)
class _Running:
    step: Step
    rest: Iterator[Step]
    began: float
    deadline: float
    timed_out: bool = False


def prepare() -> None:
    """Blocks SIGCHLD, which everything else here relies on."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})


def spawn(argv: Sequence[str], env: Mapping[str, str], out: str = _NULL, err: str = _NULL) -> int:
    """Starts a program with stdin from /dev/null: its process id."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, _NULL, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, out, flags, 0o600),
        (os.POSIX_SPAWN_OPEN, 2, err, flags, 0o600),
    ]
    return os.posix_spawn(
        argv[0],
        list(argv),
        env,
        file_actions=actions,
        setsigmask=(),
        setsigdef=(signal.SIGPIPE, signal.SIGINT, signal.SIGTERM),
    )


def run_chains(chains: Sequence[Sequence[Step]], env: Mapping[str, str], timeout_s: float) -> Batch:
    """Runs all chains at once, the commands of a chain one after another.

    A chain ends at its first failure; a command that takes too long is killed.
    """
    running: dict[int, _Running] = {}
    samples: list[Sample] = []

    def advance(rest: Iterator[Step]) -> None:
        step = next(rest, None)
        if step is not None:
            began = time.perf_counter()
            pid = spawn(step.argv, env)
            running[pid] = _Running(step, rest, began, began + timeout_s)

    began = time.perf_counter()
    for chain in chains:
        advance(iter(chain))
    while running:
        for pid in list(running):
            sample = _reap(pid, running[pid])
            if sample is not None:
                samples.append(sample)
                rest = running.pop(pid).rest
                if not sample.failed:
                    advance(rest)
        _await_child(running)
    return Batch(tuple(samples), time.perf_counter() - began)


def _reap(pid: int, process: _Running) -> Sample | None:
    """The sample of a process that has ended."""
    reaped, status, usage = os.wait4(pid, os.WNOHANG)
    now = time.perf_counter()
    if reaped == 0:
        if now > process.deadline and not process.timed_out:
            process.timed_out = True
            os.kill(pid, signal.SIGKILL)
        return None
    return Sample(
        process.step.operation,
        process.step.argv,
        now - process.began,
        usage.ru_utime + usage.ru_stime,
        os.waitstatus_to_exitcode(status),
        process.timed_out,
    )


def _await_child(running: Mapping[int, _Running]) -> None:
    """Sleeps until a child has ended or the first deadline has passed."""
    waited = [process.deadline for process in running.values() if not process.timed_out]
    if not running:
        return
    left = min(waited, default=time.perf_counter() + 1) - time.perf_counter()
    signal.sigtimedwait({signal.SIGCHLD}, max(left, 0) + 0.001)


def wait_for(pid: int, timeout_s: float) -> int | None:
    """Exit status of a child, or None when it has not ended in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        reaped, status = os.waitpid(pid, os.WNOHANG)
        if reaped:
            return os.waitstatus_to_exitcode(status)
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        # another child's signal may have been taken for this one's: look again soon
        signal.sigtimedwait({signal.SIGCHLD}, min(left, 0.1))


def capture(argv: Sequence[str], env: Mapping[str, str], timeout_s: float) -> Output:
    """Runs a command that is not timed and keeps what it says."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = f"{folder}/out", f"{folder}/err"
        pid = spawn(argv, env, out, err)
        status = wait_for(pid, timeout_s)
        if status is None:
            os.kill(pid, signal.SIGKILL)
            status = wait_for(pid, timeout_s)
        texts = []
        for path in (out, err):
            with open(path, encoding="utf-8", errors="replace") as file:
                texts.append(file.read())
    return Output(-1 if status is None else status, texts[0], texts[1])
