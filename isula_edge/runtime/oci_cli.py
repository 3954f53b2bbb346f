"""The OCI command-line driver: runc, and anything with its commands, under conmon.

Nothing that a runtime's program does or leaves undone is relied on: every command has a time
limit and is killed with its process group, and what it leaves of a container that is gone
(processes, cgroups, its own state) is removed here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import socket
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.runtime import hooks
from isula_edge.runtime.base import ExecProcess, ExecSpec, Started, process_document
from isula_edge.runtime.hybrid import words_before
from isula_edge.runtime.lxc import _pipes
from isula_edge.runtime.program import PATH, Program, last_words, one_line, program_error, tail
from isula_edge.runtime.supervisor import exit_file
from isula_edge.runtime.terminal import set_size
from isula_edge.sys import atomic, process, trees
from isula_edge.sys.boot import boot_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isula_edge.cgroup import Host
    from isula_edge.runtime.base import Bundle, Guest
    from isula_edge.runtime.supervisor import Supervisor
    from isula_edge.sys.process import Identity, Reaper

__all__ = ["Limits", "OciCli"]

_log = logging.getLogger(__name__)
_MARK = "ISULA_CONTAINER"
"""A variable of the runtime's processes, by which those that it leaves behind are found."""
_TERMINAL_S = 10.0
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that each command of a runtime may take; ``force`` is ``delete --force``."""

    create: float = 120.0
    start: float = 120.0
    exec: float = 120.0
    kill: float = 30.0
    delete: float = 120.0
    force: float = 120.0

    @classmethod
    def all(cls, seconds: float) -> Limits:
        """The same for every command."""
        return cls(**{field.name: seconds for field in fields(cls)})


class OciCli:
    """Runs bundles with an OCI runtime's command line (``create``, ``start``, ``exec`` …)."""

    guest: Guest | None = None
    runs_hooks = True
    _logs = True
    """Whether the program has the global option ``--log``."""
    _umask = True
    """Whether an exec's process inherits the umask of the program."""

    def __init__(
        self,
        name: str,
        program: str,
        supervisor: Supervisor,
        reaper: Reaper,
        state: str,
        args: tuple[str, ...] = (),
        cgroups: Host | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.name = name
        self._program = Program(name, program)
        self._supervisor = supervisor
        self._reaper = reaper
        self._root = f"{state}/{name}/.root"
        self._args = ("--root", self._root, *args)
        self._cgroups = cgroups
        self._limits = limits or Limits()
        # starts that have not succeeded: who knows what they have left
        self._unsure: set[str] = set()

    @property
    def program(self) -> str:
        """Path of the runtime's program."""
        return self._program.path

    def problem(self) -> str:
        """Why the program cannot be executed, or ''."""
        return self._program.problem()

    async def create(self, bundle: Bundle) -> None:
        """``create`` under conmon: the process exists and waits for ``start``."""
        path = await self._program.check(self._reaper)
        os.makedirs(self._root, 0o700, exist_ok=True)
        self._unsure.add(bundle.id)
        limit = self._limits.create + hooks.patience(bundle)
        words = self._command(path)
        try:
            pid = await self._supervisor.launch(
                bundle,
                words[0],
                (*words[1:], *self._globals(f"{bundle.run_dir}/runtime.log")),
                {_MARK: bundle.id},
                limit,
            )
        except errors.DeadlineExceeded as error:
            raise self._late("create", limit) from error
        except errors.Internal as error:
            text = error.message
            if not _says(text):
                text = last_words(f"{bundle.run_dir}/runtime.log") or self._ended("create", 1)
            raise self._explain(bundle, text) from error
        self._check_parent(bundle, pid)

    def _command(self, path: str) -> tuple[str, ...]:
        """The words that run the program; the last of them is its path."""
        return (*words_before(path, self._cgroups), path)

    def _globals(self, log: str) -> tuple[str, ...]:
        """Options before a command that writes its log there."""
        return (*self._args, "--log", log) if self._logs else self._args

    def _check_parent(self, bundle: Bundle, pid: int) -> None:
        """Refuses a pid that is none of the container's: it would get the signals meant for it."""
        supervisor = self._supervisor.identity(bundle)
        found = trees.parent(pid)
        if found is None or supervisor is None or found != supervisor.pid:
            what = "does not exist" if found is None else "is none of its own"
            raise errors.Internal(
                f"runtime {self.name}: create reported process {pid}, which {what}",
                kind="container",
                ref=bundle.id,
                hint=self._advice(),
            )

    async def start(self, bundle: Bundle) -> Started:
        """``start``, then the identity of the process."""
        await self._call(bundle, "start", bundle.id, limit_s=self._limits.start)
        try:
            with open(f"{bundle.run_dir}/pidfile", encoding="ascii") as file:
                pid = int(file.read(32))
        except (OSError, ValueError) as error:
            raise errors.Internal(
                f"runtime {self.name} wrote no pid file", ref=bundle.id, hint=self._advice()
            ) from error
        init = process.identify(pid) or process.Identity(pid, 0, boot_id())
        self._unsure.discard(bundle.id)
        return Started(init, self._supervisor.identity(bundle))

    async def exit_code(self, bundle: Bundle) -> int | None:
        """What conmon saw: it is the parent of the process."""
        try:
            with open(exit_file(bundle.run_dir), encoding="ascii") as file:
                return int(file.read())
        except (OSError, ValueError):
            return None

    async def exec(self, bundle: Bundle, init: Identity, spec: ExecSpec) -> ExecProcess:
        """``exec --detach``: the process becomes a child of the daemon, a child subreaper."""
        del init
        path = await self._program.check(self._reaper)
        folder = f"{bundle.run_dir}/exec-{os.urandom(6).hex()}"
        os.mkdir(folder, 0o700)
        try:
            described = json.dumps(process_document(bundle, spec)).encode()
            atomic.write(f"{folder}/process.json", described, durable=False)
            argv = [
                *self._command(path), *self._globals(f"{folder}/log"), "exec", "--detach",
                "--process", f"{folder}/process.json", "--pid-file", f"{folder}/pid",
            ]  # fmt: skip
            umask = (bundle.spec["process"].get("user") or {}).get("umask")
            if umask is not None and self._umask:
                # runc 1.1 has it for init only, others inherit runc's own
                argv = ["/bin/sh", "-c", f'umask {umask:o}; exec "$@"', "sh", *argv]
            if spec.terminal:
                return await self._exec_terminal(bundle, spec, folder, argv)
            ends, streams = _pipes(spec.stdin)
            try:
                helper = self._spawn([*argv, bundle.id], ends)
            finally:
                for fd in ends:
                    os.close(fd)
            try:
                streams.pid = await self._exec_pid(bundle, spec, helper, folder, streams.stderr)
            except BaseException:
                for fd in (streams.stdin, streams.stdout, streams.stderr):
                    if fd >= 0:
                        os.close(fd)
                raise
            return streams
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def _exec_terminal(
        self, bundle: Bundle, spec: ExecSpec, folder: str, argv: list[str]
    ) -> ExecProcess:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as server:
            # sun_path holds 108 bytes, so both sides go through a descriptor of the directory
            fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                path = f"/proc/{os.getpid()}/fd/{fd}/tty"
                server.bind(path)
                server.listen(1)
                server.setblocking(False)
                # not on the terminal: the daemon reads it
                ends = (-1, -1, os.open(f"{folder}/err", _NEW_FILE, 0o600))
                try:
                    words = [*argv, "--tty", "--console-socket", path, bundle.id]
                    helper = self._spawn(words, ends)
                finally:
                    os.close(ends[2])
                accept = asyncio.create_task(loop.sock_accept(server))
                try:
                    found = await self._exec_pid(bundle, spec, helper, folder)
                    client, _ = await asyncio.wait_for(accept, _TERMINAL_S)
                except TimeoutError as error:
                    raise self._no_terminal(bundle, found) from error
                finally:
                    accept.cancel()
                    await asyncio.gather(accept, return_exceptions=True)
            finally:
                os.close(fd)
            with client:
                client.setblocking(True)
                client.settimeout(_TERMINAL_S)
                try:
                    _, fds, _, _ = socket.recv_fds(client, 4096, 1)
                    master = fds[0]
                except (OSError, IndexError) as error:
                    raise self._no_terminal(bundle, found) from error
        os.set_inheritable(master, False)
        if spec.size:
            set_size(master, *spec.size)
        return ExecProcess(found, master=master)

    def _no_terminal(self, bundle: Bundle, pid: int) -> errors.Internal:
        """The error for an exec whose terminal did not come; the process is ended."""
        found = process.identify(pid)
        if found is not None:
            process.signal_process(found, signal.SIGKILL)
        return errors.Internal(
            f"runtime {self.name}: exec sent no terminal",
            kind="container",
            ref=bundle.id,
            hint=self._advice(),
        )

    def _spawn(self, argv: Sequence[str], ends: Sequence[int] = (-1, -1, -1)) -> int:
        try:
            pid = process.spawn(
                argv, stdin=ends[0], stdout=ends[1], stderr=ends[2], new_session=True
            )
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise self._program.unusable(f"{self.program}: {reason}") from error
        return self._reaper.spawned(pid)

    async def _exec_pid(
        self, bundle: Bundle, spec: ExecSpec, helper: int, folder: str, stderr: int = -1
    ) -> int:
        """The pid that ``exec`` reports; what it says of a failure is in its log or ``stderr``."""
        ended = self._reaper.watch(helper)
        try:
            code = await asyncio.wait_for(asyncio.shield(ended), self._limits.exec)
            if code:
                err = _pending(stderr) if stderr >= 0 else tail(f"{folder}/err")
                words = one_line(last_words(f"{folder}/log", err))
                raise self._explain(bundle, words or self._ended("exec", code), spec.argv[0])
            return self._exec_child(bundle, folder)
        except BaseException as error:
            if not ended.done():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(helper, signal.SIGKILL)
            with contextlib.suppress(errors.Internal):
                # it may have got as far as this before
                found = process.identify(self._exec_child(bundle, folder))
                if found is not None:
                    process.signal_process(found, signal.SIGKILL)
            if isinstance(error, TimeoutError):
                raise self._late("exec", self._limits.exec) from error
            raise

    def _exec_child(self, bundle: Bundle, folder: str) -> int:
        """The process that ``exec`` reported; Internal when it is none that it can have made."""
        reason = "exec reported no process"
        with (
            contextlib.suppress(OSError, ValueError),
            open(f"{folder}/pid", encoding="ascii") as file,
        ):
            pid = int(file.read(32))
            # one that has ended already is nobody's child any more
            if pid > 0 and trees.parent(pid) in (None, os.getpid()):
                return pid
            reason = f"exec reported process {pid}, which is none of its own"
        raise errors.Internal(
            f"runtime {self.name}: {reason}", kind="container", ref=bundle.id, hint=self._advice()
        )

    async def delete(self, bundle: Bundle) -> None:
        """``delete --force``, and whatever that leaves; a container it does not know is fine.

        Cancelling this ends the program, and no more.
        """
        if os.path.exists(f"{self._root}/{bundle.id}"):
            try:
                await self._forget(bundle)
            except errors.EngineError as error:
                _log.warning("container %s: %s", bundle.name, error)
            except asyncio.CancelledError:
                # somebody does not want to wait for it: what it has left undone is done here
                _log.warning("container %s: delete was ended", bundle.name)
        await self._sweep(bundle)

    async def _forget(self, bundle: Bundle) -> None:
        await self._call(bundle, "delete", "--force", bundle.id, limit_s=self._limits.force)

    async def _sweep(self, bundle: Bundle) -> None:
        """Ends and removes what a runtime that failed has left of a container."""
        supervisor = self._supervisor.identity(bundle)
        if supervisor is not None and not os.path.exists(exit_file(bundle.run_dir)):
            await trees.end_tree(supervisor)
        if bundle.id in self._unsure:
            mark = f"{_MARK}={bundle.id}".encode()
            process.end_all("environ", lambda data: mark in data.split(b"\0"))
            self._unsure.discard(bundle.id)
        group = bundle.cgroup.strip("/")
        if self._cgroups is not None and group:
            left = [*filter(None, map(process.identify, self._cgroups.pids(group)))]
            if left:
                with contextlib.suppress(OSError, KeyError):
                    # on version 1 what is frozen does not die
                    self._cgroups.freeze(group, False)
                if not await trees.end(left):
                    _log.warning("processes in cgroup %s do not end", group)
            self._cgroups.remove(group)
        if bundle.id:
            shutil.rmtree(f"{self._root}/{bundle.id}", ignore_errors=True)

    async def checkpoint(self, bundle: Bundle, folder: str, timeout_s: float) -> None:
        """criu's images of the running container in ``checkpoint`` below ``folder``, and its
        ``dump.log``; the container goes on running.  Raises DeadlineExceeded.
        """
        log = f"{folder}/runtime.log"
        argv = [
            *self._command(self.program), *self._args, "--log", log,
            "checkpoint", "--leave-running",
            "--image-path", f"{folder}/checkpoint", "--work-path", folder,
            "--file-locks", "--tcp-established", "--ext-unix-sk",
            *(["--shell-job"] if bundle.terminal else []), bundle.id,
        ]  # fmt: skip
        try:
            code, _, err = await self._reaper.run(argv, timeout_s=timeout_s, group=True)
        except TimeoutError as error:
            raise errors.DeadlineExceeded(
                f"{self.name} checkpoint did not end within {timeout_s:g} s",
                kind="container",
                ref=bundle.id,
            ) from error
        if code:
            words = one_line(last_words(log, err.decode(errors="replace")))
            raise errors.Internal(
                f"runtime {self.name}: {words or self._ended('checkpoint', code)}",
                kind="container",
                ref=bundle.id,
            )

    async def _call(self, bundle: Bundle, *words: str, limit_s: float, data: bytes = b"") -> bytes:
        """What the command printed; the errors are this class's."""
        path = await self._program.check(self._reaper)
        log = f"{bundle.run_dir}/runtime.log"
        try:
            code, out, err = await self._reaper.run(
                [*self._command(path), *self._globals(log), *words],
                timeout_s=limit_s,
                group=True,
                data=data,
                env={"PATH": PATH, _MARK: bundle.id},
            )
        except TimeoutError as error:
            raise self._late(words[0], limit_s) from error
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise self._program.unusable(f"{path}: {reason}") from error
        if code:
            text = one_line(last_words(log, err.decode(errors="replace")))
            raise self._explain(bundle, text or self._ended(words[0], code))
        return out

    # errors

    def _advice(self) -> str:
        return f"see whether {self.program} is an OCI runtime, and whole"

    def _ended(self, verb: str, code: int) -> str:
        signalled = 128 < code < 128 + signal.NSIG
        how = f"was killed by signal {code - 128}" if signalled else f"ended with status {code}"
        return f"{self.program} {verb} {how}"

    def _late(self, verb: str, seconds: float) -> errors.DeadlineExceeded:
        return errors.DeadlineExceeded(
            f"runtime {self.name}: {self.program} {verb} did not end within {seconds:g} s and "
            "was killed",
            kind="runtime",
            ref=self.name,
            hint=f"see what it waits for (a hook, a device), or give {self.name} another timeout "
            "in runtimes of daemon.json",
        )

    def _explain(self, bundle: Bundle, text: str, program: str = "") -> errors.EngineError:
        """The error class for what the runtime said, kept in one place."""
        plain = one_line(text)
        program = program or (bundle.spec.get("process", {}).get("args") or [""])[0]
        return program_error(plain, program) or errors.Internal(
            f"runtime {self.name}: {plain}",
            kind="container",
            ref=bundle.id,
            hint=f"{self.program} said so",
        )


def _pending(fd: int) -> str:
    """What is in a pipe by now."""
    os.set_blocking(fd, False)
    try:
        return os.read(fd, 1 << 16).decode(errors="replace")
    except OSError:
        return ""


def _says(words: str) -> bool:
    """Whether these are a runtime's own words, and not the supervisor's about its silence."""
    return bool(words.strip()) and "could not create the container" not in words
