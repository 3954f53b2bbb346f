"""Contract of the runtimes: terminals of containers and of processes run in them."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from typing import TYPE_CHECKING

import pytest

from tests.containers import run, script

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig import Engine

# native: qemu-user refuses clone(2) with namespaces
pytestmark = [pytest.mark.root, pytest.mark.lxc, pytest.mark.native]

TESTED = "for n in 0 1 2; do test -t $n && echo terminal $n; done; exit 3"


class Terminal:
    """A client at a pty, as a user in a terminal emulator has it."""

    def __init__(self, engine: Engine, *words: str, rows: int = 24, columns: int = 80) -> None:
        self.master, slave = os.openpty()
        self.resize(rows, columns)
        self.client = engine.popen(
            *words, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)
        self.data = b""

    def resize(self, rows: int, columns: int) -> None:
        """The kernel tells the client by SIGWINCH."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def write(self, text: str) -> None:
        os.write(self.master, text.encode())

    def until(self, wanted: str) -> None:
        """Reads until ``wanted`` came; what comes after it is kept."""
        while wanted.encode() not in self.data:
            self.data += os.read(self.master, 4096)
        self.data = self.data.partition(wanted.encode())[2]

    def end(self) -> tuple[str, int]:
        """What else is written, and the client's exit code."""
        while True:
            try:
                chunk = os.read(self.master, 65536)
            except OSError:
                # EIO: nobody has the other end any more
                break
            if not chunk:
                break
            self.data += chunk
        os.close(self.master)
        return self.data.decode(), self.client.wait(60)


@pytest.fixture
def target(engine: Engine, runtime: str) -> Iterator[str]:
    """A running container without a terminal; its name."""
    run(engine, runtime, "target", "busybox", "sleep", "1000")
    yield "target"
    engine.ok("rm", "-f", "target")


def sized(terminal: Terminal, rows: int, columns: int) -> None:
    """Waits until the shell at the other end has this size."""
    terminal.write(f"while ! stty size | grep '{rows} {columns}'; do sleep 0.05; done\n")
    terminal.until(f"\n{rows} {columns}")


def test_an_attached_terminal(engine: Engine, runtime: str) -> None:
    terminal = Terminal(
        *(engine, "run", "-it", "--rm", "--runtime", runtime, "busybox", "sh"), rows=31, columns=97
    )
    terminal.until("# ")
    sized(terminal, 31, 97)
    terminal.resize(50, 120)
    sized(terminal, 50, 120)
    terminal.write("exit 6\n")
    assert terminal.end()[1] == 6


def test_exec_with_a_terminal_that_changes_its_size(engine: Engine, target: str) -> None:
    terminal = Terminal(engine, "exec", "-it", target, "sh", rows=33, columns=99)
    terminal.until("# ")
    sized(terminal, 33, 99)
    terminal.resize(44, 111)
    sized(terminal, 44, 111)
    terminal.write("tty; exit 7\n")
    text, code = terminal.end()
    assert code == 7
    assert "/dev/pts/" in text or "/dev/console" in text


def test_all_three_streams_are_the_terminal(engine: Engine, runtime: str, target: str) -> None:
    words = ("run", "-t", "--rm", "--runtime", runtime, "busybox", "sh", "-c", TESTED)
    for asked in (words, ("exec", "-t", target, "sh", "-c", TESTED)):
        result = engine.isula(*asked)
        assert result.out.splitlines() == ["terminal 0", "terminal 1", "terminal 2"]
        assert result.code == 3
        # with a terminal lines end as a terminal needs it
        assert result.out.count("\n") == 3
    plain = tuple(word for word in words if word != "-t")
    result = engine.isula(*plain)
    assert (result.out, result.code) == ("", 3)
    result = engine.isula("exec", target, "sh", "-c", TESTED)
    assert (result.out, result.code) == ("", 3)


def test_keys_that_send_signals(engine: Engine, runtime: str) -> None:
    terminal = Terminal(engine, "run", "-it", "--rm", "--runtime", runtime, "busybox", "sh")
    terminal.until("# ")
    # the shell writes what it is told, and so does the line that tells it
    terminal.write("trap 'echo inter''rupted; exit 9' INT; echo rea''dy; ")
    terminal.write("while :; do sleep 0.05; done\n")
    terminal.until("ready")
    terminal.write("\x03")
    terminal.until("interrupted")
    assert terminal.end()[1] == 9


def test_a_detached_terminal_is_logged_and_attached_to(engine: Engine, runtime: str) -> None:
    text = "tty >/dev/null && echo at a terminal; read -r line; echo got $line; exit 4"
    script(engine, runtime, "later", text, "-it")
    terminal = Terminal(engine, "attach", "later", rows=40, columns=70)
    terminal.write("hello\n")
    terminal.until("got hello")
    assert terminal.end()[1] == 4
    assert "at a terminal" in engine.ok("logs", "later")


def test_it_is_a_controlling_terminal(engine: Engine, runtime: str, target: str) -> None:
    asked = ("sh", "-c", "echo opened >/dev/tty")
    assert engine.ok("run", "-t", "--rm", "--runtime", runtime, "busybox", *asked) == "opened"
    assert engine.ok("exec", "-t", target, *asked) == "opened"
    result = engine.isula("exec", target, *asked)
    assert result.code != 0
    assert "opened" not in result.out


def test_a_client_that_goes_away(engine: Engine, runtime: str) -> None:
    terminal = Terminal(
        *(engine, "run", "-it", "--name", "alone", "--runtime", runtime, "busybox", "sh")
    )
    terminal.until("# ")
    terminal.client.kill()
    terminal.end()
    assert engine.state_of("alone")["Running"]
    again = Terminal(engine, "attach", "alone")
    again.write("exit 12\n")
    assert again.end()[1] == 12
