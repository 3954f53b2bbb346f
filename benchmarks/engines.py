"""The engines that are compared, each with all its files below a folder of its own."""

from __future__ import annotations

import os
import shutil
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks import process, tree

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["PATH", "Engine", "EngineError", "make"]

PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"
"""Where programs are looked for: those of the distribution come first."""
_START_S = 60.0
_STOP_S = 60.0
_LOG_TAIL = 2000


class EngineError(Exception):
    """An engine that is not there or does not do as it is told, and what it said."""


@dataclass(slots=True)
class Engine:
    """One engine: its client, its daemon if it has one, and the flags that make all equal."""

    name: str
    folder: Path
    client: tuple[str, ...]
    create_flags: tuple[str, ...]
    daemon: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    force: tuple[str, ...] = ("rm", "-f")  # removes a running container, and kills at once
    time_out_s: float = 120.0
    pid: int | None = None
    daemon_pids: list[int] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        """Environment of daemon and client: nothing of the caller's."""
        common = {"PATH": PATH, "HOME": f"{self.folder}/home", "LANG": "C.UTF-8"}
        return {**common, **self.variables}

    @property
    def log(self) -> Path:
        """What the daemon says."""
        return self.folder / "daemon.log"

    def words(self, *words: str) -> tuple[str, ...]:
        """A command of the client."""
        return (*self.client, *words)

    def run(self, *words: str) -> process.Output:
        """Runs an untimed command."""
        return process.capture(self.words(*words), self.env, self.time_out_s)

    def ok(self, *words: str) -> str:
        """Output of an untimed command that must succeed."""
        done = self.run(*words)
        if done.status != 0:
            raise EngineError(self.report(self.words(*words), done))
        return done.out

    def report(self, argv: tuple[str, ...], done: process.Output) -> str:
        """Words about a command that failed, with the end of the daemon's log."""
        tail = self.log.read_text(errors="replace")[-_LOG_TAIL:] if self.log.exists() else ""
        said = (done.err or done.out).strip()
        return f"{' '.join(argv)}: exit status {done.status}: {said}\n{tail}".strip()

    def start(self) -> None:
        """Starts the daemon and waits until it answers."""
        (self.folder / "home").mkdir(parents=True, exist_ok=True)
        if not self.daemon:
            self.ok("version")
            return
        log = str(self.log)
        pid = self.pid = process.spawn(self.daemon, self.env, log, log)
        deadline = time.monotonic() + _START_S
        while (done := self.run("version")).status != 0:
            status = process.wait_for(pid, 0.2)
            if status is not None:
                self.pid = None
            if status is not None or time.monotonic() > deadline:
                raise EngineError(self.report(self.daemon, done))
        self.daemon_pids = [pid, *tree.descendants(pid)]

    def remove_all(self) -> None:
        """Removes every container by force; what does not go is ended by the sandbox."""
        if self.daemon and self.pid is None:
            return
        for container in self.run("ps", "-aq").out.split():
            self.run(*self.force, container)

    def stop(self) -> None:
        """Ends the daemon, and kills it when it does not end."""
        if self.pid is None:
            return
        pid, self.pid = self.pid, None
        for number in (signal.SIGTERM, signal.SIGKILL):
            os.kill(pid, number)
            if process.wait_for(pid, _STOP_S) is not None:
                return


def find(name: str, programs: Mapping[str, str]) -> str:
    """Path of a program: as the settings say, else the distribution's."""
    path = programs.get(name) or shutil.which(name, path=PATH)
    if path is None or not os.access(path, os.X_OK):
        raise EngineError(f"{path or name} is not installed")
    return path


def _isula(name: str, folder: Path, programs: Mapping[str, str], cgroup: str) -> Engine:
    folder.mkdir(parents=True)
    config = folder / "daemon.json"
    config.write_text("{}\n")
    host = f"unix://{folder}/isulad.sock"
    runtime = ("--runtime", "runc") if name == "isula-runc" else ()
    return Engine(
        name,
        folder,
        client=(find("isula", programs),),
        create_flags=("--net", "none", *runtime),
        daemon=(
            *(find("isulad", programs), "--config", str(config), "-H", host),
            *("--graph", f"{folder}/graph", "--state", f"{folder}/state"),
            *("--pidfile", f"{folder}/isulad.pid", "--log-driver", "stderr"),
            *("--cgroup-parent", f"/{cgroup}-{name}"),
        ),
        variables={"ISULAD_HOST": host},
    )


def _docker(name: str, folder: Path, programs: Mapping[str, str], cgroup: str) -> Engine:
    folder.mkdir(parents=True)
    config = folder / "daemon.json"
    config.write_text("{}\n")
    host = f"unix://{folder}/docker.sock"
    return Engine(
        name,
        folder,
        client=(find("docker", programs),),
        create_flags=("--net", "none"),
        daemon=(
            *(find("dockerd", programs), "--config-file", str(config), "-H", host),
            *("--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec"),
            *("--pidfile", f"{folder}/docker.pid", "--cgroup-parent", f"/{cgroup}-{name}"),
            *("--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"),
        ),
        variables={"DOCKER_HOST": host},
    )


def _podman(name: str, folder: Path, programs: Mapping[str, str], cgroup: str) -> Engine:
    folder.mkdir(parents=True)
    return Engine(
        name,
        folder,
        client=(
            *(find("podman", programs), "--root", f"{folder}/root"),
            *("--runroot", f"{folder}/runroot", "--tmpdir", f"{folder}/tmp"),
            *("--cgroup-manager", "cgroupfs", "--events-backend", "file"),
            *("--runtime", find("runc", programs)),
        ),
        # by default Podman raises limits, which needs CAP_SYS_RESOURCE
        create_flags=(
            *("--net", "none", "--cgroup-parent", f"/{cgroup}-{name}"),
            *("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"),
        ),
        # otherwise it first waits ten seconds for SIGTERM to be obeyed
        force=("rm", "-f", "-t", "0"),
    )


_MAKERS: dict[str, Callable[[str, Path, Mapping[str, str], str], Engine]] = {
    "isula": _isula,
    "isula-runc": _isula,
    "docker": _docker,
    "podman": _podman,
}


def make(
    name: str, folder: Path, programs: Mapping[str, str], cgroup: str, time_out_s: float
) -> Engine:
    """The engine of this name; its cgroups' names begin with ``cgroup``."""
    engine = _MAKERS[name](name, folder, programs, cgroup)
    engine.time_out_s = time_out_s
    return engine
