"""Listening sockets: made with their mode, taken over from the dead, left to the living."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.daemon import sockets

if TYPE_CHECKING:
    from pathlib import Path

# the socket is given to root, which only root may do
root = pytest.mark.root


@root
def test_a_socket_is_made_for_root_and_the_group(tmp_path: Path) -> None:
    path = tmp_path / "run/new/d.sock"
    (made,) = sockets.listen([f"unix://{path}"], "12345")
    try:
        state = path.stat()
        assert stat.S_ISSOCK(state.st_mode)
        assert stat.S_IMODE(state.st_mode) == 0o660
        assert (state.st_uid, state.st_gid) == (0, 12345)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    finally:
        sockets.remove([made])
    assert not path.exists()


@root
def test_every_host_has_a_socket(tmp_path: Path) -> None:
    hosts = [f"unix://{tmp_path}/{name}" for name in "ab"]
    made = sockets.listen(hosts, "0")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    sockets.remove(made)
    sockets.remove(made)
    assert os.listdir(tmp_path) == []


@root
def test_the_socket_of_a_dead_daemon_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "d.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    made = sockets.listen([f"unix://{path}"], "0")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    sockets.remove(made)


@root
def test_the_socket_of_a_living_daemon_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "d.sock")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        with pytest.raises(errors.Unavailable, match="in use by another program"):
            sockets.listen([f"unix://{tmp_path}/a", f"unix://{path}"], "0")
        assert os.listdir(tmp_path) == ["d.sock"]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("keep")
    with pytest.raises(errors.EngineError):
        sockets.remove(sockets.listen([f"unix://{path}"], "0"))
    assert path.read_text() == "keep"


@root
def test_the_socket_of_a_successor_is_not_deleted(tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    made = sockets.listen([f"unix://{path}"], "0")
    path.rename(tmp_path / "old")
    path.write_text("of another")
    sockets.remove(made)
    assert path.read_text() == "of another"


def test_a_group_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidArgument, match="there is no group no-such") as caught:
        sockets.listen([f"unix://{tmp_path}/d.sock"], "no-such")
    assert caught.value.hint == "groupadd --system no-such"
    assert os.listdir(tmp_path) == []


@root
def test_a_place_that_cannot_be_bound_is_named(tmp_path: Path) -> None:
    path = f"{tmp_path}/{'x' * 120}"
    with pytest.raises(errors.Unavailable, match=f"cannot listen on unix://{path}"):
        sockets.listen([f"unix://{path}"], "0")


GIVEN = """
import os, socket, sys
from isula_edge.daemon import sockets
os.dup2(int(sys.argv[3]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
(found,) = sockets.listen(["unix://" + sys.argv[1]], "no-such-group")
print(found.getsockname(), found.fileno())
sockets.remove([found])
print(os.path.exists(sys.argv[2]), os.path.exists(sys.argv[1]))
"""


def test_a_socket_of_the_service_manager_is_used_and_stays(tmp_path: Path) -> None:
    path = str(tmp_path / "d.sock")
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(path)
        given.listen()
        words = [f"{path}2", path, str(given.fileno())]
        found = subprocess.run(
            [sys.executable, "-c", GIVEN, *words],
            env={**os.environ, "LISTEN_FDS": "1"},
            pass_fds=[given.fileno()],
            capture_output=True,
            text=True,
            check=True,
        )
    assert found.stdout == f"{path} 3\nTrue False\n"
