"""The program as a process: its streams, what it imports, how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from tests.unit.cli.answers import answer, refusal

if TYPE_CHECKING:
    from isula_edge.daemon.server import Session
    from tests.unit.daemon.served import Served

ROOT = os.path.abspath(f"{os.path.dirname(__file__)}/../../..")
PLACES = [ROOT, f"{ROOT}/cli"]
PROGRAM = [sys.executable, "-m", "isula_cli"]


def run(
    daemon: Served, *words: str, shell: str = "", data: bytes = b"", **env: str
) -> subprocess.CompletedProcess[bytes]:
    """``isula`` in a process; ``shell`` are redirections."""
    command = [*PROGRAM, *words]
    if shell:
        command = ["/bin/sh", "-c", f'"$@" {shell}', "sh", *command]
    return subprocess.run(
        command,
        input=data,
        capture_output=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": ":".join(PLACES), "ISULAD_HOST": daemon.host, **env},
        check=False,
    )


@pytest.fixture
def listed(daemon: Served) -> Served:
    daemon.methods["container.list"] = answer({"containers": []})
    return daemon


HEADS = b"CONTAINER ID   IMAGE   COMMAND   CREATED   STATUS   PORTS   NAMES\n"


def test_the_daemon_is_found_by_the_environment(listed: Served) -> None:
    done = run(listed, "ps")
    assert (done.returncode, done.stdout, done.stderr) == (0, HEADS, b"")
    assert len(listed.seen) == 1


CLOSED = [">&-", "2>&-", ">&- 2>&-", "<&-", "<&- >&- 2>&-"]


# an emulator opens files of its own, which land where descriptors are closed
@pytest.mark.native
@pytest.mark.parametrize("shell", CLOSED)
def test_closed_descriptors_are_no_reason_to_fail(listed: Served, shell: str) -> None:
    done = run(listed, "ps", shell=shell)
    assert done.returncode == 0
    assert done.stdout == (b"" if " >&-" in f" {shell}" else HEADS)
    assert done.stderr == b""
    assert len(listed.seen) == 1


# an emulator opens files of its own, which land where descriptors are closed
@pytest.mark.native
@pytest.mark.parametrize("shell", CLOSED)
def test_an_error_with_closed_descriptors_keeps_its_status(daemon: Served, shell: str) -> None:
    daemon.methods["container.list"] = refusal(errors.NotFound("nothing"))
    assert run(daemon, "ps", shell=shell).returncode == 1


def test_a_reader_that_has_gone_ends_it_quietly(daemon: Served) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    daemon.methods["container.logs"] = answer({}, *[("o", b"x" * 1000)] * 10)
    try:
        done = subprocess.run(
            [*PROGRAM, "logs", "web"],
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=60,
            env={**os.environ, "PYTHONPATH": ":".join(PLACES), "ISULAD_HOST": daemon.host},
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_disk_that_is_full_is_said(listed: Served) -> None:
    done = run(listed, "ps", shell=">/dev/full")
    assert (done.returncode, done.stderr) == (1, b"isula: No space left on device\n")


MODULES = """
import sys
sys.path[:0] = sys.argv.pop().split(":")
from isula_cli.main import main
status = main(sys.argv[1:])
sys.stderr.write("\\n".join(sys.modules))
sys.exit(status)
"""
HEAVY = set(
    """
    argparse asyncio cbor2 click ctypes datetime email google grpc http importlib.metadata
    isula_cri json logging platform select selectors shutil socket ssl subprocess tempfile
    threading urllib urllib3
    """.split()
)


@pytest.mark.parametrize(
    "words", [["version"], ["ps"], ["start", "a"], ["pause", "a"]], ids=" ".join
)
def test_what_succeeds_imports_little(listed: Served, words: list[str]) -> None:
    assert HEAVY & imported(listed, words) == set()


def test_version_does_not_even_import_typing(listed: Served) -> None:
    assert {"re", "typing"} & imported(listed, ["version"]) == set()


def imported(listed: Served, words: list[str]) -> set[str]:
    """Modules that a command which succeeds has loaded."""
    listed.methods["version"] = answer({"version": "1", "commit": "x"})
    for name in ("start", "pause"):
        listed.methods[f"container.{name}"] = answer({})
    done = subprocess.run(
        [sys.executable, "-IS", "-c", MODULES, *words, "-H", listed.host, ":".join(PLACES)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def test_version_says_its_own_part_without_a_daemon(daemon: Served) -> None:
    daemon.close()
    os.unlink(daemon.path)
    done = run(daemon, "version")
    assert done.returncode == 1
    assert done.stdout.startswith(b"Client:\n  Version:\t")
    assert b"Server" not in done.stdout
    assert done.stderr.endswith(b"No such file or directory. Is the daemon running?\n")


# attached


async def cat(params: dict[str, Any], session: Session) -> dict[str, Any]:
    """Repeats its input, on both outputs, and ends with the number of bytes."""
    if params.get("detach") is False and "image" in params:
        await session.item({"id": "x", "warnings": []})
    size = 0
    if params["stdin"]:
        async for kind, value in session.input():
            if kind == "eof":
                break
            assert isinstance(value, bytes)
            size += len(value)
            await session.out(value)
    await session.err(b"end\n")
    return {"exit_code": size % 251}


COMMANDS = {"run": ["run", "-i", "image", "cat"], "exec": ["exec", "-i", "web", "cat"]}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("size", [0, 3, 1_000_000])
def test_input_output_and_code_of_a_process(daemon: Served, command: str, size: int) -> None:
    daemon.methods[f"container.{command}"] = cat
    data = os.urandom(size)
    done = run(daemon, *COMMANDS[command], data=data)
    assert (done.returncode, done.stdout, done.stderr) == (size % 251, data, b"end\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_input_is_left_alone_without_the_flag(daemon: Served, command: str) -> None:
    daemon.methods[f"container.{command}"] = cat
    words = [word for word in COMMANDS[command] if word != "-i"]
    done = run(daemon, *words, data=b"not for the container")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"end\n")
    assert daemon.answers(f"container.{command}")[0]["stdin"] is False


@pytest.mark.native  # as above
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("shell", [">&-", "<&-", "<&- >&- 2>&-"])
def test_a_process_runs_with_closed_descriptors(daemon: Served, command: str, shell: str) -> None:
    daemon.methods[f"container.{command}"] = cat
    done = run(daemon, *COMMANDS[command], data=b"abc", shell=shell)
    assert done.returncode == (0 if "<&-" in shell else 3)


def test_starting_attached_gives_the_code_of_the_container(daemon: Served) -> None:
    daemon.methods["inspect"] = answer(
        {"kind": "container", "object": {"Config": {"Tty": False, "OpenStdin": False}}}
    )
    daemon.methods["container.start"] = answer({"exit_code": 42}, ("o", b"out"), ("E", b"err"))
    done = run(daemon, "start", "-a", "web")
    assert (done.returncode, done.stdout, done.stderr) == (42, b"out", b"err")
    assert daemon.answers("container.start")[0]["attach"] is True


def test_only_one_container_can_be_attached_to(daemon: Served) -> None:
    done = run(daemon, "start", "-a", "one", "two")
    assert (done.returncode, daemon.seen) == (1, [])


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.CommandNotFound("no such program"), 127),
        (errors.CommandNotExecutable("not a program"), 126),
        (errors.FailedPrecondition("wrong state"), 125),
    ],
)
@pytest.mark.parametrize("words", [["run", "image"], ["exec", "web", "x"], ["start", "-a", "web"]])
def test_a_process_that_never_ran(
    daemon: Served, words: list[str], error: errors.EngineError, status: int
) -> None:
    daemon.methods["inspect"] = answer({"kind": "container", "object": {"Config": {}}})
    daemon.methods[f"container.{words[0]}"] = refusal(error)
    done = run(daemon, *words)
    assert done.returncode == status
    assert done.stderr == f"Error response from daemon: {error}\n".encode()


@pytest.mark.parametrize("words", [["-i", "-"], ["--input", "-"], []])
def test_loading_from_standard_input(daemon: Served, words: list[str]) -> None:
    async def load(params: dict[str, Any], session: Session) -> dict[str, Any]:
        size = 0
        async for kind, value in session.input():
            if kind == "eof":
                break
            size += len(value) if isinstance(value, bytes) else 0
        return {"images": [f"{params['path']} {size}"]}

    daemon.methods["image.load"] = load
    done = run(daemon, "load", *words, data=b"x" * 500_000)
    assert (done.returncode, done.stdout) == (0, b"Loaded image: - 500000\n")


@pytest.mark.parametrize(
    ("line", "word", "found"),
    [
        ("isula sys", 1, ["system"]),
        ("isula system ", 2, ["check", "df", "events", "info", "prune"]),
        ("isula system df --f", 3, ["--format"]),
    ],
)
def test_groups_are_completed(daemon: Served, line: str, word: int, found: list[str]) -> None:
    done = run(daemon, _ISULA_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(word))
    assert done.returncode == 0, done.stderr
    assert [text.partition(",")[2] for text in done.stdout.decode().split()] == found
