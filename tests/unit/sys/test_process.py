"""Processes: who one is (case A29), how a child is started, and how it is waited for."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from isula_edge.sys.boot import boot_id
from isula_edge.sys.process import Identity, exit_code, gone, identify, signal_process, spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits for the end of its standard input."""
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as running:
        yield running
        running.kill()


def identity(pid: int) -> Identity:
    found = identify(pid)
    assert found is not None
    return found


def test_a_running_process_is_alive(child: subprocess.Popen[bytes]) -> None:
    assert identity(child.pid).alive()


def test_the_same_process_has_the_same_identity(child: subprocess.Popen[bytes]) -> None:
    assert identity(child.pid) == identity(child.pid)
    assert identity(child.pid).pid == child.pid


@pytest.mark.parametrize("delta", [-1, 1, 10**9])
def test_a29_another_start_time_is_another_process(
    child: subprocess.Popen[bytes], delta: int
) -> None:
    found = identity(child.pid)
    assert not replace(found, start_ticks=found.start_ticks + delta).alive()


@pytest.mark.parametrize("boot", ["", "00000000-0000-0000-0000-000000000000"])
def test_a29_another_boot_is_another_process(child: subprocess.Popen[bytes], boot: str) -> None:
    assert not replace(identity(child.pid), boot=boot).alive()


@pytest.mark.parametrize("pid", [0, -1])
def test_a_process_without_a_pid_is_not_alive(pid: int) -> None:
    assert not Identity(pid, 0, boot_id()).alive()


