"""Runtimes that cannot be used, and those that go wrong in the middle of their work.

Each time: the error names the runtime, its program and what to do, the container's state and
exit code are right, nothing is left behind, and the next container runs.
"""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from tests.cri.leavings import cgroups, processes
from tests.fakes.bad_runtimes import FAULTS, bad_runtime, foreign_program, old_runtime
from tests.rig import Engine, loaded, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.rig import Result

pytestmark = [pytest.mark.root, pytest.mark.lxc]
_TIMEOUT_S = 3


@pytest.fixture(scope="module")
def bad_engine(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Engine]:
    """An engine whose runtime ``bad`` is the program that a test puts into ``bad/``."""
    folder = tmp_path_factory.mktemp("bad-engine")
    config = {"runtimes": {"bad": {"path": f"{folder}/bad/runtime", "timeout": _TIMEOUT_S}}}
    engine = Engine(folder, config=config)
    with loaded(engine, images):
        # threads, caches and sockets of a first time
        engine.ok("run", "--rm", "--runtime", "runc", "busybox", "true")
        yield engine


@pytest.fixture
def engine(bad_engine: Engine) -> Iterator[Engine]:
    """The same for each test, and without containers."""
    yield bad_engine
    shutil.rmtree(bad_engine.folder / "bad", ignore_errors=True)
    bad_engine.remove_containers()


@pytest.fixture
def folder(engine: Engine) -> Path:
    """Where the program ``runtime`` belongs."""
    return engine.folder / "bad"


def descriptors(engine: Engine) -> int:
    return len(os.listdir(f"/proc/{engine.pid}/fd"))


def leavings(engine: Engine, folder: Path, ids: list[str]) -> list[str]:
    """Processes, cgroups, mounts and run directories of containers that do not run."""
    words = {str(folder), *ids}
    found = [f"process {line}" for line in processes(words, engine.pid)]
    found += [f"cgroup {path}" for path in cgroups(set(ids))] if ids else []
    found += [f"mount {place}" for place in engine.mounts() if "/rw/" in place or "shm" in place]
    for name in ids:
        found += [f"file {path}" for path in engine.state.rglob(f"{name}*")]
    return found


def clean(engine: Engine, folder: Path, ids: list[str], before: int) -> None:
    def nothing() -> bool:
        return not leavings(engine, folder, ids) and descriptors(engine) <= before

    try:
        until(nothing, "nothing left", 10)
    except AssertionError:
        left = "\n".join(leavings(engine, folder, ids))
        count = descriptors(engine)
        raise AssertionError(f"left: {left}\n{before} -> {count} descriptors") from None


def run(engine: Engine, *words: str) -> Result:
    return engine.isula("run", "--name", "box", "--runtime", "bad", *words, "busybox", "echo", "it")


def refused(engine: Engine, result: Result, *words: str) -> str:
    """The id of the container of a ``run`` that failed with these words."""
    assert result.code == 125, result
    assert result.out == ""
    for word in words:
        assert word in result.err
    assert len(result.err) < 3000
    assert len(result.err.splitlines()) <= 2
    assert all(char.isprintable() for line in result.err.splitlines() for char in line)
    state = engine.state_of("box")
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("exited", 125, 0)
    assert state["Error"]
    return str(engine.inspect("box")["Id"])


# programs that cannot be used


def absent(_: Path) -> str:
    return "does not exist"


def not_executable(path: Path) -> str:
    path.write_text("#!/bin/sh\n")
    return "is not executable"


def directory(path: Path) -> str:
    path.mkdir()
    return "is no file"


def foreign(path: Path) -> str:
    foreign_program(path)
    return "is a program for mmix"


def no_program(path: Path) -> str:
    path.write_bytes(os.urandom(64))
    path.chmod(0o755)
    return "exec format error"


def no_interpreter(path: Path) -> str:
    path.write_text("#!/no/such/shell\n")
    path.chmod(0o755)
    return "needs /no/such/shell, which does not exist"


