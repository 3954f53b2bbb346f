"""Case A31h: a log ends with a whole line, and its rotation loses nothing."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.cri.node import EXITED, Container, Pod, log_records
from tests.rig import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cri.node import Node

pytestmark = [pytest.mark.root, pytest.mark.lxc]
_BOTH = "printf out; printf err >&2"


def ends_whole(container: Container) -> None:
    """The last record of each stream has the tag F, and nothing that was written is missing."""
    records = container.log_lines()
    for stream, text in (("stdout", "out"), ("stderr", "err")):
        mine = [record for record in records if record[0] == stream]
        assert mine[-1][1] == "F", records
        assert "".join(text for _, _, text in mine) == text


@pytest.mark.parametrize("ending", ["exit 0", "exit 3", "kill -9 $$"])
def test_a_line_without_an_end(node: Node, ending: str) -> None:
    container = node.pod().run("sh", "-c", f"{_BOTH}; {ending}")
    container.wait()
    ends_whole(container)


@pytest.mark.parametrize("timeout", [0, 1])
def test_a_line_cut_by_a_stop(node: Node, timeout: int) -> None:
    container = node.pod().run("sh", "-c", f"{_BOTH}; exec sleep 1000")
    until(lambda: len(container.log_lines()) == 2, "both lines begun")
    assert {tag for _, tag, _ in container.log_lines()} == {"P"}
    container.stop(timeout)
    ends_whole(container)


def test_a_line_cut_while_the_engine_is_down(node: Node) -> None:
    script = f"{_BOTH}; while [ ! -e /stop ]; do sleep 0.01; done"
    container = node.pod().run("sh", "-c", script)
    container.exec("sh", "-c", "(sleep 0.5; touch /stop) >/dev/null 2>&1 &")
    node.forget()
    engine = node.machine.own
    engine.stop(signal.SIGKILL)
    engine.start()
    later = node.machine.node()
    pod = Pod(later, container.pod.config, container.pod.id)
    again = Container(pod, container.config, container.id)
    assert again.wait().state == EXITED
    ends_whole(again)
    pod.remove()
    later.close()


def rotate(container: Container, number: int) -> Path:
    """What a kubelet does: the file that was."""
    old = container.log.with_suffix(f".{number:03}")
    container.log.rename(old)
    container.pod.node.call("ReopenContainerLog", container_id=container.id)
    return old


@pytest.mark.parametrize("width", [0, 20_000], ids=["short lines", "long lines"])
def test_rotation_loses_nothing(node: Node, width: int) -> None:
    """Lines are numbered, so one that is lost, doubled, cut or out of order is seen."""
    script = (
        f"pad=$(head -c {width} /dev/zero | tr '\\0' x); i=0; "
        "while [ ! -e /stop ]; do echo $i $pad; i=$((i+1)); done; printf 'the end'"
    )
    container = node.pod().run("sh", "-c", script)
    files = []
    for number in range(10):
        until(lambda: container.log.stat().st_size > 100_000, "lines")
        files.append(rotate(container, number))
    container.exec("touch", "/stop")
    container.wait()
    records = [record for path in [*files, container.log] for record in log_records(path)]
    assert records[-1][1] == "F"
    assert {stream for stream, _, _ in records} == {"stdout"}
    text = "".join(text + ("\n" if tag == "F" else "") for _, tag, text in records)
    lines = text.splitlines()
    assert lines.pop() == "the end"
    assert len(lines) > 50
    assert [line.split()[0] for line in lines] == [str(number) for number in range(len(lines))]
    assert all(line.count("x") == width for line in lines)


def test_rotation_when_the_engine_was_restarted(node: Node) -> None:
    container = node.pod().run("sh", "-c", "while :; do echo x; sleep 0.01; done")
    until(container.log_lines, "the log")
    node.forget()
    node.machine.own.restart()
    later = node.machine.node()
    pod = Pod(later, container.pod.config, container.pod.id)
    again = Container(pod, container.config, container.id)
    old = rotate(again, 0)
    size = old.stat().st_size
    until(lambda: len(again.log_lines()) > 3, "the new log growing")
    assert old.stat().st_size == size
    pod.remove()
    later.close()
