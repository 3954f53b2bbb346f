"""A stand-in for the command line of kata-runtime 1.x, over runc.

What it has of kata 1.12: the reported pid is a process of the host that stands for the container
(kata-shim), passes signals on and ends with its exit code; a "virtual machine" lives from create to
delete; ``kill`` of SIGTERM blocks and kills after a while; signal 0 is refused; ``-c`` of exec is a
capability; options that only runc has are refused; ``delete`` fails once the virtual machine has
died, ``delete --force`` does not.  The containers' processes are runc's, on the host.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["VERSION", "install", "main"]

VERSION = "kata-runtime  : 1.12.1\n   commit   : 0f82b4\n   OCI specs: 1.0.1-dev\n"
_RUNC = shutil.which("runc") or "/usr/sbin/runc"
_SUBREAPER = 36
_KILL_AFTER_S = 10.0
_FLAGS = {
    "create": {"--bundle": 1, "--pid-file": 1, "--console-socket": 1, "--no-pivot": 0},
    "start": {},
    "exec": {
        "--detach": 0, "-d": 0, "--process": 1, "-p": 1, "--pid-file": 1, "--console-socket": 1,
        "--tty": 0, "-t": 0, "--cap": 1, "-c": 1,
    },
    "kill": {"--all": 0, "-a": 0},
    "delete": {"--force": 0, "-f": 0},
    "state": {},
    "ps": {"--format": 1, "-f": 1},
    "events": {"--stats": 0, "--interval": 1},
    "pause": {},
    "resume": {},
    "update": {"--resources": 1, "-r": 1},
}  # fmt: skip
_LONG = {"-p": "--process", "-d": "--detach", "-a": "--all", "-f": "--force", "-r": "--resources"}


def install(folder: Path) -> Path:
    """A program ``kata-runtime`` in ``folder``; it notes its command lines in ``calls``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "kata-runtime"
    path.write_text(
        f"#!/bin/sh\nexport FAKE_KATA={folder}\nexec {sys.executable} -IS {__file__} \"$@\"\n"
    )
    path.chmod(0o755)
    return path


def main(argv: list[str]) -> int:
    """One command; the exit status."""
    with (Path(os.environ["FAKE_KATA"]) / "calls").open("a") as file:
        file.write(json.dumps(argv) + "\n")
    root, at = "", 0
    while at < len(argv) and argv[at].startswith("-"):
        if argv[at] == "--version":
            sys.stdout.write(VERSION)
            return 0
        if argv[at] not in ("--root", "--kata-config"):
            return _fail(f"flag provided but not defined: -{argv[at].lstrip('-')}")
        root = argv[at + 1] if argv[at] == "--root" else root
        at += 2
    if at >= len(argv) or argv[at] not in _FLAGS:
        return _fail("no such command")
    verb = argv[at]
    try:
        options, words = _options(verb, argv[at + 1 :])
    except ValueError as error:
        return _fail(str(error))
    return _Container(Path(root), words[0]).run(verb, options, words[1:])


def _fail(text: str) -> int:
    sys.stderr.write(text + "\n")
    return 1


def _options(verb: str, words: list[str]) -> tuple[dict[str, str], list[str]]:
    found, at = {}, 0
    while at < len(words) and words[at].startswith("-") and words[at] != "-":
        word = words[at]
        if word not in _FLAGS[verb]:
            raise ValueError(f"flag provided but not defined: -{word.lstrip('-')}")
        takes = _FLAGS[verb][word]
        name = _LONG.get(word, word)
        if verb == "ps" and word == "-f":
            name = "--format"
        found[name] = words[at + 1] if takes else ""
        at += 1 + takes
    return found, words[at:]