@pytest.mark.parametrize(
    "make", [absent, not_executable, directory, foreign, no_program, no_interpreter]
)
def test_a_program_that_cannot_be_used(
    engine: Engine, folder: Path, tmp_path: Path, make: Callable[[Path], str]
) -> None:
    folder.mkdir()
    words = make(folder / "runtime")
    before = descriptors(engine)
    found = refused(
        engine, run(engine), f"{folder}/runtime", "runtime bad cannot be used", words,
        "install bad for this machine or correct its path in daemon.json",
    )  # fmt: skip
    clean(engine, folder, [found], before)
    # once it is there it is used, without a new start of the engine
    bad_runtime(folder if make is not directory else tmp_path / "other", "create", "silent")
    if make is not directory:
        (folder / "wrong").unlink()
        assert engine.ok("start", "-a", "box") == "it"


def test_a_program_that_vanishes_while_its_container_runs(engine: Engine, folder: Path) -> None:
    path = bad_runtime(folder, "create", "silent")
    (folder / "wrong").unlink()
    before = descriptors(engine)
    name = ("--name", "box", "--runtime", "bad")
    found = engine.ok("run", "-d", *name, "busybox", "sleep", "1000")
    path.rename(folder / "away")
    result = engine.isula("exec", "box", "true")
    assert result.code == 125, result
    assert f"{path} does not exist" in result.err
    # stopping and removing it needs nobody's help
    engine.ok("stop", "-t", "1", "box")
    assert engine.state_of("box")["ExitCode"] == 137
    engine.ok("rm", "box")
    clean(engine, folder, [found], before)


def test_a_program_that_is_too_old(
    make_engine: Callable[..., Engine], tmp_path: Path
) -> None:
    path = old_runtime(tmp_path / "bad", "1.0.0-rc5")
    engine = make_engine(config={"runtimes": {"bad": {"path": str(path)}}})
    # nobody is asked before it is used
    asked = tmp_path / "bad" / "asked"
    assert not asked.exists()
    for _ in range(2):
        result = run(engine)
        refused(engine, result, f"{path} is too old", "runtime-spec 1.0.0-rc5, 1.0.0 is needed")
        engine.ok("rm", "box")
    # once for each file at that path
    assert asked.read_text() == "asked\n"
    old_runtime(tmp_path / "bad", "1.0.2-dev")
    assert run(engine, "--rm").out == "it\n"
    assert run(engine, "--rm").out == "it\n"
    assert asked.read_text() == "asked\n" * 2


@pytest.mark.parametrize(
    "answer", ["head -c 5000 /dev/urandom", "exit 3", "echo spec: new", "echo '{}'", ":"]
)
def test_a_program_that_does_not_tell_its_version_is_tried(
    engine: Engine, folder: Path, answer: str
) -> None:
    path = bad_runtime(folder, "create", "silent")
    (folder / "wrong").unlink()
    text = path.read_text()
    path.write_text(
        text.replace(
            "export", f"case $1 in --version|features) {answer}; exit ;; esac\nexport", 1
        )
    )
    assert run(engine, "--rm").out == "it\n"


# commands that go wrong


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("silent", ()),
        ("garbage", ()),
        # its supervisor reads that at its end only
        ("huge", ()),
        ("fifo", ()),
        ("link", ()),
        ("hangs", ("create did not end within 3 s and was killed", "timeout")),
        ("hangs-alone", ("create did not end within 3 s and was killed",)),
        ("dies", ()),
        ("dies-late", ()),
        ("leaves", ()),
        ("lies", ()),
        ("wrong-pid", ()),
        ("no-process", ()),
        ("garbage-pid", ()),
    ],
)
def test_create_goes_wrong(
    engine: Engine, folder: Path, fault: str, words: tuple[str, ...]
) -> None:
    path = bad_runtime(folder, "create", fault)
    before = descriptors(engine)
    found = refused(engine, run(engine), "runtime bad: ", str(path), *words)
    assert "root:" not in engine.state_of("box")["Error"]
    clean(engine, folder, [found], before)
    (folder / "wrong").unlink()
    assert engine.ok("start", "-a", "box") == "it"
    assert engine.state_of("box")["ExitCode"] == 0


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("silent", ("ended with status 7",)),
        ("garbage", ()),
        ("huge", ("xxx",)),
        ("hangs-alone", ("start did not end within 3 s and was killed", "timeout")),
        ("dies", ("was killed by signal 9",)),
        ("dies-late", ("was killed by signal 9",)),
        ("leaves", ()),
    ],
)
def test_start_goes_wrong(
    engine: Engine, folder: Path, fault: str, words: tuple[str, ...]
) -> None:
    path = bad_runtime(folder, "start", fault)
    before = descriptors(engine)
    # of one that was started all the same the output may come
    result = engine.isula("run", "--name", "box", "--runtime", "bad", "busybox", "sleep", "1000")
    found = refused(engine, result, "runtime bad: ", str(path), *words)
    clean(engine, folder, [found], before)
    (folder / "wrong").unlink()
    engine.ok("start", "box")
    engine.ok("rm", "-f", "box")
    clean(engine, folder, [found], before)


