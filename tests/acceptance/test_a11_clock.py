"""Case A11: a board without a battery for its clock boots in the past and finds no certificate
valid; what fails then goes on by itself when the clock is right.

The registry, not the machine, changes: a certificate that is valid from 2090 on is to today's
clock what today's is to a clock of 2000.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.client import Client
from tests.fakes.certificates import Authority
from tests.fakes.registry import FakeRegistry
from tests.rig import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.rig import Engine

ADDRESS = "10.97.0.1"

pytestmark = [pytest.mark.root, pytest.mark.lxc]


def registry_beside(engine: Engine, tls: Authority) -> FakeRegistry:
    """A registry that listens in the engine's network namespace, with a certificate of 2090."""
    name = engine.network.name
    words = ["ip", "-n", name, "address", "add", f"{ADDRESS}/32", "dev", "lo"]
    subprocess.run(words, check=True)
    pair = tls.sign("registry", start="20900101000000Z", names=f"IP:{ADDRESS}")
    return engine.network.make(lambda: FakeRegistry(tls=pair, address=ADDRESS))


class Board:
    """An engine, a registry and the authority that it trusts."""

    def __init__(self, engine: Engine, registry: FakeRegistry, authority: Authority) -> None:
        self.engine, self.registry, self.authority = engine, registry, authority
        self.name = f"{registry.host}/a/b"

    def time_comes(self) -> None:
        """From now on the certificate is valid."""
        self.registry.use(self.authority.sign("today", names=f"IP:{ADDRESS}"))

    def output(self, log: Path) -> Callable[[], bool]:
        return lambda: "Waiting for the clock" in log.read_text()


@pytest.fixture
def make_board(
    make_engine: Callable[..., Engine], images: Path, tmp_path: Path
) -> Iterator[Callable[[str], Board]]:
    """Makes boards by their ``clock-timeout``."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    running: list[FakeRegistry] = []

    def make(timeout: str) -> Board:
        certs = tmp_path / "certs.d"
        config = {"certs-dir": str(certs), "clock-timeout": timeout}
        engine = make_engine(load=False, config=config)
        authority = Authority(tmp_path / "authority")
        registry = registry_beside(engine, authority)
        registry.add_layout("a/b", str(images / "oci"))
        folder = certs / registry.host
        folder.mkdir(parents=True)
        shutil.copy(authority.certificate, folder / "ca.crt")
        running.append(registry.__enter__())
        return Board(engine, registry, authority)

    yield make
    for registry in running:
        registry.__exit__()


def test_the_error_names_the_time_and_can_be_retried(make_board: Callable[[str], Board]) -> None:
    board = make_board("0")
    with Client(board.engine.host) as client, pytest.raises(errors.Unavailable) as found:
        client.pull(board.name)
    text = "its certificate is not yet valid; the local time is 20"
    assert f"TLS with {board.registry.host} failed: {text}" in str(found.value)
    assert found.value.retryable
    assert "set the clock" in found.value.hint
    board.time_comes()
    board.engine.ok("pull", board.name)


def test_a_container_starts_by_itself_when_the_time_comes(
    make_board: Callable[[str], Board], tmp_path: Path
) -> None:
    board = make_board("5m")
    log = tmp_path / "run.log"
    with log.open("wb") as file:
        client = board.engine.popen(
            *("run", "--name", "waiting", board.name, "echo", "started"),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=file,
        )  # fmt: skip
    until(board.output(log), "the pull waiting for the clock")
    assert client.poll() is None
    assert board.registry.requests == []
    board.time_comes()
    out, _ = client.communicate(timeout=60)
    assert client.returncode == 0, log.read_text()
    assert out == b"started\n"


def test_waiting_ends_when_nobody_waits_any_more(
    make_board: Callable[[str], Board], tmp_path: Path
) -> None:
    board = make_board("5m")
    log = tmp_path / "pull.log"
    with log.open("wb") as file:
        client = board.engine.popen(
            "pull", board.name, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
    until(board.output(log), "the pull waiting for the clock")
    assert len(_workers(board.engine.pid)) == 1
    client.send_signal(signal.SIGINT)
    client.wait(60)
    assert client.returncode == 130
    until(lambda: not _workers(board.engine.pid), "the worker ending")


def _workers(pid: int) -> list[str]:
    found = []
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        for child in file.read().split():
            with open(f"/proc/{child}/cmdline", "rb") as words:
                if b"isula_edge.image.worker" in words.read():
                    found.append(child)
    return found
