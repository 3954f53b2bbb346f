"""The reaper: exit codes, output and time-outs of children, watched early or late."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, TypeVar

import pytest

from isula_edge.sys.process import Reaper, spawn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


def reaping(work: Callable[[Reaper], Awaitable[T]]) -> T:
    """``work(reaper)`` in a loop of its own."""

    async def main() -> T:
        reaper = Reaper()
        reaper.install()
        return await work(reaper)

    return asyncio.run(main())


def wait(pid: int) -> int:
    """Waits until a child has ended, and leaves it to be reaped: its signal or code."""
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert found is not None
    return found.si_status


def script(text: str) -> list[str]:
    return ["/bin/sh", "-c", text]


@pytest.mark.parametrize(
    ("text", "code"), [("exit 0", 0), ("exit 42", 42), ("kill -9 $$", 137), ("kill -15 $$", 143)]
)
def test_the_code_of_a_child(text: str, code: int) -> None:
    async def work(reaper: Reaper) -> int:
        return await reaper.watch(reaper.spawned(spawn(script(text))))

    assert reaping(work) == code


def test_a_child_that_ended_before_it_is_watched() -> None:
    async def work(reaper: Reaper) -> int:
        pid = reaper.spawned(spawn(script("exit 3")))
        wait(pid)
        reaper.reap()
        return await reaper.watch(pid)

    assert reaping(work) == 3


def test_what_ended_before_is_no_child_of_the_same_pid() -> None:
    async def work(reaper: Reaper) -> tuple[bool, int]:
        earlier = spawn(script("kill -9 $$"))
        wait(earlier)
        reaper.reap()
        # somebody else starts a child now, which happens to get the pid
        stale = reaper.watch(earlier, reaper.moment())
        since = reaper.moment()
        later = spawn(script("exit 5"))
        wait(later)
        reaper.reap()
        return stale.done(), await reaper.watch(later, since)

    assert reaping(work) == (False, 5)


def test_two_who_watch_the_same_child() -> None:
    async def work(reaper: Reaper) -> list[int]:
        pid = reaper.spawned(spawn(script("exit 4")))
        return list(await asyncio.gather(reaper.watch(pid), reaper.watch(pid)))

    assert reaping(work) == [4, 4]


def test_many_children_at_once_keep_their_codes() -> None:
    async def work(reaper: Reaper) -> list[int]:
        pids = [reaper.spawned(spawn(script(f"exit {code}"))) for code in range(20)]
        return list(await asyncio.gather(*(reaper.watch(pid) for pid in pids)))

    assert reaping(work) == list(range(20))


def test_a_reused_pid_does_not_get_the_code_of_its_predecessor() -> None:
    async def work(reaper: Reaper) -> bool:
        pid = reaper.spawned(spawn(script("exit 5")))
        wait(pid)
        reaper.reap()
        return reaper.watch(reaper.spawned(pid)).done()

    assert reaping(work) is False


def test_the_codes_that_nobody_asks_for_are_bounded() -> None:
    async def work(reaper: Reaper) -> int:
        reaper._KEPT = 2
        pids = [reaper.spawned(spawn(script("exit 6"))) for _ in range(4)]
        for pid in pids:
            wait(pid)
        reaper.reap()
        return sum(reaper.watch(pid).done() for pid in pids)

    assert reaping(work) == 2


def test_run_gives_code_output_and_error() -> None:
    async def work(reaper: Reaper) -> tuple[int, bytes, bytes]:
        return await reaper.run(script("echo out; echo err >&2; exit 9"))

    assert reaping(work) == (9, b"out\n", b"err\n")


def test_run_gives_its_data_to_the_child() -> None:
    async def work(reaper: Reaper) -> tuple[int, bytes, bytes]:
        return await reaper.run(["/bin/cat"], data=b"a document")

    assert reaping(work) == (0, b"a document", b"")


def test_run_bounds_what_it_keeps() -> None:
    async def work(reaper: Reaper) -> tuple[int, bytes, bytes]:
        return await reaper.run(script("head -c 3000000 /dev/zero"))

    code, out, _ = reaping(work)
    assert code == 0
    assert (1 << 20) <= len(out) < (1 << 20) + 65536


def test_a_child_that_does_not_read_its_data_is_no_failure() -> None:
    async def work(reaper: Reaper) -> tuple[int, bytes, bytes]:
        remember = reaper.spawned

        def spawned(pid: int) -> int:
            wait(pid)
            return remember(pid)

        reaper.spawned = spawned  # type: ignore[method-assign]
        return await reaper.run(script("exit 3"), data=b"nobody reads this")

    assert reaping(work) == (3, b"", b"")


def test_a_child_that_takes_too_long_is_killed() -> None:
    async def work(reaper: Reaper) -> tuple[int, list[str]]:
        before = os.listdir("/proc/self/fd")
        reader, writer = os.pipe()
        started: list[int] = []
        remember = reaper.spawned

        def spawned(pid: int) -> int:
            started.append(remember(pid))
            return pid

        reaper.spawned = spawned  # type: ignore[method-assign]
        with pytest.raises(TimeoutError):
            await reaper.run(["/bin/sleep", "1000"], timeout_s=0.01)
        os.close(reader)
        os.close(writer)
        return wait(started[0]), sorted(set(os.listdir("/proc/self/fd")) - set(before))

    assert reaping(work) == (signal.SIGKILL, [])


# vfork(2) is fork(2) in an emulator: posix_spawn(3) does not learn that exec failed
@pytest.mark.native
def test_a_program_that_does_not_exist_leaves_no_descriptor() -> None:
    async def work(reaper: Reaper) -> bool:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(FileNotFoundError):
            await reaper.run(["/nowhere/program"], data=b"x")
        return len(os.listdir("/proc/self/fd")) == before

    assert reaping(work)


def test_reaping_without_children_is_fine() -> None:
    async def work(reaper: Reaper) -> None:
        reaper.reap()

    reaping(work)