@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("silent", ("ended with status 7",)),
        ("garbage", ()),
        # nobody reads yet what it prints
        ("huge", ()),
        ("hangs-alone", ("exec did not end within 3 s and was killed", "timeout")),
        ("dies", ("was killed by signal 9",)),
        ("dies-late", ("was killed by signal 9",)),
        ("lies", ("exec reported no process",)),
        ("wrong-pid", ("exec reported process 1, which is none of its own",)),
        ("garbage-pid", ("exec reported no process",)),
    ],
)
def test_exec_goes_wrong(
    engine: Engine, folder: Path, fault: str, words: tuple[str, ...], tty: bool
) -> None:
    path = bad_runtime(folder, "exec", fault)
    found = engine.ok(
        "run", "-d", "--name", "box", "--runtime", "bad", "busybox", "sleep", "1000"
    )
    before, running = descriptors(engine), len([*processes({found}, engine.pid)])
    result = engine.isula("exec", *(["-t"] if tty else []), "box", "sleep", "2000")
    assert result.code == 125, result
    for word in ("runtime bad: ", str(path), *words):
        assert word in result.err
    assert len(result.err) < 3000
    until(lambda: descriptors(engine) <= before, "no descriptors left")
    if fault not in ("wrong-pid", "garbage-pid"):
        until(lambda: len([*processes({found}, engine.pid)]) == running, "no process left", 10)
    assert not list(engine.state.glob("bad/*/exec-*"))
    assert engine.state_of("box")["Status"] == "running"
    (folder / "wrong").unlink()
    assert engine.ok("exec", "box", "echo", "again") == "again"
    engine.ok("rm", "-f", "box")
    clean(engine, folder, [found], before)


@pytest.mark.parametrize(
    "fault", ["silent", "garbage", "hangs-alone", "dies", "dies-late", "lies"]
)
def test_delete_goes_wrong(engine: Engine, folder: Path, fault: str) -> None:
    bad_runtime(folder, "delete", fault)
    before = descriptors(engine)
    result = engine.isula(
        "run", "--name", "box", "--runtime", "bad", "busybox", "sh", "-c", "exit 4"
    )
    assert result.code == 4, result
    found = engine.inspect("box")["Id"]
    clean(engine, folder, [found], before)
    # the same container again: nothing of the first time is in its way
    assert engine.isula("start", "-a", "box").code == 4
    engine.ok("rm", "-f", "box")
    clean(engine, folder, [found], before)


def test_delete_fails_for_a_container_that_is_frozen(engine: Engine, folder: Path) -> None:
    bad_runtime(folder, "delete", "dies")
    before = descriptors(engine)
    found = engine.ok("run", "-d", "--name", "box", "--runtime", "bad", "busybox", "sleep", "1000")
    engine.ok("pause", "box")
    engine.ok("rm", "-f", "box")
    clean(engine, folder, [found], before)


@pytest.mark.parametrize("verb", ["create", "start"])
def test_a_start_that_hangs_is_ended_by_ctrl_c(
    make_engine: Callable[..., Engine], tmp_path: Path, verb: str
) -> None:
    folder = tmp_path / "bad"
    path = bad_runtime(folder, verb, "hangs-alone")
    engine = make_engine(config={"runtimes": {"bad": {"path": str(path), "timeout": 3600}}})
    engine.ok("run", "--rm", "--runtime", "runc", "busybox", "true")
    before = descriptors(engine)
    client = engine.popen("run", "--name", "box", "--runtime", "bad", "busybox", "true")
    until(lambda: _state(engine) == "starting", "the start")
    client.send_signal(signal.SIGINT)
    assert client.wait(60) == 125
    assert engine.state_of("box")["Status"] == "exited"
    clean(engine, folder, [engine.inspect("box")["Id"]], before)


