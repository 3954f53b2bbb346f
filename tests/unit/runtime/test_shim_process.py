"""The shim's program: how it is found, what it prints, and how it fails."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isula_edge import errors
from isula_edge.runtime import program, shim_process
from isula_edge.runtime import shim_messages as messages
from isula_edge.runtime.shim_messages import Address
from isula_edge.runtime.shim_process import Shim, find_shim, parse_answer
from isula_edge.runtime.shim_task import Gone
from tests.fakes.shim import NAME, Quirks, install
from tests.fakes.shim_rig import Rig, make_bundle, run, until_dead, until_exists, until_gone

if TYPE_CHECKING:
    from pathlib import Path

SLEEP = ["sleep", "1000"]


def shim(folder: Path, **quirks: str) -> Shim:
    path = install(folder, Quirks(**quirks))  # type: ignore[arg-type]  # only texts are given
    return Shim(str(path), namespace=f"test-{os.getpid()}", address=str(folder))


def script(folder: Path, text: str) -> Shim:
    """A shim of a few lines of shell."""
    path = folder / "containerd-shim-odd-v2"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return Shim(str(path))


# --- names


@pytest.mark.parametrize("name", ["io.containerd.odd.v2", "odd.v2", "containerd-shim-odd-v2"])
def test_a_shim_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = script(tmp_path, "").program
    monkeypatch.setattr(program, "PATH", f"/nowhere:{tmp_path}")
    assert find_shim(name) == path


def test_a_shim_by_its_path(tmp_path: Path) -> None:
    path = script(tmp_path, "").program
    assert find_shim(path) == path


@pytest.mark.parametrize("name", ["", "kata", "a/b.v2", "io.containerd..v2", "./kata.v2", "kata."])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="names no shim") as caught:
        find_shim(name)
    assert "io.containerd.kata.v2" in caught.value.hint


def test_a_shim_that_is_not_installed() -> None:
    words = "io.containerd.absent.v2 cannot be used: containerd-shim-absent-v2 is not in"
    with pytest.raises(errors.Unavailable, match=words) as caught:
        find_shim("io.containerd.absent.v2")
    assert "install" in caught.value.hint


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("absent", "does not exist"),
        ("folder", "is no file"),
        ("not executable", "is not executable"),
        ("other machine", "exec format error"),
        ("no interpreter", "/no/such/interpreter, which does not exist"),
    ],
)
def test_a_path_that_cannot_be_run(tmp_path: Path, kind: str, words: str) -> None:
    path = tmp_path / "shim"
    if kind == "folder":
        path.mkdir()
    elif kind == "no interpreter":
        path.write_text("#!/no/such/interpreter\n")
    elif kind != "absent":
        # EM_S390, big endian: no machine that runs these tests
        path.write_bytes(b"\x7fELF\x02\x02\x01" + bytes(9) + b"\0\x02\0\x16" + bytes(44))
    if kind not in ("absent", "not executable"):
        path.chmod(0o755)
    with pytest.raises(errors.Unavailable, match=words) as caught:
        find_shim(str(path))
    assert caught.value.hint
    bundle = make_bundle(tmp_path, "c1", SLEEP)

    async def work(rig: Rig) -> None:
        with pytest.raises(errors.Unavailable, match=words):
            await rig.start(bundle)

    run(Shim(str(path)), work)


# --- answers


@pytest.mark.parametrize(
    ("data", "address"),
    [
        (b"unix:///run/s/1", Address(2, "unix:///run/s/1")),
        (b" unix:///run/s/1\n", Address(2, "unix:///run/s/1")),
        (b"/containerd-shim/n/i/shim.sock", Address(2, "/containerd-shim/n/i/shim.sock")),
        (b"name", Address(2, "name")),
        (
            b' {"version":3,"address":"unix:///a","protocol":"ttrpc","more":[1]}\n',
            Address(3, "unix:///a"),
        ),
        (messages.BootstrapResult(2, "unix:///a", "ttrpc").encode(), Address(2, "unix:///a")),
        (messages.BootstrapResult(3, "name", "ttrpc").encode(), Address(3, "name")),
    ],
)
def test_answers_of_each_form(data: bytes, address: Address) -> None:
    assert parse_answer(data) == address


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "printed nothing"),
        (b" \n\t", "printed nothing"),
        (b"time=1 level=info\nunix:///a", "is no address"),
        (b"unix:///a b", "is no address"),
        (b"unix://", "is no address"),
        (b"unix://relative", "is no unix socket"),
        (b"tcp://127.0.0.1:1", "is no unix socket"),
        (b"vsock://3:1024", "is no unix socket"),
        (b"\xff\xfe", "utf-8"),
        (b"a" * 5000, "is no address"),
        (b"{", "Expecting"),
        (b"{}", "no version and address"),
        (b'{"version":true,"address":"unix:///a","protocol":"ttrpc"}', "no version"),
        (b'{"version":4,"address":"unix:///a","protocol":"ttrpc"}', "version 4"),
        (b'{"version":1,"address":"unix:///a","protocol":"ttrpc"}', "version 1"),
        (b'{"version":2,"address":"unix:///a","protocol":"grpc"}', "'grpc', not ttrpc"),
        (b'{"version":2,"address":"unix:///a"}', "not ttrpc"),
        (b'{"version":2,"address":7,"protocol":"ttrpc"}', "no version and address"),
        (b'{"version":2,"address":"","protocol":"ttrpc"}', "is no address"),
        (b'{"a":' * 5000, "nested|Expecting"),
        (messages.BootstrapResult(4, "unix:///a", "ttrpc").encode(), "version 4"),
        (messages.BootstrapResult(3, "unix:///a", "grpc").encode(), "'grpc'"),
        (b"\x08\x02\x12\x40short", "ends behind"),
        (b"\x08", "does not end"),
    ],
)
def test_answers_that_make_no_sense(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_answer(data)


@given(st.binary(max_size=60) | st.binary(max_size=40).map(lambda data: b"\x08\x02" + data))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_an_address_or_a_value_error(data: bytes) -> None:
    try:
        address = parse_answer(data)
    except ValueError:
        return
    assert address.version in (2, 3)
    assert address.address


# --- start


@pytest.mark.parametrize("kind", ["path", "abstract", "abstract-nul"])
@pytest.mark.parametrize("answer", ["plain", "json", "json3", "protobuf", "protobuf3"])
def test_servers_of_each_kind(tmp_path: Path, kind: str, answer: str) -> None:
    async def work(rig: Rig) -> None:
        bundle = make_bundle(tmp_path, "c1", SLEEP)
        address = await rig.start(bundle)
        assert address.version == (3 if "3" in answer else 2)
        assert address.address.startswith("unix://") == (kind == "path")
        assert (bundle / "address").read_text() == address.address
        task = await rig.connect(address)
        info = await task.connect_info("c1")
        await task.shutdown("c1")
        await until_gone(address)
        await until_dead(info.shim_pid)

    run(shim(tmp_path, socket=kind, answer=answer), work)


@pytest.mark.parametrize("left", ["nothing", "a file", "a FIFO", "a link"])
def test_the_log_is_a_regular_file_whatever_was_there(tmp_path: Path, left: str) -> None:
    async def work(rig: Rig) -> None:
        bundle = make_bundle(tmp_path, "c1", SLEEP)
        log, other = bundle / "log", tmp_path / "other"
        other.write_text("precious")
        if left == "a file":
            log.write_text("old")
        elif left == "a FIFO":
            os.mkfifo(log)
        elif left == "a link":
            log.symlink_to(other)
        task = await rig.serve(bundle)
        assert (await task.connect_info("c1")).shim_pid
        found = log.lstat()
        assert stat.S_ISREG(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o600
        assert log.read_text() == ""
        assert other.read_text() == "precious"

    run(shim(tmp_path), work)


def test_flags_environment_and_place(tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        bundle = make_bundle(tmp_path, "c 1", SLEEP)
        assert await rig.start(bundle, options=messages.KataOptions("t", "/k").pack()) == (2, "ok")
        argv = (bundle / "argv").read_text().splitlines()
        assert argv == [
            "-namespace", "ns", "-address", "", "-publish-binary", "/bin/true", "-id", "c 1",
            "-debug", "start",
        ]  # fmt: skip
        env = dict(line.partition("=")[::2] for line in (bundle / "env").read_text().splitlines())
        assert env["TTRPC_ADDRESS"] == "/run/events"
        assert env["KATA_CONF_FILE"] == "/etc/kata/c.toml"
        assert (env["MORE"], env["GOMAXPROCS"], env["PATH"]) == ("1", "2", program.PATH)
        assert "HOME" not in env
        options = messages.AnyValue.decode((bundle / "stdin").read_bytes())
        assert options.type_url == "runtimeoptions.v1.Options"

    odd = script(tmp_path, 'cat >stdin; env >env; printf "%s\\n" "$@" >argv; printf ok')
    made = Shim(
        odd.program, namespace="ns", events="/run/events", config="/etc/kata/c.toml", debug=True,
        env={"MORE": "1"},
    )  # fmt: skip
    run(made, work)


@pytest.mark.parametrize("answer", ["garbage", "empty", "version9", "grpc"])
def test_a_start_that_answers_wrongly_leaves_no_server(tmp_path: Path, answer: str) -> None:
    made = shim(tmp_path, answer=answer)

    async def work(rig: Rig) -> None:
        bundle = make_bundle(tmp_path, "c1", SLEEP)
        words = f"{made.program} start answered with what makes no sense"
        with pytest.raises(errors.Internal, match=words) as caught:
            await rig.start(bundle)
        assert caught.value.hint
        await until_gone(Address(2, (bundle / "address").read_text()))

    run(made, work)


def test_a_start_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    made = script(tmp_path, "sleep 1000 & echo $! >child; echo $$ >pid; wait")

    async def work(rig: Rig) -> None:
        bundle = make_bundle(tmp_path, "c1", SLEEP)
        with pytest.raises(errors.DeadlineExceeded, match=f"{made.program} start did not end"):
            await rig.start(bundle, timeout_s=2)
        for name in ("pid", "child"):
            await until_dead(int((bundle / name).read_text()))

    run(made, work)


def test_a_start_that_is_cancelled_leaves_no_server(tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        bundle = make_bundle(tmp_path, "c1", SLEEP)
        starting = asyncio.create_task(rig.start(bundle))
        await until_exists(bundle / "address")
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await until_gone(Address(2, (bundle / "address").read_text()))

    run(shim(tmp_path, answer="hang"), work)


def test_a_start_that_fails_has_its_words_kept(tmp_path: Path) -> None:
    made = shim(tmp_path, answer="fail")

    async def work(rig: Rig) -> None:
        bundle = make_bundle(tmp_path, "c1", SLEEP)
        words = f"{made.program} start failed: io.containerd.fake.v2: the hypervisor is not there"
        with pytest.raises(errors.Internal, match=words):
            await rig.start(bundle)

    run(made, work)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("exit 3", "exit status 3$"),
        ("echo first >&2; echo 'la\tst' >&2; exit 1", "failed: la st$"),
        ("echo out; exit 1", "failed: out$"),
        ("kill -9 $$", "exit status 137$"),
        ("head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1", "x…$"),
    ],
)
def test_other_ways_to_fail(tmp_path: Path, text: str, words: str) -> None:
    async def work(rig: Rig) -> None:
        with pytest.raises(errors.Internal, match=words) as caught:
            await rig.start(make_bundle(tmp_path, "c1", SLEEP))
        assert len(caught.value.message) < 1500

    run(script(tmp_path, text), work)


def test_a_running_server_is_not_hurt_by_a_second_start(tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        bundle = make_bundle(tmp_path, "c1", SLEEP)
        task = await rig.serve(bundle)
        with pytest.raises(errors.Internal, match="address already in use"):
            await rig.start(bundle)
        assert (await task.connect_info("c1")).shim_pid

    run(shim(tmp_path), work)


def test_a_bundle_with_another_name(tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        with pytest.raises(errors.InvalidArgument, match="has its name"):
            await shim_process.start(rig.reaper, rig.shim, "c1", str(tmp_path))
        with pytest.raises(errors.Unavailable, match="cannot make"):
            await shim_process.start(rig.reaper, rig.shim, "c1", str(tmp_path / "absent" / "c1"))

    run(shim(tmp_path), work)


def test_an_address_where_nobody_listens(tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        address = await rig.start(make_bundle(tmp_path, "c1", SLEEP))
        with pytest.raises(Gone, match=f"{NAME} cannot be reached"):
            await rig.connect(address)

    run(shim(tmp_path, answer="nobody"), work)


# --- delete


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_what_a_dead_server_left_is_removed(tmp_path: Path, kind: str) -> None:
    async def work(rig: Rig) -> None:
        bundle = make_bundle(tmp_path, "c1", SLEEP)
        address = await rig.start(bundle)
        task = await rig.connect(address)
        pid = await task.create("c1", str(bundle))
        await task.start("c1")
        server = (await task.connect_info("c1")).shim_pid
        os.kill(server, signal.SIGKILL)
        await asyncio.wait_for(task.closed, 30)
        found = await shim_process.delete(
            rig.reaper, rig.shim, "c1", str(bundle), address=address
        )
        assert (found.pid, found.exit_status) == (pid, 137)
        await until_dead(pid)
        assert not os.path.lexists(address.address.removeprefix("unix://"))
        with pytest.raises(errors.Internal, match=r"delete failed: .*nothing to delete"):
            await shim_process.delete(rig.reaper, rig.shim, "c1", str(bundle))

    run(shim(tmp_path, socket=kind), work)


def test_a_server_that_hangs_is_killed_and_no_other(tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        tasks = [
            await rig.serve(make_bundle(tmp_path, name, SLEEP, hangs_at="State"))
            for name in ("c1", "c10")
        ]
        for task, name in zip(tasks, ("c1", "c10"), strict=True):
            await task.create(name, str(tmp_path / name))
        shim_process.end_server(rig.shim, "c1")
        await asyncio.wait_for(tasks[0].closed, 30)
        assert (await tasks[1].connect_info("c10")).shim_pid
        await shim_process.delete(rig.reaper, rig.shim, "c1", str(tmp_path / "c1"))

    run(shim(tmp_path), work)


@pytest.mark.parametrize(
    ("cleanup", "kind", "words"),
    [
        ("fail", errors.Internal, "delete failed: .*does not answer"),
        ("hang", errors.DeadlineExceeded, "delete did not end within 2 s"),
        ("garbage", errors.Internal, "delete answered with what makes no sense"),
    ],
)
def test_a_delete_that_fails(
    tmp_path: Path, cleanup: str, kind: type[errors.EngineError], words: str
) -> None:
    made = shim(tmp_path, cleanup=cleanup)

    async def work(rig: Rig) -> None:
        bundle = make_bundle(tmp_path, "c1", SLEEP)
        with pytest.raises(kind, match=words) as caught:
            await shim_process.delete(rig.reaper, rig.shim, "c1", str(bundle), timeout_s=2)
        assert made.program in caught.value.message

    run(made, work)


def test_the_quirks_of_the_fake_are_spelled_right(tmp_path: Path) -> None:
    """A name that the fake shim does not know would make a test that tests nothing."""

    async def work(rig: Rig) -> None:
        bundle = make_bundle(tmp_path, "c1", SLEEP, dies_on="Create")
        with pytest.raises(errors.Internal, match="dies_on"):
            await rig.start(bundle)

    run(shim(tmp_path), work)
    assert json.loads((tmp_path / "c1" / "quirks").read_text()) == {"dies_on": "Create"}
