"""The lxc driver: stock LXC 5 and 6 under conmon.

``create`` starts conmon with a generated launcher as its "runtime"; the launcher puts
lxc-start into the background and returns.  lxc-start stays as LXC's own monitor, a child of
conmon.  The gate ``go`` (a FIFO) holds lxc-start back until :meth:`Lxc.start`, so that a
client can be attached before the first byte of output.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import shlex
import signal
import socket
import sys
import termios
import tty
from typing import TYPE_CHECKING

from isula_edge import errors, wire
from isula_edge.cgroup.pods import open_cpuset
from isula_edge.runtime import ctty, hooks, lxc_config, lxc_hooks, lxc_log, lxc_mounts, lxc_user
from isula_edge.runtime.base import ExecProcess, ExecSpec, Started, binds
from isula_edge.runtime.program import Program, one_line, tail
from isula_edge.runtime.supervisor import exit_file
from isula_edge.runtime.terminal import lxc_can_open, open_pty, pty_in, set_size
from isula_edge.sys import atomic, paths, process, syscalls, trees
from isula_edge.sys.boot import boot_id
from isula_edge.sys.capability import number

if TYPE_CHECKING:
    from collections.abc import Callable

    from isula_edge.cgroup import Host
    from isula_edge.runtime.base import Bundle, Guest
    from isula_edge.runtime.supervisor import Supervisor
    from isula_edge.sys.inotify import Watcher
    from isula_edge.sys.process import Identity, Reaper

__all__ = ["Lxc"]

_log = logging.getLogger(__name__)
_START_TIMEOUT_S = 120.0
_LINES_S = 0.004
"""How long lines of the log are left to come before it is read again."""
_KEPT_LOG = 1 << 18
_MONITOR_CGROUP = "isulad-monitor"
_OLDEST = (5, 0, 0)
"""The first LXC with lxc.cgroup.dir.container; 4.0.10 has lxc.init.groups already."""
_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})\.(\d{1,4})")
_VERSION_S = 10.0
_RESET = (
    "import os,signal,sys;"
    "[signal.signal(n,signal.SIG_DFL) for n in (signal.SIGINT,signal.SIGQUIT,signal.SIGPIPE)];"
    "os.execvp(sys.argv[1],sys.argv[1:])"
)


class Lxc:
    """Runs bundles with lxc-start and liblxc."""

    name = "lxc"
    guest: Guest | None = None
    runs_hooks = False

    def __init__(
        self,
        supervisor: Supervisor,
        reaper: Reaper,
        watcher: Watcher,
        cgroups: Host,
        seccomp_text: Callable[[dict[str, object]], str],
        libexec: str,
        lxc_start: str = "/usr/bin/lxc-start",
        start_s: float = 0.0,
    ) -> None:
        self._supervisor = supervisor
        self._reaper = reaper
        self._watcher = watcher
        self._cgroups = cgroups
        self._seccomp_text = seccomp_text
        self._libexec = libexec
        self.program = lxc_start
        self._start_s = start_s or _START_TIMEOUT_S
        self._resets: tuple[str, ...] | None = None
        self._old: str | None = None
        self._gates: dict[str, int] = {}
        self._terminal_gates: dict[str, int] = {}
        self._slaves: dict[str, int] = {}
        self._monitors: dict[str, int] = {}

    async def create(self, bundle: Bundle) -> None:
        """Writes configuration and launcher, starts conmon, opens the terminal."""
        program = Program(self.name, self.program)
        if problem := program.problem():
            raise program.unusable(problem)
        if problem := await self._too_old():
            raise program.unusable(problem)
        run = bundle.run_dir
        open_cpuset(self._cgroups, os.path.dirname(bundle.cgroup))
        seccomp = f"{run}/seccomp"
        config = lxc_config.build(
            bundle,
            version=self._cgroups.version,
            monitor_cgroup=_MONITOR_CGROUP,
            place=self._cgroups.group,
            console=lxc_can_open(),
            seccomp_path=seccomp,
        )
        lxc_mounts.stage(bundle.spec, run)
        text = config.text + lxc_hooks.lines(bundle, self._cgroups) + self._programs(bundle)
        if config.seccomp:
            atomic.write(seccomp, self._seccomp_text(config.seccomp).encode(), durable=False)
        atomic.write(f"{run}/config", text.encode("utf-8", "surrogateescape"), durable=False)
        atomic.write(f"{run}/lxc.log", b"", durable=False)
        launcher = self._launcher(bundle, await self._resetting())
        atomic.write(f"{run}/launch", launcher, durable=False)
        for name in ("go", "console", "gate"):
            with contextlib.suppress(FileExistsError):
                os.mkfifo(f"{run}/{name}", 0o600)
        # opened inside, by whom the container runs as
        user = lxc_user.init_uid(bundle.spec["process"])
        os.chown(f"{run}/gate", lxc_config.host_uid(bundle.spec, user), -1)
        # opened for both, so that neither side's open or write ever blocks
        self._gates[bundle.id] = os.open(f"{run}/go", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            # by the shell, since /run may be mounted noexec
            launch = self._supervisor.launch(bundle, "/bin/sh", (f"{run}/launch",))
            if bundle.terminal:
                gate = os.open(f"{run}/gate", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
                self._terminal_gates[bundle.id] = gate
                terminal = asyncio.create_task(self._give_terminal(bundle))
                try:
                    self._monitors[bundle.id] = await launch
                finally:
                    terminal.cancel()
                    with contextlib.suppress(asyncio.CancelledError, OSError):
                        await terminal
            else:
                self._monitors[bundle.id] = await launch
        except BaseException:
            self._close_gate(bundle)
            raise

    def _programs(self, bundle: Bundle) -> str:
        """Mounts of the programs that go before the container's own."""
        entry, inside, read_only = lxc_config.mount_entry, lxc_config.inside, ("bind", "ro")
        text = ""
        if lxc_user.needed(bundle.spec):
            path = lxc_user.install(bundle.dir, bundle.spec)
            lxc_hooks.give(bundle, path, bundle.dir)
            where = inside(bundle.spec, lxc_user.NAME)
            text += entry(path, where, (*read_only, "create=file"))
        if bundle.terminal:
            path = ctty.install(self._libexec, os.uname().machine)
            text += entry(path, inside(bundle.spec, ctty.NAME), (*read_only, "create=file"))
            if lxc_config.own_dev(bundle.spec):
                text += entry(f"{bundle.run_dir}/gate", ctty.GATE, ("bind", "create=file"))
        return text

    async def start(self, bundle: Bundle) -> Started:
        """Opens the gate and waits until init has been executed."""
        log = f"{bundle.run_dir}/lxc.log"
        seconds = self._start_s + hooks.patience(bundle)
        changed = asyncio.Event()
        ended = self._watcher.add(
            os.path.dirname(exit_file(bundle.run_dir)),
            syscalls.IN_MOVED_TO | syscalls.IN_CREATE,
            lambda name: changed.set() if name in ("", bundle.id) else None,
        )
        try:
            os.write(self._gates[bundle.id], b"go\n")
            async with asyncio.timeout(seconds):
                return await self._wait_started(bundle, log, changed)
        except TimeoutError as error:
            raise errors.DeadlineExceeded(
                f"runtime lxc: {self.program} did not start container {bundle.name} within "
                f"{seconds:g} s and was killed",
                kind="container",
                ref=bundle.id,
                hint="see what it waits for (a hook, a device), or set another start-timeout in "
                "daemon.json",
            ) from error
        finally:
            self._watcher.remove(ended)
            self._close_gate(bundle)

    async def _wait_started(self, bundle: Bundle, log: str, changed: asyncio.Event) -> Started:
        while True:
            changed.clear()
            # LXC writes a line per rule of the seccomp profile: one event for many lines
            mask = syscalls.IN_MODIFY | syscalls.IN_ONESHOT
            watch = self._watcher.add(log, mask, lambda _: changed.set())
            try:
                started = self._started(bundle, lxc_log.read_progress(log))
                if started is not None:
                    return started
                if os.path.exists(exit_file(bundle.run_dir)):
                    progress = lxc_log.read_progress(log)
                    started = self._started(bundle, progress)
                    if started is not None:
                        return started
                    raise self._failure(bundle, progress.error)
                await changed.wait()
            finally:
                self._watcher.remove(watch)
            await asyncio.sleep(_LINES_S)

    def _started(self, bundle: Bundle, progress: lxc_log.Progress) -> Started | None:
        """What there is to tell once init has been executed; raises when it cannot be."""
        if progress.exec_error:
            self._raise_exec(bundle, progress.exec_error)
        if not progress.pid:
            return None
        self._release_terminal(bundle)
        init = process.identify(progress.pid) or process.Identity(progress.pid, 0, boot_id())
        return Started(init, self._supervisor.identity(bundle))

    def _failure(self, bundle: Bundle, text: str) -> errors.EngineError:
        reason = one_line(lxc_hooks.problem(bundle) or text)
        reason = reason or f"{self.program} ended without giving a reason"
        kept = f"{bundle.dir}/lxc.log"
        with contextlib.suppress(OSError):
            # the run directory does not outlive the failure
            log = tail(f"{bundle.run_dir}/lxc.log", _KEPT_LOG).encode()
            atomic.write(kept, log, durable=False)
        return errors.Internal(
            f"runtime lxc could not start container {bundle.name}: {reason}",
            kind="container",
            ref=bundle.id,
            hint=f"see {kept}",
        )

    def _raise_exec(self, bundle: Bundle, number: int) -> None:
        program = bundle.spec["process"]["args"][0]
        raise exec_error(program, number)

    async def exit_code(self, bundle: Bundle) -> int | None:
        """From the LXC log, since lxc-start exits 0 whatever init did."""
        progress = lxc_log.read_progress(f"{bundle.run_dir}/lxc.log")
        if not progress.pid:
            return None
        return lxc_log.exit_code(f"{bundle.run_dir}/lxc.log")

    async def exec(self, bundle: Bundle, init: Identity, spec: ExecSpec) -> ExecProcess:
        """Runs the attach helper; the process is a child of the daemon afterwards."""
        if spec.terminal:
            master, slave = pty_in(init.pid, spec.size)
            # whoever opens the terminal again inside must be somebody there
            os.fchown(slave, lxc_config.host_uid(bundle.spec, spec.uid), -1)
            ends, streams = [slave, slave, slave], ExecProcess(0, master=master)
        else:
            ends, streams = _pipes(spec.stdin)
        try:
            streams.pid = await self._attach(bundle, spec, ends)
        except BaseException:
            for fd in (streams.stdin, streams.stdout, streams.stderr, streams.master):
                if fd >= 0:
                    os.close(fd)
            raise
        finally:
            for fd in set(ends):
                os.close(fd)
        return streams

    async def _attach(self, bundle: Bundle, spec: ExecSpec, ends: list[int]) -> int:
        described = bundle.spec["process"]
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                helper = process.spawn(
                    process.python_command("isula_edge.helper.lxc_attach"),
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    fds={3: ends[0], 4: ends[1], 5: ends[2]},
                )
            self._reaper.spawned(helper)
            request = {
                "name": bundle.id,
                "path": os.path.dirname(bundle.run_dir),
                "argv": spec.argv,
                "env": spec.env,
                "cwd": spec.cwd,
                "uid": spec.uid,
                "gid": spec.gid,
                "groups": list(spec.groups),
                "umask": (described.get("user") or {}).get("umask"),
                "ambient": [
                    number(name)
                    for name in (described.get("capabilities") or {}).get("ambient") or ()
                ],
                # liblxc asks the monitor for a profile only with this flag, and the monitor
                # complains on the container's stderr when there is none
                "lsm": bool(
                    (bundle.spec.get("linux") or {}).get("seccomp")
                    or described.get("apparmorProfile")
                    or described.get("selinuxLabel")
                ),
            }
            ours.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(ours, wire.pack(request))
            answer = await _frame(ours)
        if "pid" in answer:
            return int(answer["pid"])
        if answer.get("step") == "execute":
            raise exec_error(spec.argv[0], int(answer["errno"]))
        text = os.strerror(int(answer.get("errno", 5)))
        raise errors.Internal(
            f"cannot run {spec.argv[0]} in container {bundle.name}: "
            f"{answer.get('step', 'the helper ended')}: {text}",
            kind="container",
            ref=bundle.id,
        )

    async def delete(self, bundle: Bundle) -> None:
        """Ends what is left of a start that failed half-way, removes cgroups."""
        self._close_gate(bundle)
        monitor = self._monitors.pop(bundle.id, 0)
        found = process.identify(monitor) if monitor else None
        if not os.path.exists(exit_file(bundle.run_dir)):
            supervisor = self._supervisor.identity(bundle)
            if supervisor is not None:
                # and so all that it, LXC and their hooks have started
                await trees.end_tree(supervisor)
            elif found is not None:
                process.signal_process(found, signal.SIGKILL)
        group = (bundle.spec.get("linux") or {}).get("cgroupsPath") or bundle.cgroup
        await self._end_processes(group.strip("/"))
        self._cgroups.remove(group.strip("/"))
        self._cgroups.remove(self._cgroups.group(f"{_MONITOR_CGROUP}/{bundle.id}"))

    async def _end_processes(self, group: str) -> None:
        """Kills what goes on without init, in a process id namespace of somebody else's."""
        while left := [*filter(None, map(process.identify, self._cgroups.pids(group)))]:
            if not await trees.end(left):
                _log.warning("processes in cgroup %s do not end", group)
                return

    def _release_terminal(self, bundle: Bundle) -> None:
        """Lets the terminal helper go on; conmon and LXC both set ONLCR before this point."""
        if bundle.terminal:
            # of a container that has ended already nobody holds the other end
            with contextlib.suppress(termios.error):
                if lxc_can_open():
                    tty.setraw(self._slaves[bundle.id])
            os.write(self._terminal_gates[bundle.id], b"g")

    def _close_gate(self, bundle: Bundle) -> None:
        for table in (self._gates, self._terminal_gates, self._slaves):
            fd = table.pop(bundle.id, -1)
            if fd >= 0:
                os.close(fd)

    @staticmethod
    def _program_path(bundle: Bundle) -> str:
        """The command as an absolute path inside: our own programs do no PATH search."""
        described = bundle.spec["process"]
        env = dict(pair.partition("=")[::2] for pair in described.get("env") or ())
        search = env.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        root = bundle.spec["root"]["path"]
        program, cwd = described["args"][0], described["cwd"]
        return paths.find_program(root, program, search, cwd, binds(bundle.spec))[0]

    async def _too_old(self) -> str:
        """Why this release of LXC cannot be used, or ''; asked once, and no answer is fine."""
        if self._old is None:
            out = b""
            with contextlib.suppress(OSError, TimeoutError):
                words = [self.program, "--version"]
                out = (await self._reaper.run(words, timeout_s=_VERSION_S, group=True))[1]
            found = _VERSION.match(out.decode(errors="replace"))
            self._old = ""
            if found and tuple(map(int, found.groups())) < _OLDEST:
                oldest = ".".join(map(str, _OLDEST))
                self._old = (
                    f"{self.program} is LXC {found[0]}, and {oldest} or later is needed: those "
                    "before cannot be told a container's cgroup"
                )
        return self._old

    async def _resetting(self) -> tuple[str, ...]:
        """Words before a command that undo what a shell does to it in the background: it
        ignores SIGINT and SIGQUIT there, and what is ignored would be ignored in the container.
        """
        if self._resets is None:
            words = ("/usr/bin/env", "--default-signal=INT,QUIT")
            code = 1
            with contextlib.suppress(OSError, TimeoutError):
                # coreutils 8.31
                code = (await self._reaper.run([*words, "true"]))[0]
            self._resets = (sys.executable, "-IS", "-c", _RESET) if code else words
        return self._resets

    def _launcher(self, bundle: Bundle, resets: tuple[str, ...]) -> bytes:
        """The program conmon takes for a runtime: ``create --bundle B --pid-file P ID``."""
        run = bundle.run_dir
        args = list(bundle.spec["process"]["args"])
        before = [ctty.NAME] if bundle.terminal else []
        if lxc_user.needed(bundle.spec):
            before.append(lxc_user.NAME)
        if before:
            names = [lxc_config.inside(bundle.spec, name) for name in before]
            args[:1] = [*names, self._program_path(bundle)]
        words = [
            *resets, self.program, "-F", "-n", bundle.id, "-P", os.path.dirname(run),
            "-f", f"{run}/config", "-o", f"{run}/lxc.log", "-l", "INFO", "-q", "--", *args,
        ]  # fmt: skip
        command = shlex.join(words)
        gate = f"{run}/go"
        lines = [
            "#!/bin/sh",
            'while [ $# -gt 0 ]; do case "$1" in',
            "--pid-file) pid_file=$2 ;; --console-socket) console=$2 ;; esac; shift; done",
        ]
        if bundle.terminal:
            # init takes a terminal that is not LXC's as its own: nobody may have it before
            session = "setsid -c" if lxc_can_open() else "setsid"
            lines += [
                f"printf '%s\\n' \"$console\" >{shlex.quote(run + '/console')}",
                f"read -r tty <{shlex.quote(gate)} || exit 1",
                'exec 4<>"$tty"',
                f"( read -r _ <{shlex.quote(gate)} || exit 1",
                f"exec {session} {command} <&4 >&4 2>&4 4<&- ) &",
            ]
        else:
            lines += [
                "exec 3<&0",
                f"( read -r _ <{shlex.quote(gate)} || exit 1; exec {command} <&3 3<&- ) &",
            ]
        lines += ['echo $! >"$pid_file"', ""]
        return "\n".join(lines).encode("utf-8", "surrogateescape")

    async def _give_terminal(self, bundle: Bundle) -> None:
        """Opens a pty: the master goes to conmon, the slave becomes lxc-start's terminal."""
        path = await _line(f"{bundle.run_dir}/console")
        # without a terminal of LXC's between them it is the container's own
        master, slave, name = open_pty(raw=lxc_can_open())
        self._slaves[bundle.id] = slave
        size = bundle.spec["process"].get("consoleSize")
        if size:
            set_size(slave, size["height"], size["width"])
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
                sock.connect(path)
                socket.send_fds(sock, [name.encode()], [master])
            os.write(self._gates[bundle.id], f"{name}\n".encode())
        finally:
            os.close(master)


