"""The protocol of shims with one that is not ours: containerd's for runc, without containerd."""

from __future__ import annotations

import asyncio
import glob
import json
import os
import shutil
import signal
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.runtime import shim_messages as messages
from isula_edge.runtime import shim_process
from isula_edge.runtime.shim_events import Event, Events
from isula_edge.runtime.shim_process import Shim, find_shim
from isula_edge.runtime.shim_task import Gone, Task
from tests.fakes.shim_rig import PATH, Rig, run, until_dead, until_gone

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

pytestmark = pytest.mark.root
NAMESPACE = f"isula-test-{os.getpid()}"
STATE = f"/run/containerd/runc/{NAMESPACE}"
SLEEP = ["sleep", "1000"]
SH = ["sh", "-c"]


@pytest.fixture
def shim(tmp_path: Path) -> Shim:
    return Shim(find_shim("io.containerd.runc.v2"), namespace=NAMESPACE, address=str(tmp_path))


def drive(shim: Shim, work: Callable[[Rig], Awaitable[None]]) -> None:
    """Runs ``work``; nothing of it is left even where it fails."""
    try:
        run(shim, work)
    finally:
        for folder in glob.glob(f"{STATE}/*"):
            name = os.path.basename(folder)
            subprocess.run(["runc", "--root", STATE, "delete", "-f", name], check=False)
        shutil.rmtree(STATE, ignore_errors=True)


def bundle_of(
    folder: Path,
    id: str,
    args: list[str],
    *,
    terminal: bool = False,
    memory: int = 0,
    annotations: dict[str, str] | None = None,
) -> Path:
    """A bundle with busybox."""
    bundle = folder / id
    bin_dir = bundle / "rootfs" / "bin"
    bin_dir.mkdir(parents=True)
    for name in ("proc", "dev", "sys", "tmp"):
        (bundle / "rootfs" / name).mkdir()
    shutil.copy(shutil.which("busybox") or "", bin_dir / "busybox")
    for name in ("sh", "sleep", "cat", "stty", "tail", "true", "hostname"):
        (bin_dir / name).symlink_to("busybox")
    subprocess.run(["runc", "spec"], cwd=bundle, check=True)
    spec: dict[str, Any] = json.loads((bundle / "config.json").read_text())
    spec["process"].update(args=args, terminal=terminal)
    spec["linux"]["cgroupsPath"] = f"/{NAMESPACE}-{id}"
    spec["root"]["readonly"] = False
    spec["annotations"] = annotations or {}
    if memory:
        spec["linux"]["resources"]["memory"] = {"limit": memory, "swap": memory}
    (bundle / "config.json").write_text(json.dumps(spec))
    return bundle


def process_of(bundle: Path, args: list[str], **changes: Any) -> dict[str, Any]:
    """The process of an exec."""
    spec = json.loads((bundle / "config.json").read_text())
    return {**spec["process"], "args": args, "env": [PATH], "terminal": False, **changes}


async def end(task: Task, id: str) -> int:
    """Kills, waits, deletes and shuts down: the exit status."""
    await task.kill(id, signal.SIGKILL, all=True)
    await task.wait(id, timeout_s=30)
    status = (await task.delete(id)).exit_status
    await task.shutdown(id)
    return status