class _Container:
    def __init__(self, root: Path, name: str) -> None:
        self.name = name
        self.folder = root / name
        self.vm = self.folder / "vm"
        self.shim = self.folder / "shim"
        self.init = self.folder / "init"

    def runc(self, *words: str, **options: object) -> int:
        root = str(self.folder / "runc")
        command = [_RUNC, "--root", root, *words]
        return subprocess.run(command, check=False, **options).returncode  # type: ignore[call-overload,no-any-return]

    def run(self, verb: str, options: dict[str, str], rest: list[str]) -> int:
        if verb != "create" and not self.folder.exists():
            return _fail(f"Container ID ({self.name}) does not exist")
        work = getattr(self, verb)
        return int(work(options, rest))

    # life

    def create(self, options: dict[str, str], _: list[str]) -> int:
        self.folder.mkdir(parents=True)
        with (self.folder / "vm.log").open("w") as log:
            vm = subprocess.Popen(
                ["sleep", "100000"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self.vm.write_text(str(vm.pid))
        words = ["create", "--bundle", options["--bundle"], "--pid-file", str(self.init)]
        if "--console-socket" in options:
            words += ["--console-socket", options["--console-socket"]]
        code, shim = self._shim([*words, self.name], self.init)
        if code:
            return code
        self.shim.write_text(str(shim))
        Path(options["--pid-file"]).write_text(str(shim))
        return 0

    def _shim(self, words: list[str], pid_file: Path) -> tuple[int, int]:
        """A process that stands for the one that runc makes: runc's exit status, and its pid."""
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            _stand(self, words, pid_file, writer)
        os.close(writer)
        with os.fdopen(reader, "rb") as file:
            answer = file.read()
        return (int(answer) if answer else 1), pid

    def start(self, _: dict[str, str], __: list[str]) -> int:
        return self.runc("start", self.name)

    def exec(self, options: dict[str, str], rest: list[str]) -> int:
        if "--process" not in options or rest:
            return _fail(f"no process, {options.get('--cap', '')!r} is a capability")
        number = f"exec-{os.getpid()}"
        pid_file = self.folder / number
        words = ["exec", "--detach", "--process", options["--process"], "--pid-file", str(pid_file)]
        if "--console-socket" in options:
            words += ["--tty", "--console-socket", options["--console-socket"]]
        code, shim = self._shim([*words, self.name], pid_file)
        if code == 0:
            Path(options["--pid-file"]).write_text(str(shim))
        return code

    def kill(self, options: dict[str, str], rest: list[str]) -> int:
        number = int(rest[0]) if rest[0].isdigit() else int(getattr(signal, f"SIG{rest[0]}"))
        if number == 0:
            return _fail("signal 0 is not supported")
        everyone = ["--all"] if "--all" in options else []
        code = self.runc("kill", *everyone, self.name, str(number))
        if code == 0 and number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + _KILL_AFTER_S
            while _alive(self.shim) and time.monotonic() < deadline:
                time.sleep(0.02)
            if _alive(self.shim):
                self.runc("kill", self.name, "9")
        return code

    def delete(self, options: dict[str, str], _: list[str]) -> int:
        force = "--force" in options
        if not _alive(self.vm) and not force:
            return _fail("failed to connect to the agent: the virtual machine is gone")
        code = self.runc("delete", *(["--force"] if force else []), self.name)
        if code and not force:
            return code
        with contextlib.suppress(OSError):
            os.kill(int(self.vm.read_text()), signal.SIGKILL)
        shutil.rmtree(self.folder)
        return 0

    # asking

    def state(self, _: dict[str, str], __: list[str]) -> int:
        root = str(self.folder / "runc")
        done = subprocess.run(
            [_RUNC, "--root", root, "state", self.name], check=False, capture_output=True
        )
        if done.returncode == 0:
            found = json.loads(done.stdout)
            found["pid"] = int(self.shim.read_text()) if _alive(self.shim) else 0
            sys.stdout.write(json.dumps(found))
        return done.returncode

    def ps(self, _: dict[str, str], __: list[str]) -> int:
        root = str(self.folder / "runc")
        words = [_RUNC, "--root", root, "ps", "--format", "json", self.name]
        found = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
        # the guest has numbers of its own
        sys.stdout.write(json.dumps([*range(1, len(found) + 1)]))
        return 0

    def events(self, options: dict[str, str], _: list[str]) -> int:
        if "--stats" not in options:
            return _fail("only --stats is done here")
        return self.runc("events", "--stats", self.name)

    def pause(self, _: dict[str, str], __: list[str]) -> int:
        return self.runc("pause", self.name)

    def resume(self, _: dict[str, str], __: list[str]) -> int:
        return self.runc("resume", self.name)

    def update(self, options: dict[str, str], _: list[str]) -> int:
        return self.runc("update", "--resources", options["--resources"], self.name)


def _alive(path: Path) -> bool:
    try:
        stat = Path(f"/proc/{path.read_text()}/stat").read_text()
    except OSError:
        return False
    return stat[stat.rindex(")") + 2] not in "ZX"


def _stand(container: _Container, words: list[str], pid_file: Path, writer: int) -> None:
    """The process that stands for another: never returns."""
    os.setsid()
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    code = container.runc(*words)
    init = int(pid_file.read_text()) if code == 0 else 0

    def forward(number: int, _: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(init, number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, forward)
    os.write(writer, str(code).encode())
    os.close(writer)
    if code:
        os._exit(1)
    # the streams are the container's alone
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == init:
            found = os.waitstatus_to_exitcode(status)
            os._exit(found if found >= 0 else 128 - found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
