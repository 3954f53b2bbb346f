"""A real engine for tests: isulad in a network namespace of its own, driven by isula."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from isula_edge.sys import syscalls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["Engine", "NetworkNamespace", "Result", "program", "until"]

T = TypeVar("T")
_CLONE_NEWNET = 0x40000000
_numbers = itertools.count(1)
# words that start the daemon in a smaller world than the tests have
_UNDER = os.environ.get("ISULA_TEST_UNDER", "").split()
# much longer than anything takes: only what hangs gets there
_PATIENCE_S = float(os.environ.get("ISULA_TEST_PATIENCE_S", "60"))


def program(name: str) -> str:
    """Path of a console script of the environment that runs the tests."""
    return str(Path(sys.executable).with_name(name))


def until(condition: Callable[[], object], what: str, patience_s: float = _PATIENCE_S) -> None:
    """Waits until ``condition`` holds; an AssertionError names ``what`` did not come true."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true within {patience_s} s"
        time.sleep(0.01)


@dataclass(frozen=True, slots=True)
class Result:
    """What a client process left behind."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """Lines of standard output."""
        return self.out.splitlines()


class NetworkNamespace:
    """A named network namespace with nothing but lo."""

    def __init__(self) -> None:
        self.name = f"isula-test-{os.getpid()}-{next(_numbers)}"
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        subprocess.run(["ip", "-n", self.name, "link", "set", "lo", "up"], check=True)

    @property
    def prefix(self) -> list[str]:
        """Words before a command that runs inside; /sys stays as it is (unlike ip netns exec)."""
        return ["nsenter", f"--net=/run/netns/{self.name}"]

    def make(self, make: Callable[[], T]) -> T:
        """What ``make`` returns inside: the sockets that it opens stay there."""

        def enter() -> T:
            # a thread's own namespace, which ends with it
            fd = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
            try:
                syscalls.setns(fd, _CLONE_NEWNET)
            finally:
                os.close(fd)
            return make()

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(enter).result()

    def remove(self) -> None:
        """Takes it away."""
        subprocess.run(["ip", "netns", "del", self.name], check=False)


class Engine:
    """An isulad whose files all lie below ``folder``."""

    def __init__(
        self,
        folder: Path,
        *args: str,
        config: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.args = list(args)
        self.env = {**os.environ, **(env or {})}
        self.host = f"unix://{folder}/isulad.sock"
        self.graph, self.state = folder / "graph", folder / "state"
        self.config = folder / "daemon.json"
        self.log = folder / "isulad.log"
        self.network = NetworkNamespace()
        self.process: subprocess.Popen[bytes] | None = None
        self.clients: list[subprocess.Popen[bytes]] = []
        folder.mkdir(parents=True, exist_ok=True)
        self.configure(config or {})

    def configure(self, config: Mapping[str, Any]) -> None:
        """Writes daemon.json."""
        self.config.write_text(json.dumps(config))

    # the daemon

    @property
    def command(self) -> list[str]:
        """The words that start the daemon."""
        return [
            *(*self.network.prefix, *_UNDER, program("isulad"), "--config", str(self.config)),
            *("-H", self.host, "--graph", str(self.graph), "--state", str(self.state)),
            *("--pidfile", str(self.folder / "isulad.pid"), "--log-driver", "stderr"),
            *self.args,
        ]

    @property
    def pid(self) -> int:
        """Process id of the daemon."""
        assert self.process is not None
        return self.process.pid

    def start(self) -> Engine:
        """Starts it and waits until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env
            )
        process = self.process

        def answers() -> bool:
            assert process.poll() is None, f"isulad ended:\n{self.log_text()[-4000:]}"
            return self.isula("version").code == 0

        until(answers, "isulad answering")
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ends the daemon by a signal; its exit status (negative: the signal)."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(_PATIENCE_S)
        self.process = None
        return code

    def restart(self, number: int = signal.SIGKILL) -> None:
        """Ends it, by default as a crash does, and starts it again."""
        self.stop(number)
        self.start()

    def log_text(self) -> str:
        """What the daemon has logged."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    # the client

    def isula(
        self, *words: str, stdin: bytes | None = None, timeout_s: float = _PATIENCE_S
    ) -> Result:
        """Runs ``isula`` with these words."""
        done = subprocess.run(
            [program("isula"), *words],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout_s,
            env=self.client_env,
        )
        return Result(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode())

    @property
    def client_env(self) -> dict[str, str]:
        """Environment of a client of this engine."""
        return {**os.environ, "ISULAD_HOST": self.host}

    def ok(self, *words: str, stdin: bytes | None = None) -> str:
        """Standard output, stripped, of a command that must succeed."""
        result = self.isula(*words, stdin=stdin)
        assert result.code == 0, f"isula {' '.join(words)}: {result}\n{self.log_text()[-2000:]}"
        return result.out.strip()

    def inspect(self, ref: str) -> dict[str, Any]:
        """The first object that ``isula inspect`` shows."""
        found = json.loads(self.ok("inspect", ref))
        assert isinstance(found, list)
        assert isinstance(found[0], dict)
        return found[0]

    def image(self, ref: str) -> dict[str, Any]:
        """What ``isula inspect`` shows of an image."""
        image = self.inspect(ref)["image"]
        assert isinstance(image, dict)
        return image

    def state_of(self, ref: str) -> dict[str, Any]:
        """The State part of ``isula inspect``."""
        state = self.inspect(ref)["State"]
        assert isinstance(state, dict)
        return state

    def popen(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        """A client that goes on running; one that nobody waited for is ended by `close`."""
        self.clients = [client for client in self.clients if client.returncode is None]
        found: subprocess.Popen[bytes] = subprocess.Popen(
            [program("isula"), *words], env=self.client_env, **options
        )
        self.clients.append(found)
        return found

    def end_clients(self) -> None:
        """Ends the clients that a test left behind."""
        for client in self.clients:
            if client.returncode is None:
                with client:
                    client.kill()
        self.clients = []

    # the end

    def remove_containers(self) -> None:
        """Removes every container, by force, and ends clients that a test left behind."""
        self.end_clients()
        for container in self.ok("ps", "-aq").split():
            result = self.isula("rm", "-f", container)
            assert result.code == 0 or "No such container" in result.err, result

    def close(self) -> None:
        """Ends containers and daemon and gives back mounts and the network namespace."""
        self.end_clients()
        try:
            if self.process is not None and self.process.poll() is None:
                self.remove_containers()
                self.stop()
        finally:
            if self.process is not None:
                self.process.kill()
                self.process.wait()
            for place in self.mounts():
                subprocess.run(["umount", "-l", place], check=False)
            self.network.remove()

    def mounts(self) -> list[str]:
        """Mount points below the engine's folder, the latest first."""
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            places = [line.split()[4] for line in file]
        return [place for place in reversed(places) if place.startswith(f"{self.folder}/")]


@contextlib.contextmanager
def loaded(engine: Engine, images: Path) -> Iterator[None]:
    """``engine`` started, with busybox:latest, and closed at the end."""
    try:
        engine.start()
        engine.ok("load", "-i", str(images / "docker.tar"))
        yield
    finally:
        engine.close()


def children(pid: int) -> Sequence[int]:
    """Direct children of a process."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            text = Path(f"/proc/{pid}/task/{task}/children").read_text()
            found += map(int, text.split())
    return found