def test_a_whole_life(shim: Shim, tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        bundle = bundle_of(tmp_path, "c1", [*SH, "echo out; echo err >&2; exec sleep 1000"])
        address = await rig.start(bundle)
        assert address.version == 2
        task = await rig.connect(address)
        out, err = rig.stream(tmp_path / "out"), rig.stream(tmp_path / "err")
        pid = await task.create("c1", str(bundle), stdout=out.path, stderr=err.path)
        assert (await task.state("c1")).status == messages.CREATED
        waiting = asyncio.create_task(task.wait("c1"))
        assert await task.start("c1") == pid
        assert await out.read(b"out\n") == b"out\n"
        assert await err.read(b"err\n") == b"err\n"
        state = await task.state("c1")
        assert (state.status, state.pid, state.stdout) == (messages.RUNNING, pid, out.path)
        info = await task.connect_info("c1")
        assert info.task_pid == pid
        assert await task.pids("c1") == (pid,)
        with pytest.raises(errors.Internal, match="running"):
            await task.delete("c1")
        await task.kill("c1", signal.SIGKILL)
        ended = await waiting
        assert ended.exit_status == 137
        assert await out.read() == b""
        assert (await task.state("c1")).status == messages.STOPPED
        with pytest.raises(errors.NotFound):
            await task.kill("c1", signal.SIGTERM)
        assert await task.delete("c1") == messages.DeleteResponse(pid, 137, ended.exited_ns)
        with pytest.raises(errors.NotFound):
            await task.state("c1")
        await task.shutdown("c1")
        await asyncio.wait_for(task.closed, 30)
        await until_dead(info.shim_pid)
        assert not os.path.exists(address.address.removeprefix("unix://"))

    drive(shim, work)


def test_exit_code_and_input(shim: Shim, tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        bundle = bundle_of(tmp_path, "c1", [*SH, "cat; exit 42"])
        task = await rig.serve(bundle)
        out, err, stdin = rig.stream(tmp_path / "out"), rig.stream(tmp_path / "err"), "in"
        os.mkfifo(tmp_path / stdin)
        await task.create(
            "c1", str(bundle), stdin=str(tmp_path / stdin), stdout=out.path, stderr=err.path
        )
        await task.start("c1")
        with open(tmp_path / stdin, "wb") as writer:
            writer.write(b"words\n")
            writer.flush()
            assert await out.read(b"words\n") == b"words\n"
        await task.close_io("c1")
        assert (await task.wait("c1", timeout_s=30)).exit_status == 42
        assert (await task.delete("c1")).exit_status == 42
        await task.shutdown("c1")

    drive(shim, work)


def test_a_terminal(shim: Shim, tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        bundle = bundle_of(tmp_path, "c1", [*SH, "read x; stty size; exit 5"], terminal=True)
        task = await rig.serve(bundle)
        out, stdin = rig.stream(tmp_path / "out"), tmp_path / "in"
        os.mkfifo(stdin)
        await task.create("c1", str(bundle), terminal=True, stdin=str(stdin), stdout=out.path)
        await task.start("c1")
        await task.resize("c1", width=91, height=33)
        with open(stdin, "wb") as writer:
            writer.write(b"go\n")
            writer.flush()
            assert b"33 91" in await out.read(b"33 91")
            assert (await task.wait("c1", timeout_s=30)).exit_status == 5
        await task.delete("c1")
        await task.shutdown("c1")

    drive(shim, work)


def test_execs(shim: Shim, tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        bundle = bundle_of(tmp_path, "c1", SLEEP)
        task = await rig.serve(bundle)
        first = await task.create("c1", str(bundle))
        await task.start("c1")
        out, err = rig.stream(tmp_path / "out"), rig.stream(tmp_path / "err")
        process = process_of(bundle, [*SH, "hostname; exit 6"])
        await task.exec("c1", "e1", process, stdout=out.path, stderr=err.path)
        waiting = asyncio.create_task(task.wait("c1", "e1"))
        assert await task.start("c1", "e1") not in (0, first)
        assert (await waiting).exit_status == 6
        assert await out.read() == b"runc\n"
        assert (await task.delete("c1", "e1")).exit_status == 6

        await task.exec("c1", "e2", process_of(bundle, SLEEP))
        await task.start("c1", "e2")
        assert len(await task.pids("c1")) == 2
        await task.kill("c1", signal.SIGTERM, "e2")
        assert (await task.wait("c1", "e2", timeout_s=30)).exit_status == 143
        await task.delete("c1", "e2")

        await task.exec("c1", "e3", process_of(bundle, ["no-such-program"]))
        with pytest.raises(errors.Internal, match="executable file not found"):
            await task.start("c1", "e3")
        await task.delete("c1", "e3")
        with pytest.raises(errors.NotFound):
            await task.state("c1", "e3")
        assert await end(task, "c1") == 137

    drive(shim, work)


def test_pause_statistics_and_update(shim: Shim, tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        bundle = bundle_of(tmp_path, "c1", SLEEP)
        task = await rig.serve(bundle)
        await task.create("c1", str(bundle))
        await task.start("c1")
        await task.pause("c1")
        assert (await task.state("c1")).status == messages.PAUSED
        await task.resume("c1")
        assert (await task.state("c1")).status == messages.RUNNING
        before = await task.stats("c1")
        assert before.pids == 1
        assert before.cpu_ns > 0
        assert before.memory_usage > 0
        assert before.memory_limit is None
        await task.update("c1", {"memory": {"limit": 48 << 20}, "pids": {"limit": 77}})
        after = await task.stats("c1")
        assert (after.memory_limit, after.pids_limit) == (48 << 20, 77)
        await end(task, "c1")

    drive(shim, work)


def test_a_container_that_cannot_be_created(shim: Shim, tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        bundle = bundle_of(tmp_path, "c1", ["no-such-program"])
        task = await rig.serve(bundle)
        with pytest.raises(errors.Internal, match="executable file not found"):
            await task.create("c1", str(bundle))
        with pytest.raises(errors.NotFound):
            await task.state("c1")
        out = rig.stream(tmp_path / "out")
        (bundle / "config.json").write_text("{")
        with pytest.raises(errors.Internal, match="OCI runtime create failed"):
            await task.create("c1", str(bundle), stdout=out.path, stderr=out.path)
        await task.shutdown("c1")
        await asyncio.wait_for(task.closed, 30)

    drive(shim, work)


def test_options_name_another_runtime_and_its_state(shim: Shim, tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        bundle = bundle_of(tmp_path, "c1", SLEEP)
        task = await rig.serve(bundle)
        other = tmp_path / "other"
        other.write_text(f'#!/bin/sh\necho ran >>{tmp_path}/ran\nexec runc "$@"\n')
        other.chmod(0o755)
        options = messages.RuncOptions(binary_name=str(other), root=str(tmp_path / "state"))
        await task.create("c1", str(bundle), options=options.pack())
        await task.start("c1")
        assert "ran" in (tmp_path / "ran").read_text()
        assert (tmp_path / "state" / NAMESPACE / "c1" / "state.json").exists()
        assert await end(task, "c1") == 137

    drive(shim, work)


def test_members_of_a_pod(shim: Shim, tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        made = []
        for name, kind in (("pod", "sandbox"), ("member", "container")):
            notes = {
                "io.kubernetes.cri.container-type": kind,
                "io.kubernetes.cri.sandbox-id": "pod",
            }
            made.append(bundle_of(tmp_path, name, SLEEP, annotations=notes))
        address = await rig.start(made[0])
        assert await rig.start(made[1]) == address
        task = await rig.connect(address)
        for bundle in made:
            await task.create(bundle.name, str(bundle))
            await task.start(bundle.name)
        # nothing happens: the pod is served
        assert await end(task, "member") == 137
        assert (await task.state("pod")).status == messages.RUNNING
        assert await end(task, "pod") == 137
        await until_gone(address)

    drive(shim, work)


def test_a_connection_that_is_made_again(shim: Shim, tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        bundle = bundle_of(tmp_path, "c1", [*SH, "trap 'exit 3' TERM; sleep 1000 & wait"])
        address = await rig.start(bundle)
        task = await rig.connect(address)
        await task.create("c1", str(bundle))
        await task.start("c1")
        waiting = asyncio.create_task(task.wait("c1"))
        await asyncio.sleep(0)
        await task.close()
        with pytest.raises(Gone):
            await waiting
        first, second = await rig.connect(address), await rig.connect(address)
        assert (await first.state("c1")).status == messages.RUNNING
        waits = asyncio.gather(first.wait("c1"), second.wait("c1"))
        await second.kill("c1", signal.SIGKILL)
        assert [answer.exit_status for answer in await waits] == [137, 137]
        # and once more after the end
        assert (await first.wait("c1")).exit_status == 137
        await first.delete("c1")
        await first.shutdown("c1")

    drive(shim, work)


def test_what_a_dead_server_leaves(shim: Shim, tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        bundle = bundle_of(tmp_path, "c1", SLEEP)
        address = await rig.start(bundle)
        task = await rig.connect(address)
        pid = await task.create("c1", str(bundle))
        await task.start("c1")
        waiting = asyncio.create_task(task.wait("c1"))
        shim_process.end_server(shim, "c1")
        with pytest.raises(Gone, match="has ended before it answered Wait"):
            await waiting
        await asyncio.wait_for(task.closed, 30)
        with pytest.raises(Gone):
            await rig.connect(address)
        found = await shim_process.delete(rig.reaper, shim, "c1", str(bundle), address=address)
        assert found.exit_status == 137
        await until_dead(pid)
        assert not os.path.exists(f"{STATE}/c1")
        assert not os.path.exists(address.address.removeprefix("unix://"))

    drive(shim, work)


def test_the_end_of_memory_is_told(shim: Shim, tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        heard: list[Event] = []
        oom = asyncio.Event()

        def take(event: Event) -> None:
            heard.append(event)
            if isinstance(event.body, messages.TaskOOM):
                oom.set()

        events = Events(str(tmp_path / "events"), take)
        await events.start()
        bundle = bundle_of(tmp_path, "c1", ["tail", "/dev/zero"], memory=16 << 20)
        task = await rig.serve(bundle)
        await task.create("c1", str(bundle))
        await task.start("c1")
        assert (await task.wait("c1", timeout_s=30)).exit_status == 137
        await asyncio.wait_for(oom.wait(), 30)
        assert {event.container_id for event in heard} == {"c1"}
        assert {event.namespace for event in heard} == {NAMESPACE}
        await task.delete("c1")
        await task.shutdown("c1")
        await events.close()

    told = replace(shim, events=str(tmp_path / "events"))
    drive(told, work)
