"""Case A31d: what a kubelet says of logs is checked, and nothing of its files is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cri.client import refused
from tests.cri.leavings import gone

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cri.node import Node

pytestmark = [pytest.mark.root, pytest.mark.lxc]


def test_a_directory_without_a_path_is_refused(node: Node, tmp_path: Path) -> None:
    """openEuler's manual: the directory was replaced by a link, and all that followed failed."""
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "other.log").write_text("kept")
    pod = node.pod(log_directory=str(logs))
    with refused("INVALID_ARGUMENT"):
        pod.create("true", log_path="")
    assert not logs.is_symlink()
    assert {path.name: path.read_text() for path in logs.iterdir()} == {"other.log": "kept"}
    assert node.call("ListContainers").containers == []
    # the next one is as ever
    container = pod.run("echo", "next")
    container.wait()
    assert container.printed() == ["next"]
    container.remove()
    pod.remove()
    gone(node.machine, [pod.id])


def test_missing_parents_are_made(node: Node, tmp_path: Path) -> None:
    pod = node.pod(log_directory=str(tmp_path / "not/yet/there"))
    container = pod.run("echo", "deep", log_path="deeper/still/0.log")
    container.wait()
    assert container.log == tmp_path / "not/yet/there/deeper/still/0.log"
    assert container.printed() == ["deep"]
    assert container.status().log_path == str(container.log)


def test_a_directory_that_went_is_made_again(node: Node, tmp_path: Path) -> None:
    """Between creation and start."""
    logs = tmp_path / "logs"
    container = node.pod(log_directory=str(logs)).create("echo", "back")
    for path in sorted(logs.rglob("*"), reverse=True):
        path.unlink()
    if logs.exists():
        logs.rmdir()
    container.start()
    container.wait()
    assert container.printed() == ["back"]


@pytest.mark.parametrize("target", ["file", "directory", "nothing"])
def test_a_link_is_not_followed(node: Node, tmp_path: Path, target: str) -> None:
    """Who may write where the logs are must not get at other files."""
    logs, other = tmp_path / "logs", tmp_path / "other"
    logs.mkdir()
    if target == "file":
        other.write_text("precious")
    elif target == "directory":
        other.mkdir()
    link = logs / "0.log"
    link.symlink_to(other)
    pod = node.pod(log_directory=str(logs))
    with refused("INVALID_ARGUMENT"):
        pod.create("echo", "written", log_path="0.log")
    assert link.is_symlink()
    if target == "file":
        assert other.read_text() == "precious"
    assert other.exists() == (target != "nothing")


def test_a_link_that_came_later_is_not_followed(node: Node, tmp_path: Path) -> None:
    logs, other = tmp_path / "logs", tmp_path / "other"
    other.write_text("precious")
    container = node.pod(log_directory=str(logs)).create("echo", "written")
    container.log.parent.mkdir(parents=True, exist_ok=True)
    container.log.unlink(missing_ok=True)
    container.log.symlink_to(other)
    with refused():
        container.start()
    assert other.read_text() == "precious"
    container.remove()


def test_a_log_directory_that_is_a_link_works(node: Node, tmp_path: Path) -> None:
    """/var/log/pods may be on another disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "logs").symlink_to(tmp_path / "disk")
    container = node.pod(log_directory=str(tmp_path / "logs")).run("echo", "there")
    container.wait()
    assert container.printed() == ["there"]
    assert (tmp_path / "disk" / container.log.name).is_file()


def test_a_log_of_an_earlier_container_goes_on(node: Node, tmp_path: Path) -> None:
    """The kubelet chooses the path: what is there already is kept."""
    (tmp_path / "0.log").write_text("2026-01-01T00:00:00.000000000Z stdout F before\n")
    container = node.pod(log_directory=str(tmp_path)).run("echo", "after", log_path="0.log")
    container.wait()
    assert container.printed() == ["before", "after"]


@pytest.mark.parametrize("path", [".", "..", "/", "a/", "a\nb", "x" * 300])
def test_paths_that_cannot_be(node: Node, tmp_path: Path, path: str) -> None:
    (tmp_path / "a").mkdir()
    before = sorted(tmp_path.rglob("*"))
    pod = node.pod(log_directory=str(tmp_path))
    with refused("INVALID_ARGUMENT"):
        pod.create("true", log_path=path)
    assert sorted(tmp_path.rglob("*")) == before
    assert pod.listed()


def test_a_file_where_the_directory_should_be(node: Node, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    pod = node.pod(log_directory=str(tmp_path / "file"))
    with refused("INVALID_ARGUMENT"):
        pod.create("true")
    assert (tmp_path / "file").read_text() == "kept"


def test_no_log_at_all(node: Node) -> None:
    """Neither directory nor path: a container without a log."""
    pod = node.pod(log_directory="")
    container = pod.run("echo", "unheard", log_path="")
    assert container.wait().exit_code == 0
    assert container.status().log_path == ""
    with refused("FAILED_PRECONDITION"):
        node.call("ReopenContainerLog", container_id=container.id)
