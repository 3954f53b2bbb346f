"""What a runtime driver does; one contract suite runs over all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from isula_edge.cgroup.stats import GroupStats
    from isula_edge.sys.process import Identity
    from isula_edge.types import ContainerId

__all__ = [
    "Bundle",
    "ExecControl",
    "ExecProcess",
    "ExecSpec",
    "Guest",
    "Runtime",
    "Started",
    "binds",
    "process_document",
]


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
    pipes (-1 where absent).  The owner closes them.  ``control`` is None where the process is
    a child of the daemon: its exit status comes from the kernel, signals go to its pid.
    """

    pid: int
    stdin: int = -1
    stdout: int = -1
    stderr: int = -1
    master: int = -1
    control: ExecControl | None = None


class ExecControl(Protocol):
    """What only the runtime can do to an exec's process.  Nothing here waits."""

    exited: asyncio.Future[int]
    """Its exit code (128 + signal), 255 when the runtime is gone."""

    def resize(self, rows: int, columns: int) -> None:
        """Gives its terminal another size."""

    def signal(self, number: int) -> None:
        """Sends it a signal; one that has ended is fine."""

    def close_input(self) -> None:
        """Says that nothing more comes on its standard input; our end is closed already."""

    def done(self) -> None:
        """Says that nothing more is read of its output."""

    def leave(self) -> None:
        """Says that nobody is there any more: end of file, or SIGHUP from a terminal."""


def binds(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Mounts of a runtime-spec document: path inside and the host's path, '' for others."""
    return [
        (mount["destination"], mount["source"] if mount.get("type") == "bind" else "")
        for mount in spec.get("mounts") or ()
    ]


def process_document(bundle: Bundle, spec: ExecSpec) -> dict[str, Any]:
    """``process`` of the runtime-spec for an exec: init's, with what ``spec`` says."""
    found = dict(bundle.spec["process"])
    umask = {k: v for k, v in (found.get("user") or {}).items() if k == "umask"}
    found.update(
        terminal=spec.terminal,
        args=spec.argv,
        env=spec.env,
        cwd=spec.cwd,
        user={"uid": spec.uid, "gid": spec.gid, "additionalGids": list(spec.groups), **umask},
    )
    found.pop("consoleSize", None)
    if spec.size:
        found["consoleSize"] = {"height": spec.size[0], "width": spec.size[1]}
    return found


class Guest(Protocol):
    """What only the runtime can do to a container whose processes may be in a virtual machine.

    The pid of such a container is the virtual machine's or the shim's: signals, namespaces,
    cgroups and /proc of the host say nothing about it.  ``vm`` says that there is one: then
    limits and statistics are the runtime's too, and the containers of a pod need a sandbox,
    whose virtual machine they share.
    """

    vm: bool

    async def create_sandbox(self, bundle: Bundle) -> None:
        """Makes and starts a pod's sandbox: a container without streams or log.

        :meth:`Runtime.delete` ends it, once its members are gone.
        """

    def gone(self, bundle: Bundle) -> asyncio.Future[None]:
        """A future that ends with the container, after its last output."""

    async def alive(self, bundle: Bundle) -> bool:
        """Whether it runs (or is paused) now; takes it up again after a restart."""

    async def kill(self, bundle: Bundle, number: int) -> bool:
        """Sends init a signal (SIGKILL: every process); False when it has ended."""

    async def freeze(self, bundle: Bundle, frozen: bool) -> None:
        """Freezes or thaws all processes."""

    async def update(self, bundle: Bundle, resources: Mapping[str, Any]) -> None:
        """Other limits, as ``linux.resources`` of the runtime-spec has them."""

    async def stats(self, bundle: Bundle) -> GroupStats | None:
        """What it uses, counted where it runs; None when it does not run."""

    async def pids(self, bundle: Bundle) -> list[int]:
        """Its processes as the host numbers them; those of a virtual machine are its own."""

    def resize(self, bundle: Bundle, rows: int, columns: int) -> None:
        """Gives its terminal another size, without waiting."""


class Runtime(Protocol):
    """A driver.  Every method may raise the classes of :mod:`isula_edge.errors`.

    ``guest`` is None where the processes are the host's, to be signalled, frozen, limited
    and counted there.  ``runs_hooks``: it runs the hooks poststart and poststop itself.
    """

    name: str
    guest: Guest | None
    runs_hooks: bool

    async def create(self, bundle: Bundle) -> None:
        """Starts the supervisor; its attach socket exists afterwards, no process runs yet."""

    async def start(self, bundle: Bundle) -> Started:
        """Lets the container's process run; returns when it has been executed.

        Raises CommandNotFound / CommandNotExecutable when it cannot be, after clean-up.
        """

    async def exit_code(self, bundle: Bundle) -> int | None:
        """The code of a container that has ended (128 + signal), None when unknown."""

    async def exec(self, bundle: Bundle, init: Identity, spec: ExecSpec) -> ExecProcess:
        """Runs a process in the container with its caps, seccomp, cgroup and LSM label."""

    async def delete(self, bundle: Bundle) -> None:
        """Removes everything the runtime knows of a container that does not run."""
