"""The shim's program: finding it, and its two short calls ``start`` and ``delete``.

``start`` leaves a server behind and prints where it serves.  ``delete`` removes what a
server that has died left.  Both run in the bundle, whose name is the container's id.

Source: runtime/v2/README.md of github.com/containerd/containerd, and what its versions
1.6 to 2.4 and the shims of runc and kata do.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import json
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.runtime.program import PATH, Program, one_line
from isula_edge.runtime.shim_messages import Address, BootstrapResult, DeleteResponse
from isula_edge.sys import process

if TYPE_CHECKING:
    from collections.abc import Mapping

    from isula_edge.runtime.shim_messages import AnyValue
    from isula_edge.sys.process import Reaper

__all__ = [
    "DELETE_S",
    "START_S",
    "Shim",
    "delete",
    "end_server",
    "find_shim",
    "parse_answer",
    "start",
]

START_S = 30.0
DELETE_S = 120.0
"""kata 1.x takes a minute for a virtual machine that does not answer."""
_VERSIONS = (2, 3)
_MAX_ADDRESS = 4096
_PREFIX = "containerd-shim-"


@dataclass(frozen=True, slots=True)
class Shim:
    """A shim's program and what is said to it.

    ``address`` is the -address flag: it goes into the name of the server's socket, so it
    never changes.  ``events`` is the path of our events socket, '' for none, ``publish``
    the program that shims of before ttrpc events run for each.  ``config`` is kata's
    configuration.toml, '' for its own choice.  ``env`` is added to the environment.
    """

    program: str
    namespace: str = "isula"
    address: str = ""
    events: str = ""
    publish: str = "/bin/true"
    config: str = ""
    debug: bool = False
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The program without its folder."""
        return os.path.basename(self.program)

    def argv(self, id: str, bundle: str, *words: str) -> list[str]:
        """The command line, with a shell before it that goes to the bundle."""
        flags = [
            "-namespace", self.namespace, "-address", self.address,
            "-publish-binary", self.publish, "-id", id, *(["-debug"] if self.debug else []),
        ]  # fmt: skip
        script = 'cd -- "$1" && shift && exec "$@"'
        return ["/bin/sh", "-c", script, "sh", bundle, self.program, *flags, *words]

    def environment(self) -> dict[str, str]:
        """The environment, which the server inherits."""
        env = {"PATH": PATH, "GOMAXPROCS": "2"}
        if self.events:
            env["TTRPC_ADDRESS"] = self.events
        if self.config:
            env["KATA_CONF_FILE"] = self.config
        return env | dict(self.env)


def find_shim(runtime: str) -> str:
    """The path of a runtime's shim, by the runtime's name or the shim's absolute path.

    ``io.containerd.kata.v2`` is ``containerd-shim-kata-v2`` in a folder of
    :data:`isula_edge.runtime.program.PATH`.  Raises InvalidArgument for what is no name, and
    Unavailable, with a hint, when it is absent, not executable, or for another machine.
    """
    program = Program(runtime, runtime if runtime.startswith("/") else _program_name(runtime))
    _check(program)
    return program.path


def _program_name(runtime: str) -> str:
    if runtime.startswith(_PREFIX) and "/" not in runtime:
        return runtime
    parts = runtime.split(".")
    if len(parts) < 2 or "/" in runtime or not all(parts[-2:]):
        raise errors.InvalidArgument(
            f"{runtime!r} names no shim",
            kind="runtime",
            ref=runtime,
            hint="io.containerd.kata.v2 means containerd-shim-kata-v2; or give an absolute path",
        )
    return f"{_PREFIX}{parts[-2]}-{parts[-1]}"


def _check(program: Program) -> None:
    problem = program.problem()
    if problem:
        raise program.unusable(problem)


async def start(
    reaper: Reaper,
    shim: Shim,
    id: str,
    bundle: str,
    *,
    options: AnyValue | None = None,
    timeout_s: float = START_S,
) -> Address:
    """Starts a server for container ``id``, or finds that of its pod: where it serves.

    ``bundle`` holds ``config.json``; the file ``log`` is made, the server writes to it.

    Raises Unavailable when the program cannot be run, DeadlineExceeded when it does not end,
    and Internal, with its words, when it fails or its answer makes no sense.  A server that
    cannot be reached for that reason is killed.
    """
    if os.path.basename(bundle) != id:
        raise errors.InvalidArgument(
            f"the bundle of {id} has its name, not {bundle}", kind="container", ref=id
        )
    try:
        _make_log(f"{bundle}/log")
    except OSError as error:
        raise errors.Unavailable(
            f"cannot make {bundle}/log: {error.strerror}", kind="container", ref=id
        ) from error
    data = options.encode() if options else b""
    try:
        out = await _run(reaper, shim, "start", shim.argv(id, bundle, "start"), data, timeout_s)
        return parse_answer(out)
    except (errors.DeadlineExceeded, asyncio.CancelledError):
        end_server(shim, id)
        raise
    except ValueError as error:
        end_server(shim, id)
        raise errors.Internal(
            f"{shim.program} start answered with what makes no sense: {error}",
            kind="runtime",
            ref=shim.program,
            hint="the engine speaks ttrpc with shims of version 2 and 3",
        ) from error


