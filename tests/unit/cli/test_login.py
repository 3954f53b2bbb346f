"""``isula login`` and ``logout``: questions, texts, streams and exit statuses."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from tests.unit.cli.answers import answer, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.cli.conftest import Isula
    from tests.unit.daemon.served import Served

WARNING = "WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n"
SENT = {"server": "a.io", "username": "me", "password": "pw"}


@pytest.fixture(autouse=True)
def methods(daemon: Served) -> None:
    daemon.methods["image.login"] = answer({"server": "a.io"})
    daemon.methods["image.logout"] = answer({"server": "a.io", "removed": False})


class Input:
    """Standard input of this process, as a pipe that has ended."""

    def __init__(self) -> None:
        self._saved = os.dup(0)

    def give(self, data: bytes) -> None:
        """Makes ``data`` all there is to read."""
        read_end, write_end = os.pipe()
        os.write(write_end, data)
        os.close(write_end)
        os.dup2(read_end, 0)
        os.close(read_end)

    def restore(self) -> None:
        """Gives the process back what it had."""
        os.dup2(self._saved, 0)
        os.close(self._saved)


@pytest.fixture
def stdin() -> Iterator[Input]:
    found = Input()
    yield found
    found.restore()


def test_a_password_on_the_command_line(daemon: Served, isula: Isula) -> None:
    done = isula("login", "-u", "me", "-p", "pw", "a.io")
    assert done == (0, WARNING, "Login Succeeded\n")
    assert daemon.answers("image.login") == [SENT]


@pytest.mark.parametrize("data", [b"pw", b"pw\n", b"pw\r\n"])
def test_a_password_from_standard_input(
    daemon: Served, isula: Isula, stdin: Input, data: bytes
) -> None:
    stdin.give(data)
    done = isula("login", "-u", "me", "--password-stdin", "a.io")
    assert done == (0, "", "Login Succeeded\n")
    assert daemon.answers("image.login") == [SENT]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a.io"], "Error: Cannot perform an interactive login from a non TTY device\n"),
        (["-u", "me", "a.io"], "Error: Cannot perform an interactive login from a non TTY device"),
        (["--password-stdin", "a.io"], "Must provide --username with --password-stdin\n"),
        (
            ["-u", "me", "-p", "x", "--password-stdin", "a.io"],
            "--password and --password-stdin are mutually exclusive\n",
        ),
        (["-u", "me", "--password-stdin", "a.io"], "Error: Password Required\n"),
        (["-u", "me", "-p", "\udcff", "a.io"], "the password is not UTF-8\n"),
        ([], '"login" requires 1 argument.\n'),
        (["a.io", "b.io"], '"login" requires 1 argument.\n'),
    ],
)
def test_what_is_refused_before_anybody_is_asked(
    daemon: Served,
    isula: Isula,
    stdin: Input,
    words: list[str],
    said: str,
) -> None:
    stdin.give(b"")
    done = isula("login", *words)
    assert done.status == 1
    assert said in done.err
    assert daemon.answers("image.login") == []


def test_the_daemons_refusal(daemon: Served, isula: Isula) -> None:
    text = "login to registry for a.io failed: invalid username/password"
    daemon.methods["image.login"] = refusal(errors.PermissionDenied(text))
    done = isula("login", "-u", "me", "-p", "pw", "a.io")
    assert done == (1, WARNING, f"Error response from daemon: {text}\n")


def test_logout(daemon: Served, isula: Isula) -> None:
    assert isula("logout", "a.io") == (0, "", "Logout Succeeded\n")
    assert daemon.answers("image.logout") == [{"server": "a.io"}]
    done = isula("logout")
    assert done.status == 1
    assert '"logout" requires 1 argument.' in done.err


# on a terminal


class Terminal:
    """``isula login`` with a terminal as its standard input and output."""

    def __init__(self, host: str, *words: str) -> None:
        self.master, slave = pty.openpty()
        code = "import sys; from isula_cli.main import main; sys.exit(main())"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "login", "-H", host, *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
            preexec_fn=_controlling,
        )
        os.close(slave)
        self.shown = b""

    def until(self, text: bytes) -> None:
        """Reads until ``text`` is on the screen."""
        while text not in self.shown:
            try:
                part = os.read(self.master, 4096)
            except OSError:
                part = b""
            assert part, self.shown
            self.shown += part

    def type(self, data: bytes) -> None:
        """Presses keys."""
        os.write(self.master, data)

    @property
    def echoes(self) -> bool:
        """Whether what is typed is shown."""
        return bool(termios.tcgetattr(self.master)[3] & termios.ECHO)

    def end(self) -> int:
        """Reads to the end; the exit status."""
        while True:
            try:
                part = os.read(self.master, 4096)
            except OSError:
                break
            if not part:
                break
            self.shown += part
        os.close(self.master)
        return self.process.wait(60)


def _controlling() -> None:
    import fcntl

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_questions(daemon: Served) -> None:
    terminal = Terminal(daemon.host, "a.io")
    terminal.until(b"Username: ")
    assert terminal.echoes
    terminal.type(b"me\n")
    terminal.until(b"Password: ")
    _until_silent(terminal)
    terminal.type(b"pw\n")
    terminal.until(b"Login Succeeded\r\n")
    assert terminal.end() == 0
    assert terminal.shown == b"Username: me\r\nPassword: \r\nLogin Succeeded\r\n"
    assert daemon.answers("image.login") == [SENT]


def test_only_what_is_missing_is_asked(daemon: Served) -> None:
    terminal = Terminal(daemon.host, "-u", "me", "a.io")
    terminal.until(b"Password: ")
    terminal.type(b"pw\n")
    assert terminal.end() == 0
    assert b"Username" not in terminal.shown
    assert daemon.answers("image.login") == [SENT]


@pytest.mark.parametrize(
    ("keys", "status", "said"),
    [
        ([(b"Username: ", b"\n")], 1, b"Error: Non-null Username Required"),
        ([(b"Username: ", b"\x04")], 1, b"Error: Non-null Username Required"),
        ([(b"Username: ", b"me\n"), (b"Password: ", b"\n")], 1, b"Error: Password Required"),
        ([(b"Username: ", b"me\n"), (b"Password: ", b"\x03")], 130, b""),
    ],
)
def test_no_answer(
    daemon: Served, keys: list[tuple[bytes, bytes]], status: int, said: bytes
) -> None:
    terminal = Terminal(daemon.host, "a.io")
    for prompt, typed in keys:
        terminal.until(prompt)
        if prompt == b"Password: ":
            _until_silent(terminal)
        terminal.type(typed)
    assert terminal.end() == status
    assert said in terminal.shown
    assert daemon.answers("image.login") == []


def _until_silent(terminal: Terminal) -> None:
    while terminal.echoes:
        os.sched_yield()
