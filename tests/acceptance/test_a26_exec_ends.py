"""Case A26: an exec ends with its process, whatever holds its streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig import Engine

pytestmark = [pytest.mark.root, pytest.mark.lxc]


@pytest.fixture
def target(engine: Engine, runtime: str) -> Iterator[str]:
    """A running container; its name."""
    engine.ok("run", "-d", "--name", "t26", "--runtime", runtime, "busybox", "sleep", "1000")
    yield "t26"
    engine.ok("rm", "-f", "t26")


def test_end_of_file_of_standard_input_reaches_the_process(engine: Engine, target: str) -> None:
    result = engine.isula("exec", "-i", target, "cat", stdin=b"hello\n", timeout_s=30)
    assert (result.code, result.out) == (0, "hello\n")


def test_a_silent_child_in_the_background_holds_nothing_up(engine: Engine, target: str) -> None:
    result = engine.isula("exec", target, "sh", "-c", "sleep 1000 & echo out; exit 3", timeout_s=30)
    assert (result.code, result.out) == (3, "out\n")


def test_a_child_that_keeps_on_writing_holds_nothing_up(engine: Engine, target: str) -> None:
    result = engine.isula("exec", target, "sh", "-c", "yes & echo begin; exit 4", timeout_s=30)
    assert result.code == 4
    assert "begin" in result.out


def test_a_container_whose_child_keeps_the_streams_ends_with_pid_1(
    engine: Engine, runtime: str
) -> None:
    result = engine.isula(
        "run", "--rm", "--runtime", runtime, "busybox", "sh", "-c", "sleep 1000 & exit 5",
        timeout_s=30,
    )  # fmt: skip
    assert result.code == 5