@pytest.mark.parametrize("words", [("kill",), ("stop", "-t", "1"), ("rm", "-f")])
def test_a_start_that_hangs_is_ended_by_others(
    make_engine: Callable[..., Engine], tmp_path: Path, words: tuple[str, ...]
) -> None:
    folder = tmp_path / "bad"
    path = bad_runtime(folder, "create", "hangs")
    engine = make_engine(config={"runtimes": {"bad": {"path": str(path), "timeout": 3600}}})
    engine.ok("run", "--rm", "--runtime", "runc", "busybox", "true")
    before = descriptors(engine)
    found = engine.ok("create", "--name", "box", "--runtime", "bad", "busybox", "true")
    client = engine.popen("start", "box")
    until(lambda: _state(engine) == "starting", "the start")
    engine.ok(*words, "box")
    assert client.wait(60) == 1
    if words[0] != "rm":
        state = engine.state_of("box")
        assert (state["Status"], state["ExitCode"]) == ("exited", 137)
    clean(engine, folder, [found], before)


def _state(engine: Engine) -> str:
    result = engine.isula("inspect", "-f", "{{.State.Status}}", "box")
    return result.out.strip()


# the same of lxc, whose program is one of the distribution

SILENT_LXC = '"$real" -F -n "$3" -P "$5" -f "$7" -o /dev/null -q -- sleep 3000'


@pytest.fixture
def lxc_start(tmp_path: Path) -> Path:
    """Where a program goes that is found before the real lxc-start."""
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder / "lxc-start"


def lxc_engine(make_engine: Callable[..., Engine], program: Path, text: str) -> Engine:
    real = shutil.which("lxc-start")
    program.write_text(
        f"#!/bin/sh\nexport BAD_RUNTIME={program}\nreal={real}\n"
        f'[ "$1" = --version ] && exec "$real" --version\n{text}\n'
    )
    program.chmod(0o755)
    engine = make_engine(
        config={"start-timeout": "3s"},
        env={"PATH": f"{program.parent}:{os.environ['PATH']}"},
    )
    engine.ok("run", "--rm", "--runtime", "runc", "busybox", "true")
    return engine


@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("exit 1", ("ended without giving a reason",)),
        ("head -c 3000 /dev/urandom | tee /dev/stderr; exit 1", ()),
        ('head -c 3000000 /dev/urandom >"$9"; exit 1', ()),
        ("kill -KILL $$", ()),
        ("sleep 1000 & setsid sleep 1000 & sleep 1000", ("within 3 s and was killed",)),
        # starts the container, and says nothing: or is killed then
        (f"exec {SILENT_LXC}", ("within 3 s and was killed",)),
        (f"{SILENT_LXC} & sleep 1; kill -KILL $$", ("ended without giving a reason",)),
    ],
)
def test_lxc_start_goes_wrong(
    make_engine: Callable[..., Engine],
    lxc_start: Path,
    text: str,
    words: tuple[str, ...],
    tty: bool,
) -> None:
    engine = lxc_engine(make_engine, lxc_start, text)
    before = descriptors(engine)
    flags = ["-t"] if tty else []
    result = engine.isula("run", *flags, "--name", "box", "busybox", "sleep", "1000")
    found = refused(engine, result, "runtime lxc", *words)
    clean(engine, lxc_start, [found], before)
    lxc_start.write_text('#!/bin/sh\nexec /usr/bin/lxc-start "$@"\n')
    engine.ok("start", "box")
    engine.ok("rm", "-f", "box")
    clean(engine, lxc_start, [found], before)


def test_lxc_start_is_not_there_any_more(
    make_engine: Callable[..., Engine], lxc_start: Path
) -> None:
    engine = lxc_engine(make_engine, lxc_start, 'exec "$real" "$@"')
    before = descriptors(engine)
    engine.ok("run", "--rm", "busybox", "true")
    lxc_start.unlink()
    result = engine.isula("run", "--name", "box", "busybox", "true")
    words = f"runtime lxc cannot be used: {lxc_start} does not exist"
    clean(engine, lxc_start, [refused(engine, result, words, "install lxc")], before)


def test_every_fault_is_used() -> None:
    used = {"silent", "garbage", "huge", "fifo", "link", "hangs", "hangs-alone", "dies"}
    used |= {"dies-late", "leaves", "lies", "wrong-pid", "no-process", "garbage-pid"}
    assert set(FAULTS) == used
