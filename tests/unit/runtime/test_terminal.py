"""Terminals: what LXC needs of the kernel, and what a new one is like."""

from __future__ import annotations

import errno
import fcntl
import os
import termios
from typing import TYPE_CHECKING

import pytest

from isula_edge.runtime import terminal

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def _forgotten() -> Iterator[None]:
    """The kernel is asked anew."""
    terminal.lxc_can_open.cache_clear()
    yield
    terminal.lxc_can_open.cache_clear()


@pytest.mark.usefixtures("_forgotten")
@pytest.mark.parametrize(("number", "can"), [(errno.EINVAL, False), (errno.ENOTTY, True)])
def test_lxc_takes_another_way_for_one_error_only(
    monkeypatch: pytest.MonkeyPatch, number: int, can: bool
) -> None:
    def refuse(fd: int, request: int, flags: int) -> int:
        assert request == 0x5441
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    before = os.listdir("/proc/self/fd")
    assert terminal.lxc_can_open() is can
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize("raw", [True, False])
def test_a_terminal_is_raw_or_as_a_person_wants_it(raw: bool) -> None:
    master, slave, name = terminal.open_pty(raw=raw)
    try:
        assert os.ttyname(slave) == name
        flags = termios.tcgetattr(slave)[3]
        assert bool(flags & termios.ECHO) is not raw
        assert bool(flags & termios.ISIG) is not raw
    finally:
        os.close(master)
        os.close(slave)
