"""Log files as kubelets read and rotate them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.rig import until

if TYPE_CHECKING:
    from tests.cri.node import Node

pytestmark = [pytest.mark.root, pytest.mark.lxc]


def test_log(node: Node) -> None:
    """Spec: runtime should support starting container with log."""
    container = node.pod().run("sh", "-c", "echo one; echo two >&2; printf three")
    assert container.log.is_file()
    assert not container.log.is_symlink()
    container.wait()
    assert container.printed("stderr") == ["two"]
    assert container.printed() == ["one", "three"]


def test_the_log_is_there_when_the_container_has_started(node: Node) -> None:
    container = node.pod().run()
    assert container.log.read_text() == ""


def test_a_long_line_is_written_in_parts(node: Node) -> None:
    container = node.pod().run("sh", "-c", "head -c 40000 /dev/zero | tr '\\0' x; echo; echo end")
    container.wait()
    lines = container.log_lines()
    assert lines.pop() == ("stdout", "F", "end")
    assert "".join(text for _, _, text in lines) == "x" * 40000
    assert [tag for _, tag, _ in lines[:-1]] == ["P"] * (len(lines) - 1)
    assert lines[-1][1] == "F"
    assert len(lines) > 1


def test_reopen(node: Node) -> None:
    """Spec: runtime should support reopening container log."""
    container = node.pod().run("sh", "-c", "while :; do echo x; sleep 0.01; done")
    until(container.log_lines, "the log")
    old = container.log.with_suffix(".1")
    container.log.rename(old)
    node.call("ReopenContainerLog", container_id=container.id)
    assert container.log.exists()
    size = old.stat().st_size
    until(container.log_lines, "the new log")
    until(lambda: len(container.log_lines()) > 3, "the new log growing")
    assert old.stat().st_size == size


def test_a_refused_reopening_makes_no_file(node: Node) -> None:
    container = node.pod().run("true")
    container.wait()
    container.log.unlink()
    try:
        node.call("ReopenContainerLog", container_id=container.id)
    except Exception:  # noqa: BLE001 - whether it is refused is the engine's choice
        assert not container.log.exists()


def test_the_log_outlives_the_container(node: Node) -> None:
    container = node.pod().run("echo", "kept")
    container.wait()
    container.remove()
    assert container.log_lines() == [("stdout", "F", "kept")]


def test_a_terminal_writes_to_standard_output(node: Node) -> None:
    container = node.pod().run("sh", "-c", "echo one; echo two >&2", tty=True)
    container.wait()
    found = [(stream, text.rstrip("\r")) for stream, _, text in container.log_lines()]
    assert found == [("stdout", "one"), ("stdout", "two")]
