"""What a user sees of a pull on a terminal, and what Ctrl-C does there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.screen import Screen
from tests.rig import Result, children, program, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.rig import Engine

pytestmark = [pytest.mark.root, pytest.mark.lxc]

ROOT = Path(__file__).parents[2]
LAYERS, LAYER_BYTES = 3, 2 << 20


class Slow:
    """An engine, and a registry that is slow until it is told not to be."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.process = subprocess.Popen(
            [
                *(*engine.network.prefix, sys.executable, "-m", "tests.fakes.slow_registry"),
                *(str(LAYERS), str(LAYER_BYTES)),
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.image = self.process.stdout.readline().strip()
        host = self.image.partition("/")[0]
        engine.configure({"insecure-registries": [host]})
        engine.restart()

    def rate(self, bytes_per_s: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{bytes_per_s}\n")
        self.process.stdin.flush()

    def client(self, screen: Screen, *words: str) -> subprocess.Popen[bytes]:
        """A client whose terminal is the screen: what is typed there reaches it as signals."""
        environment = {**self.engine.client_env, "TERM": "xterm"}
        environment.pop("NO_COLOR", None)
        found = subprocess.Popen(
            [shutil.which("setsid") or "setsid", "--ctty", program("isula"), *words],
            stdin=screen.slave,
            stdout=screen.slave,
            stderr=screen.slave,
            env=environment,
        )
        self.engine.clients.append(found)
        return found

    def close(self) -> None:
        with self.process:
            self.process.kill()

    @property
    def workers(self) -> list[int]:
        return list(children(self.engine.pid))

    def unfinished(self) -> list[str]:
        storage = self.engine.graph / "storage" / "overlay"
        return [name for name in os.listdir(storage) if name.startswith("ingest-")]


@pytest.fixture
def slow(make_engine: Callable[..., Engine]) -> Iterator[Slow]:
    found = Slow(make_engine(load=False))
    try:
        yield found
    finally:
        found.close()


def downloading(screen: Screen) -> bool:
    """Whether a bar shows that bytes have come."""
    return any(re.search(r"Downloading.*\[=*>", line) for line in screen.lines())


def test_bars_on_a_terminal(slow: Slow) -> None:
    with Screen(24, 80) as screen:
        client = slow.client(screen, "pull", slow.image)
        until(lambda: downloading(screen), "a bar")
        slow.rate(0)
        until(lambda: client.poll() is not None or not screen.lines(), "the end")
        assert client.wait(60) == 0
        lines = screen.lines()
    assert lines[0] == f'Image "{slow.image}" pulling'
    assert [line.partition(": ")[2] for line in lines[1 : LAYERS + 1]] == ["Done"] * LAYERS
    assert re.fullmatch(
        rf"{LAYERS} layers, 6\.\d+MB: 6\.\d+MB fetched, 0B already there", lines[-2]
    )
    assert lines[-1] == f'Image "{slow.image}" pulled'


def test_a_terminal_with_fewer_lines_than_layers(slow: Slow) -> None:
    with Screen(3, 80) as screen:
        client = slow.client(screen, "pull", slow.image)
        until(lambda: any("more:" in line for line in screen.lines()), "the line for the others")
        screen.resize(2, 60)
        slow.rate(0)
        assert client.wait(60) == 0
        assert any(line.startswith("3 more: 3 Done") for line in screen.lines())


def test_lines_in_a_pipe_and_nothing_when_quiet(slow: Slow) -> None:
    slow.rate(0)
    result = slow.engine.isula("pull", slow.image)
    assert (result.code, result.out) == (0, "")
    assert "\x1b" not in result.err
    lines = result.err.splitlines()
    for word in ("Downloading", "Done"):
        assert sum(line.endswith(f": {word}") for line in lines) == LAYERS
    again = slow.engine.isula("pull", slow.image)
    assert sum(line.endswith(": Exists") for line in again.err.splitlines()) == LAYERS
    assert f"{LAYERS} layers, 6.29MB: 0B fetched, 6.29MB already there" in again.err
    slow.engine.ok("rmi", slow.image)
    assert slow.engine.isula("pull", "-q", slow.image) == Result(0, f"{slow.image}\n", "")


def test_one_of_two_who_pull_is_interrupted(slow: Slow) -> None:
    with Screen() as first, Screen() as second:
        before = subprocess.run(["stty", "-g"], stdin=first.slave, capture_output=True, check=True)
        leaving = slow.client(first, "pull", slow.image)
        until(lambda: downloading(first), "a bar of the first")
        staying = slow.client(second, "pull", slow.image)
        until(lambda: downloading(second), "a bar of the second")
        (worker,) = slow.workers
        os.write(first.master, b"\x03")
        assert leaving.wait(60) == 130
        # the terminal: its modes, and the cursor at the beginning of an empty line
        after = subprocess.run(["stty", "-g"], stdin=first.slave, capture_output=True, check=True)
        assert after.stdout == before.stdout
        lines = first.lines()
        assert len(lines) == LAYERS + 1
        assert "^C" not in "".join(lines)
        assert first.data.endswith("\r\n\x1b[J")
        # the other one goes on with the same worker
        assert slow.workers == [worker]
        slow.rate(0)
        assert staying.wait(60) == 0
        assert second.lines()[-1] == f'Image "{slow.image}" pulled'
    assert slow.engine.image(slow.image)["repo_tags"] == [slow.image]


def test_both_who_pull_are_interrupted(slow: Slow) -> None:
    with Screen() as first, Screen() as second:
        clients = [slow.client(screen, "pull", slow.image) for screen in (first, second)]
        until(lambda: downloading(first) and downloading(second), "a bar on both")
        assert len(slow.workers) == 1
        until(slow.unfinished, "a layer that is being unpacked")
        for screen, client in zip((first, second), clients, strict=True):
            os.write(screen.master, b"\x03")
            assert client.wait(60) == 130
    until(lambda: not slow.workers, "the end of the worker")
    assert slow.unfinished() == []
    assert slow.engine.ok("images", "-q") == ""
    # and nothing hinders the next one
    slow.rate(0)
    slow.engine.ok("pull", slow.image)
