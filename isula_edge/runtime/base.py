"""What a runtime driver does; one contract suite runs over all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from isula_edge.sys.process import Identity
    from isula_edge.types import ContainerId

__all__ = ["Bundle", "ExecProcess", "ExecSpec", "Runtime", "Started", "binds"]


@dataclass(frozen=True, slots=True)
class Bundle:
    """One container as a runtime sees it.

    ``dir`` is durable, ``run_dir`` on tmpfs; ``spec`` is the parsed ``config.json``.
    ``stdin_stays``: open input is not closed when who was attached closes it.
    ``log_max_bytes`` caps the log file (0 = no cap).
    """

    id: ContainerId
    name: str
    dir: str
    run_dir: str
    log_path: str
    spec: dict[str, Any]
    terminal: bool = False
    stdin_open: bool = False
    log_max_bytes: int = 0
    cgroup: str = ""
    stdin_stays: bool = False


@dataclass(frozen=True, slots=True)
class Started:
    """What :meth:`Runtime.start` gives: the container's init, seen from the host."""

    init: Identity
    supervisor: Identity | None


@dataclass(frozen=True, slots=True)
class ExecSpec:
    """A process to run inside a running container.

    ``size`` is (rows, columns) of its terminal.
    """

    argv: list[str]
    env: list[str]
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    terminal: bool = False
    stdin: bool = False
    size: tuple[int, int] | None = None


@dataclass(slots=True)
class ExecProcess:
    """A running exec: its pid on the host and the daemon's ends of its streams.

    With a terminal ``master`` is the one stream, else ``stdin``, ``stdout``, ``stderr`` are
    pipes (-1 where absent).  The owner closes them.
    """

    pid: int
    stdin: int = -1
    stdout: int = -1
    stderr: int = -1
    master: int = -1
    extra: dict[str, Any] = field(default_factory=dict)


def binds(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Mounts of a runtime-spec document: path inside and the host's path, '' for others."""
    return [
        (mount["destination"], mount["source"] if mount.get("type") == "bind" else "")
        for mount in spec.get("mounts") or ()
    ]


class Runtime(Protocol):
    """A driver.  Every method may raise the classes of :mod:`isula_edge.errors`."""

    name: str

    async def create(self, bundle: Bundle) -> None:
        """Starts the supervisor; its attach socket exists afterwards, no process runs yet."""

    async def start(self, bundle: Bundle) -> Started:
        """Lets the container's process run; returns when it has been executed.

        Raises CommandNotFound / CommandNotExecutable when it cannot be, after clean-up.
        """

    def exit_code(self, bundle: Bundle) -> int | None:
        """The code of a container that has ended (128 + signal), None when unknown."""

    async def exec(self, bundle: Bundle, init: Identity, spec: ExecSpec) -> ExecProcess:
        """Runs a process in the container with its caps, seccomp, cgroup and LSM label."""

    async def delete(self, bundle: Bundle) -> None:
        """Removes everything the runtime knows of a container that does not run."""
