"""Calls are asked in a process that is thrown away: it may die, hang, or change itself."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from isula_edge import kernel
from isula_edge.kernel import Answer, State, _asker, _probe_calls
from isula_edge.kernel._asker import Asker
from tests.rig import children

if TYPE_CHECKING:
    from collections.abc import Iterator


def ask(name: str) -> Answer | None:
    """What the child is told to do by the name."""
    if name == "pid":
        return Answer(os.getpid())
    if name == "hang":
        time.sleep(600)
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "filtered":
        os.kill(os.getpid(), signal.SIGSYS)
    if name == "raises":
        raise OSError("unforeseen")
    if name == "descriptors":
        return Answer(len(os.listdir("/proc/self/fd")))
    return Answer(-1, name) if name.startswith("E") else None


@pytest.fixture
def asker() -> Iterator[Asker]:
    before = set(children(os.getpid()))
    made = Asker(ask, limit_s=0.3)
    yield made
    made.close()
    # what other tests have left may be there
    assert set(children(os.getpid())) <= before


def test_answers_come_from_one_other_process(asker: Asker) -> None:
    first, second = asker.answer("pid"), asker.answer("pid")
    assert first == second != Answer(os.getpid())
    assert asker.answer("ENOSYS") == Answer(-1, "ENOSYS")
    assert asker.answer("nothing") is None
    assert asker.unanswered == []


def test_a_call_that_hangs_is_given_up_and_the_next_is_asked(asker: Asker) -> None:
    before = asker.answer("pid")
    assert asker.answer("hang") is None
    assert asker.unanswered == ["hang"]
    after = asker.answer("pid")
    assert after is not None
    assert after != before


def test_a_child_that_dies_is_no_answer(asker: Asker) -> None:
    assert asker.answer("killed") is None
    assert asker.answer("ENODEV") == Answer(-1, "ENODEV")
    assert asker.answer("raises") is None
    assert asker.unanswered == ["killed", "raises"]


def test_a_filter_that_ends_the_child_denies(asker: Asker) -> None:
    assert asker.answer("filtered") == Answer(-1, "EPERM")
    assert asker.unanswered == []


def test_after_three_that_hang_nothing_is_asked(asker: Asker) -> None:
    for _ in range(3):
        assert asker.answer("killed") is None
    assert asker.answer("ENOSYS") is None
    assert asker.unanswered == ["killed"] * 3 + ["ENOSYS"]


def test_the_child_has_no_descriptors_of_ours(asker: Asker) -> None:
    with open("/dev/null") as one, open("/dev/null") as two:
        assert one.fileno() != two.fileno()
        answer = asker.answer("descriptors")
    # standard ones, two pipes, and the directory that is listed
    assert answer is not None
    assert answer.ret <= 6


def test_a_call_without_answer_is_unknown_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_asker, "LIMIT_S", 0.1)
    monkeypatch.setattr(Asker, "__init__", _short(Asker.__init__))
    monkeypatch.setitem(_probe_calls._ASK, "syscalls.openat2", lambda: time.sleep(600))
    features = kernel.probe()
    assert features.get("openat2").state is State.UNKNOWN
    assert features.source.unanswered == ("syscalls.openat2",)
    assert features.state("inotify") is State.PRESENT
    assert features.to_json()["unanswered"] == ["syscalls.openat2"]


def _short(init: object) -> object:
    def made(self: Asker, ask: object) -> None:
        init(self, ask, 0.3)  # type: ignore[operator]

    return made


def test_no_call_waits_for_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    flags: list[int] = []

    def call(name: str, *args: object) -> Answer:
        assert name == "getrandom"
        flags.append(int(args[2]))  # type: ignore[call-overload]
        return Answer(1)

    monkeypatch.setattr(_probe_calls, "_call", call)
    _probe_calls.ask("syscalls.getrandom")
    assert flags == [1]  # GRND_NONBLOCK


def test_devices_are_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise AssertionError("a device was opened")

    monkeypatch.setattr(os, "open", refuse)
    for path in _probe_calls.DEVICES:
        assert _probe_calls.ask(f"devices.{path}") is not None


@pytest.mark.native  # qemu-user passes namespaces on, but not what /proc says of them
def test_namespaces_are_left_in_one_more_process() -> None:
    def links() -> list[str]:
        names = ("mnt", "pid_for_children", "user", "uts", "net")
        return [os.readlink(f"/proc/self/ns/{name}") for name in names]

    before = links()
    for name in ("unshare.pid", "unshare.unpriv_user", "mount.overlay_userns"):
        _probe_calls.ask(name)
    _probe_calls.ask("mount.tmpfs_xattr_user")
    _probe_calls.ask("syscalls.setns_pidfd")
    assert links() == before


def test_the_child_dies_with_its_parent() -> None:
    """A parent that is killed leaves none behind."""
    out, into = os.pipe()
    parent = os.fork()
    if parent == 0:
        try:
            found = Asker(ask).answer("pid")
            assert found is not None
            os.write(into, str(found.ret).encode())
            signal.pause()
        finally:
            os._exit(0)
    os.close(into)
    child = int(os.read(out, 32))
    os.close(out)
    libc = ctypes.CDLL(None)
    libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: to see the child's end
    try:
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        # by the signal, or by the end of its questions, whichever it sees first
        _, status = os.waitpid(child, 0)
        assert status in (0, signal.SIGKILL)
    finally:
        libc.prctl(36, 0, 0, 0, 0)