async def delete(
    reaper: Reaper,
    shim: Shim,
    id: str,
    bundle: str,
    *,
    address: Address | None = None,
    timeout_s: float = DELETE_S,
) -> DeleteResponse:
    """Kills and removes what a dead server of ``bundle`` left; its exit status is 137.

    Only for a server that has died.  The socket that it left at ``address`` is removed too.
    Raises as :func:`start` does; a shim that finds nothing to delete fails.
    """
    argv = shim.argv(id, bundle, "-bundle", bundle, "delete")
    out = await _run(reaper, shim, "delete", argv, b"", timeout_s)
    if address is not None and address.address.startswith("unix://"):
        with contextlib.suppress(OSError):
            path = address.address.removeprefix("unix://")
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                os.unlink(path)
    try:
        return DeleteResponse.decode(out)
    except ValueError as error:
        raise errors.Internal(
            f"{shim.program} delete answered with what makes no sense: {error}",
            kind="runtime",
            ref=shim.program,
        ) from error


def end_server(shim: Shim, id: str) -> None:
    """Kills the server that was started for container ``id``, if there is one.

    For one that hangs: then :func:`delete` is in order.  Servers are known by their command
    line, in which shims repeat the -id flag.
    """
    flag = b"\0-id\0%s\0" % os.fsencode(id)
    name = os.fsencode(shim.name)

    def is_server(line: bytes) -> bool:
        # a script has its interpreter before it, a program for another machine its emulator
        words = itertools.takewhile(lambda word: not word.startswith(b"-"), line.split(b"\0"))
        return flag in line and name in map(os.path.basename, words)

    process.end_all("cmdline", is_server)


def _make_log(path: str) -> None:
    """A regular file that is empty: a FIFO without a reader would hang the server."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


async def _run(
    reaper: Reaper, shim: Shim, word: str, argv: list[str], data: bytes, timeout_s: float
) -> bytes:
    _check(Program(shim.name, shim.program))
    try:
        code, out, err = await reaper.run(
            argv, data=data, timeout_s=timeout_s, env=shim.environment(), group=True
        )
    except TimeoutError as error:
        raise errors.DeadlineExceeded(
            f"{shim.program} {word} did not end within {timeout_s:g} s",
            kind="runtime",
            ref=shim.program,
        ) from error
    except OSError as error:
        full = error.errno in (errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE)
        raise (errors.ResourceExhausted if full else errors.Unavailable)(
            f"cannot run {shim.program}: {error.strerror}", kind="runtime", ref=shim.program
        ) from error
    if code:
        words = _words(err) or _words(out) or f"exit status {code}"
        raise errors.Internal(
            f"{shim.program} {word} failed: {words}", kind="runtime", ref=shim.program
        )
    return out


def _words(data: bytes) -> str:
    """The last line of what a program said."""
    lines = [line for line in data.decode(errors="replace").splitlines() if line.strip()]
    return one_line(lines[-1]) if lines else ""


def parse_answer(data: bytes) -> Address:
    """Where the server serves, of what ``start`` printed: JSON, protobuf or an address.

    ValueError for what is none, for a version that is not known, and for gRPC.
    """
    text = data.strip()
    if not text:
        raise ValueError("it printed nothing")
    if text.startswith(b"{"):
        return _parse_json(text)
    if data[0] == 0x08:
        result = BootstrapResult.decode(data)
        return _checked(result.version, result.address, result.protocol)
    return _checked(2, text.decode(), "ttrpc")


def _parse_json(text: bytes) -> Address:
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise ValueError("its JSON is nested too deeply") from error
    version, address = found.get("version"), found.get("address")
    if type(version) is not int or not isinstance(address, str):
        raise ValueError("its JSON has no version and address")
    return _checked(version, address, found.get("protocol"))


def _checked(version: int, address: str, protocol: object) -> Address:
    if version not in _VERSIONS:
        raise ValueError(f"version {version} of the shim's protocol is not known")
    if protocol != "ttrpc":
        raise ValueError(f"it speaks {str(protocol)[:40]!r}, not ttrpc")
    name = address.removeprefix("unix://")
    if not name or len(name) > _MAX_ADDRESS or not name.isprintable() or " " in name:
        raise ValueError(f"{address[:200]!r} is no address")
    if "://" in name or (name != address and not name.startswith("/")):
        raise ValueError(f"{address[:200]!r} is no unix socket")
    return Address(version, address)
