"""Which releases of LXC are used, and what a shell's background does to signals."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.cgroup import Host
from isula_edge.runtime.lxc import Lxc

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST = "5.0.0"
INTERRUPTS = 1 << signal.SIGINT - 1 | 1 << signal.SIGQUIT - 1


class Asked:
    """A reaper whose programs answer what the test says; it counts how often."""

    def __init__(self, out: bytes = b"", code: int = 0) -> None:
        self.out, self.code, self.argv = out, code, [list[str]()]

    async def run(self, argv: Sequence[str], **_: Any) -> tuple[int, bytes, bytes]:
        self.argv.append([*argv])
        return self.code, self.out, b""


def driver(reaper: Any, program: str = "/usr/bin/lxc-start") -> Lxc:
    nothing: Any = SimpleNamespace()
    return Lxc(nothing, reaper, nothing, Host("1", {}), lambda _: "", "/x", program)


@pytest.mark.parametrize("version", ["3.0.4", "4.0.6", "4.0.12"])
def test_older_ones_are_refused_by_their_number(tmp_path: Path, version: str) -> None:
    program = tmp_path / "lxc-start"
    program.write_bytes(Path("/bin/true").read_bytes())
    program.chmod(0o755)
    asked = Asked(f"{version}\n".encode())
    bundle: Any = SimpleNamespace()
    lxc = driver(asked, str(program))
    for _ in range(2):
        with pytest.raises(errors.Unavailable) as caught:
            asyncio.run(lxc.create(bundle))
        assert version in caught.value.message
        assert LEAST in caught.value.message
    assert asked.argv[1:] == [[str(program), "--version"]]


@pytest.mark.parametrize("answer", [b"5.0.0\n", b"5.0.2", b"6.0.4", b"10.0.0", b"?"])
def test_others_are_used(answer: bytes) -> None:
    assert asyncio.run(driver(Asked(answer))._too_old()) == ""


# native: what /proc says of a process under qemu-user is what the emulator does with signals
@pytest.mark.native
@pytest.mark.parametrize("code", [0, 125])
def test_signals_that_a_shell_ignores_in_the_background_are_given_back(code: int) -> None:
    """With coreutils' env and without it."""
    words = asyncio.run(driver(Asked(code=code))._resetting())
    assert (words[0] == sys.executable) is bool(code)
    assert ignored() & INTERRUPTS == INTERRUPTS
    assert ignored(*words) & INTERRUPTS == 0


def ignored(*words: str) -> int:
    """The signals that are ignored by what a shell runs in the background behind ``words``."""
    script = '("$@" cat /proc/self/status) & wait'
    done = subprocess.run(["sh", "-c", script, "sh", *words], stdout=-1, text=True, check=True)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("SigIgn:"))
    return int(line.split()[1], 16)
