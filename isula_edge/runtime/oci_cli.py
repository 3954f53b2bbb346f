"""The OCI command-line driver: runc, and anything with its commands, under conmon."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.runtime.base import ExecProcess, ExecSpec, Started
from isula_edge.runtime.lxc import _pipes
from isula_edge.runtime.supervisor import exit_file
from isula_edge.runtime.terminal import set_size
from isula_edge.sys import atomic, process
from isula_edge.sys.boot import boot_id

if TYPE_CHECKING:
    from isula_edge.runtime.base import Bundle
    from isula_edge.runtime.supervisor import Supervisor
    from isula_edge.sys.process import Identity, Reaper

__all__ = ["OciCli"]

_NOT_FOUND = ("executable file not found", "no such file or directory")
_NOT_EXECUTABLE = ("permission denied", "exec format error", "is a directory")


class OciCli:
    """Runs bundles with an OCI runtime's command line (``create``, ``start``, ``exec`` …)."""

    def __init__(
        self,
        name: str,
        program: str,
        supervisor: Supervisor,
        reaper: Reaper,
        state: str,
        args: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.program = program
        self._supervisor = supervisor
        self._reaper = reaper
        self._root = f"{state}/{name}/.root"
        self._args = ("--root", self._root, *args)

    async def create(self, bundle: Bundle) -> None:
        """``create`` under conmon: the process exists and waits for ``start``."""
        os.makedirs(self._root, 0o700, exist_ok=True)
        args = (*self._args, "--log", f"{bundle.run_dir}/runtime.log")
        try:
            await self._supervisor.launch(bundle, self.program, args)
        except errors.Internal as error:
            raise self._explain(bundle, error.message) from error

    async def start(self, bundle: Bundle) -> Started:
        """``start``, then the identity of the process."""
        await self._call(bundle, "start", bundle.id)
        try:
            with open(f"{bundle.run_dir}/pidfile", encoding="ascii") as file:
                pid = int(file.read())
        except (OSError, ValueError) as error:
            raise errors.Internal(
                f"runtime {self.name} wrote no pid file", ref=bundle.id
            ) from error
        init = process.identify(pid) or process.Identity(pid, 0, boot_id())
        return Started(init, self._supervisor.identity(bundle))

    def exit_code(self, bundle: Bundle) -> int | None:
        """What conmon saw: it is the parent of the process."""
        try:
            with open(exit_file(bundle.run_dir), encoding="ascii") as file:
                return int(file.read())
        except (OSError, ValueError):
            return None

    async def exec(self, bundle: Bundle, init: Identity, spec: ExecSpec) -> ExecProcess:
        """``exec --detach``: the process becomes a child of the daemon, a child subreaper."""
        del init
        folder = f"{bundle.run_dir}/exec-{os.urandom(6).hex()}"
        os.mkdir(folder, 0o700)
        try:
            described = json.dumps(self._process(bundle, spec)).encode()
            atomic.write(f"{folder}/process.json", described, durable=False)
            argv = [
                self.program, *self._args, "--log", f"{folder}/log", "exec", "--detach",
                "--process", f"{folder}/process.json", "--pid-file", f"{folder}/pid",
            ]  # fmt: skip
            umask = (bundle.spec["process"].get("user") or {}).get("umask")
            if umask is not None:
                # runc 1.1 has it for init only, others inherit runc's own
                argv = ["/bin/sh", "-c", f'umask {umask:o}; exec "$@"', "sh", *argv]
            if spec.terminal:
                return await self._exec_terminal(bundle, spec, folder, argv)
            ends, streams = _pipes(spec.stdin)
            try:
                pid = process.spawn(
                    [*argv, bundle.id], stdin=ends[0], stdout=ends[1], stderr=ends[2]
                )
            finally:
                for fd in ends:
                    os.close(fd)
            try:
                streams.pid = await self._exec_pid(bundle, pid, folder)
            except BaseException:
                for fd in (streams.stdin, streams.stdout, streams.stderr):
                    if fd >= 0:
                        os.close(fd)
                raise
            return streams
        finally:
            for name in ("process.json", "pid", "log", "tty"):
                with contextlib.suppress(OSError):
                    os.unlink(f"{folder}/{name}")
            with contextlib.suppress(OSError):
                os.rmdir(folder)

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
                pid = process.spawn([*argv, "--tty", "--console-socket", path, bundle.id])
                accept = asyncio.create_task(loop.sock_accept(server))
                try:
                    found = await self._exec_pid(bundle, pid, folder)
                    client, _ = await asyncio.wait_for(accept, 10)
                finally:
                    accept.cancel()
                    await asyncio.gather(accept, return_exceptions=True)
            finally:
                os.close(fd)
            with client:
                client.setblocking(True)
                client.settimeout(10)
                _, fds, _, _ = socket.recv_fds(client, 4096, 1)
        master = fds[0]
        os.set_inheritable(master, False)
        if spec.size:
            set_size(master, *spec.size)
        return ExecProcess(found, master=master)

    async def _exec_pid(self, bundle: Bundle, helper: int, folder: str) -> int:
        code = await self._reaper.watch(self._reaper.spawned(helper))
        if code:
            raise self._explain(bundle, _last_line(f"{folder}/log") or f"exit status {code}")
        with open(f"{folder}/pid", encoding="ascii") as file:
            return int(file.read())

    def _process(self, bundle: Bundle, spec: ExecSpec) -> dict[str, Any]:
        base = dict(bundle.spec["process"])
        umask = {k: v for k, v in (base.get("user") or {}).items() if k == "umask"}
        base.update(
            terminal=spec.terminal,
            args=spec.argv,
            env=spec.env,
            cwd=spec.cwd,
            user={
                "uid": spec.uid,
                "gid": spec.gid,
                "additionalGids": list(spec.groups),
                **umask,
            },
        )
        base.pop("consoleSize", None)
        if spec.size:
            base["consoleSize"] = {"height": spec.size[0], "width": spec.size[1]}
        return base

    async def delete(self, bundle: Bundle) -> None:
        """``delete --force``; a container it does not know is fine."""
        if os.path.exists(f"{self._root}/{bundle.id}"):
            with contextlib.suppress(errors.EngineError):
                await self._call(bundle, "delete", "--force", bundle.id)

    async def checkpoint(self, bundle: Bundle, folder: str, timeout_s: float) -> None:
        """criu's images of the running container in ``checkpoint`` below ``folder``, and its
        ``dump.log``; the container goes on running.  Raises DeadlineExceeded.
        """
        log = f"{folder}/runtime.log"
        argv = [
            self.program, *self._args, "--log", log, "checkpoint", "--leave-running",
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
            text = _message(_last_line(log) or err.decode(errors="replace"))
            raise errors.Internal(
                f"runtime {self.name}: {text or f'exit status {code}'}",
                kind="container",
                ref=bundle.id,
            )

    async def _call(self, bundle: Bundle, *words: str) -> bytes:
        log = f"{bundle.run_dir}/runtime.log"
        try:
            code, out, err = await self._reaper.run(
                [self.program, *self._args, "--log", log, *words]
            )
        except OSError as error:
            raise errors.Unavailable(
                f"cannot run {self.program}: {error.strerror}",
                kind="runtime",
                ref=self.name,
                hint=f"install {self.name} or correct its path in daemon.json",
            ) from error
        except TimeoutError as error:
            raise errors.DeadlineExceeded(
                f"{self.name} {words[0]} did not answer", kind="runtime", ref=self.name
            ) from error
        if code:
            text = _last_line(log) or err.decode(errors="replace").strip()
            raise self._explain(bundle, text or f"exit status {code}")
        return out

    def _explain(self, bundle: Bundle, text: str) -> errors.EngineError:
        """The error class for what the runtime said, kept in one place."""
        plain = _message(text)
        lower = plain.lower()
        program = (bundle.spec.get("process", {}).get("args") or [""])[0]
        if "exec" in lower or "starting container process" in lower:
            if any(word in lower for word in _NOT_FOUND):
                return errors.CommandNotFound(plain, kind="command", ref=program)
            if any(word in lower for word in _NOT_EXECUTABLE):
                return errors.CommandNotExecutable(plain, kind="command", ref=program)
        return errors.Internal(f"runtime {self.name}: {plain}", kind="container", ref=bundle.id)


def _message(text: str) -> str:
    """The ``msg`` of a logrus line, or the text itself."""
    marker = 'msg="'
    if marker in text:
        start = text.index(marker) + len(marker)
        end = text.rfind('"')
        with contextlib.suppress(ValueError):
            return str(json.loads(f'"{text[start:end]}"'))
    return text.strip()


def _last_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line for line in file.read(1 << 20).splitlines() if "level=error" in line]
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return ""
    return lines[-1] if lines else ""
