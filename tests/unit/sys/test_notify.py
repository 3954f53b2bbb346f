"""The service manager: messages to it, and sockets that it hands over."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from isula_edge.sys import data, syscalls
from isula_edge.sys.notify import listen_fds, notify

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_the_lines_arrive_in_one_message(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = str(tmp_path / "notify") if kind == "path" else f"@isula-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + address[1:] if kind == "abstract" else address)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        assert notify("READY=1", "STATUS=fine")
        assert manager.recv(100) == b"READY=1\nSTATUS=fine"


@pytest.mark.parametrize("address", ["", "/nowhere/notify", "relative"])
def test_without_a_manager_nothing_happens(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify("READY=1")


def test_sockets_of_another_process_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
    monkeypatch.setenv("LISTEN_FDS", "2")
    assert listen_fds() == []


def test_without_sockets_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LISTEN_PID", raising=False)
    assert listen_fds() == []


TAKE = """
import os
from isula_edge.sys.notify import listen_fds
os.environ["LISTEN_PID"] = str(os.getpid())
found = listen_fds()
left = [name for name in os.environ if name.startswith("LISTEN_")]
print(found, [os.get_inheritable(fd) for fd in found], left)
"""


def test_sockets_begin_at_three_and_are_not_inherited() -> None:
    found = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" 3</dev/null 4</dev/null', "x", sys.executable, "-c", TAKE],
        env={**os.environ, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "[3, 4] [False, False] []\n"


def test_a_failed_call_names_itself_and_its_subject() -> None:
    with pytest.raises(FileNotFoundError, match="inotify_add_watch: No such file") as caught:
        syscalls.inotify_add_watch(syscalls_fd(), "/nowhere", syscalls.IN_CREATE)
    assert caught.value.filename == "/nowhere"


def syscalls_fd() -> int:
    fd = syscalls.inotify_init()
    assert not os.get_inheritable(fd)
    assert not os.get_blocking(fd)
    copy = os.dup(fd)
    os.close(fd)
    return copy


@pytest.mark.parametrize("name", syscalls.__all__)
def test_every_exported_call_exists(name: str) -> None:
    assert hasattr(syscalls, name)


@pytest.mark.parametrize("name", ["kernel-checks", "profiles"])
def test_data_directories_are_found(name: str) -> None:
    assert os.path.isdir(data.data_dir(name))
