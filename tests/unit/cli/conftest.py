"""The client in this process, and a made-up daemon for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import pytest

from isula_cli.main import main
from isula_edge.client import Client
from tests.unit.daemon.served import Served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Done(NamedTuple):
    """What a command left: its exit status, standard output and standard error."""

    status: int
    out: str
    err: str


class Isula(Protocol):
    """Runs the client."""

    def __call__(self, command: str, *words: str) -> Done:
        """``isula command words`` against the made-up daemon."""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Served]:
    """A daemon; a test gives it the methods that it needs."""
    with Served(tmp_path) as found:
        yield found
    assert found.problems == []


@pytest.fixture
def isula(
    daemon: Served, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Isula:
    """``isula`` run in this process."""
    opened: list[Client] = []

    def connect(host: str) -> Client:
        opened.append(Client(host, timeout_s=20))
        return opened[-1]

    monkeypatch.setattr("isula_cli.context.Client", connect)

    def run(command: str, *words: str) -> Done:
        capfd.readouterr()
        status = main([command, "-H", daemon.host, *words])
        for client in opened:
            client.close()  # the end of the process does it otherwise
        return Done(status, *capfd.readouterr())

    return run