def test_a_zombie_is_not_alive(child: subprocess.Popen[bytes]) -> None:
    found = identity(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not found.alive()


def test_a_process_that_was_waited_for_has_no_identity(child: subprocess.Popen[bytes]) -> None:
    found = identity(child.pid)
    child.kill()
    child.wait()
    assert identify(child.pid) is None
    assert not found.alive()


def test_a_name_with_parentheses_and_blanks_is_read_past() -> None:
    code = (
        "import ctypes, sys; ctypes.CDLL(None).prctl(15, b') R 1 (x', 0, 0, 0);"
        "print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        running.stdout.readline()
        found = identity(running.pid)
        assert found.alive()
        assert found.start_ticks > 0


def test_the_boot_id_is_the_kernels() -> None:
    with open("/proc/sys/kernel/random/boot_id") as file:
        assert boot_id() == file.read().strip()


def no_pidfd(_pid: int) -> int:
    raise OSError(38, "Function not implemented")


@pytest.mark.parametrize("kernel", ["this", "before 5.3"])
def test_a_signal_reaches_the_process(
    child: subprocess.Popen[bytes], kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernel != "this":
        monkeypatch.setattr(os, "pidfd_open", no_pidfd)
    assert signal_process(identity(child.pid), signal.SIGTERM)
    assert child.wait() == -signal.SIGTERM


@pytest.mark.parametrize("kernel", ["this", "before 5.3"])
@pytest.mark.parametrize("change", ["start time", "boot"])
def test_a29_no_signal_goes_to_another_process(
    child: subprocess.Popen[bytes],
    change: str,
    kernel: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if kernel != "this":
        monkeypatch.setattr(os, "pidfd_open", no_pidfd)
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, _number: sent.append(pid))
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda fd, _number: sent.append(fd))
    found = identity(child.pid)
    if change == "boot":
        other = replace(found, boot="another")
    else:
        other = replace(found, start_ticks=found.start_ticks + 1)
    assert not signal_process(other, signal.SIGKILL)
    assert sent == []
    assert child.poll() is None


def test_a_process_that_is_gone_takes_no_signal(child: subprocess.Popen[bytes]) -> None:
    found = identity(child.pid)
    child.kill()
    child.wait()
    assert not signal_process(found, signal.SIGKILL)


def test_signalling_leaves_no_descriptor(child: subprocess.Popen[bytes]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    signal_process(identity(child.pid), 0)
    signal_process(replace(identity(child.pid), boot=""), 0)
    assert len(os.listdir("/proc/self/fd")) == before


def output(start: Callable[[int], int]) -> bytes:
    """What the child that ``start(fd)`` starts writes to ``fd``; it must succeed."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as file:
        try:
            pid = start(writer)
        finally:
            os.close(writer)
        data = file.read()
    assert exit_code(os.waitpid(pid, 0)[1]) == 0
    return data


SHOW = ["/bin/sh", "-c", 'echo "$1"; readlink /proc/$$/fd/0; readlink /proc/$$/fd/2', "x", "a b"]


def test_a_child_gets_its_arguments_and_null_for_what_is_not_given() -> None:
    assert output(lambda fd: spawn(SHOW, stdout=fd)) == b"a b\n/dev/null\n/dev/null\n"


def test_a_child_gets_only_a_clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    names = output(lambda fd: spawn(["/usr/bin/env"], stdout=fd)).split(b"\n")
    assert [name.partition(b"=")[0] for name in names] == [b"PATH", b""]
    given = output(lambda fd: spawn(["/usr/bin/env"], stdout=fd, env={"A": "b c"}))
    assert given == b"A=b c\n"


def test_nothing_of_the_engine_is_open_in_a_child(tmp_path: Path) -> None:
    with open(tmp_path / "private", "w") as file:
        show = ["/bin/sh", "-c", 'for fd in /proc/$$/fd/*; do readlink "$fd"; done; true']
        found = output(lambda fd: spawn(show, stdout=fd)).decode().split()
        assert "/dev/null" in found
        assert file.name not in found


def test_descriptors_go_to_the_numbers_asked_for(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("one")
    (tmp_path / "two").write_text("two")
    with open(tmp_path / "one") as first, open(tmp_path / "two") as second:
        one, two = first.fileno(), second.fileno()
        show = ["/bin/cat", f"/proc/self/fd/{one}", f"/proc/self/fd/{two}"]
        # each number is the source of another one: a plain row of dup2 would mix them up
        swapped = {one: two, two: one}
        assert output(lambda fd: spawn(show, stdout=fd, fds=swapped)) == b"twoone"


def test_a_new_session_has_the_child_as_its_leader() -> None:
    show = ["/bin/sh", "-c", "echo $$; cut -d' ' -f6 /proc/$$/stat"]
    pid, session = output(lambda fd: spawn(show, stdout=fd, new_session=True)).split()
    assert session == pid
    pid, session = output(lambda fd: spawn(show, stdout=fd)).split()
    assert int(session) == os.getsid(0)


def test_a_child_ends_by_sigpipe_although_python_ignores_it() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    pid = spawn(["/bin/sh", "-c", "echo x"], stdout=writer)
    os.close(writer)
    assert exit_code(os.waitpid(pid, 0)[1]) == 128 + signal.SIGPIPE


# vfork(2) is fork(2) in an emulator: posix_spawn(3) does not learn that exec failed
@pytest.mark.native
def test_a_program_that_does_not_exist_is_named_and_nothing_stays_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError) as caught:
        spawn(["/nowhere/program"], stdout=1)
    assert caught.value.filename == "/nowhere/program"
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(("status", "code"), [(0, 0), (7 << 8, 7), (9, 137), (139, 139)])
def test_exit_codes_are_the_shells(status: int, code: int) -> None:
    assert exit_code(status) == code


# the end of a process on kernels without pidfd


@pytest.fixture
def before_pidfd(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(pid: int) -> int:
        del pid
        raise OSError(errno.ENOSYS, "pidfd_open")

    monkeypatch.setattr(os, "pidfd_open", absent)


@pytest.mark.usefixtures("before_pidfd")
def test_without_pidfd_the_end_is_seen(child: subprocess.Popen[bytes]) -> None:
    async def scenario() -> None:
        ended = gone(identity(child.pid))
        done, _ = await asyncio.wait({ended}, timeout=0)
        assert not done
        child.kill()
        await asyncio.wait_for(ended, 60)

    asyncio.run(scenario())


@pytest.mark.usefixtures("before_pidfd")
def test_without_pidfd_nobody_looks_before_the_supervisor_has_ended(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    monkeypatch.setattr(Identity, "alive", lambda found: looks.append(found.pid))

    async def scenario() -> None:
        supervisor: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ended = gone(Identity(child.pid, 0, ""), lambda: supervisor)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert looks == []
        supervisor.set_result(None)
        await asyncio.wait_for(ended, 60)
        assert looks == [child.pid]

    asyncio.run(scenario())


@pytest.mark.usefixtures("before_pidfd")
def test_without_pidfd_waiting_can_be_given_up(child: subprocess.Popen[bytes]) -> None:
    async def scenario() -> None:
        supervisor: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ended = gone(identity(child.pid), lambda: supervisor)
        await asyncio.sleep(0)
        ended.cancel()
        await asyncio.wait({ended})
        assert ended.cancelled()
        assert supervisor.cancelled()

    asyncio.run(scenario())