def exec_error(program: str, number: int) -> errors.EngineError:
    """The error for execve(2) of ``program`` failing with errno ``number``."""
    text = os.strerror(number)
    if number in (errno.ENOENT, errno.ENOTDIR):
        return errors.CommandNotFound(
            f'exec: "{program}": executable file not found: {text}', kind="command", ref=program
        )
    return errors.CommandNotExecutable(
        f'exec: "{program}": {text.lower()}', kind="command", ref=program
    )


def _pipes(stdin: bool) -> tuple[list[int], ExecProcess]:
    in_r, in_w = os.pipe()
    out_r, out_w = os.pipe()
    err_r, err_w = os.pipe()
    if not stdin:
        os.close(in_w)
        in_w = -1
    return [in_r, out_w, err_w], ExecProcess(0, stdin=in_w, stdout=out_r, stderr=err_r)


async def _frame(sock: socket.socket) -> dict[str, int | str]:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "big"):
        chunk = await loop.sock_recv(sock, 65536)
        if not chunk:
            return {"errno": errno.EIO, "step": "the helper ended"}
        data += chunk
    value: dict[str, int | str] = wire.decode(data[4:])
    return value


async def _line(path: str) -> str:
    """One line from a FIFO."""
    loop = asyncio.get_running_loop()
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    done: asyncio.Future[None] = loop.create_future()
    data = b""

    def readable() -> None:
        nonlocal data
        with contextlib.suppress(BlockingIOError):
            data += os.read(fd, 4096)
        if b"\n" in data and not done.done():
            done.set_result(None)

    loop.add_reader(fd, readable)
    try:
        await done
    finally:
        loop.remove_reader(fd)
        os.close(fd)
    return data.partition(b"\n")[0].decode()
