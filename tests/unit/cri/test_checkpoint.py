"""CheckpointContainer with programs that stand in for runc and criu."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import tarfile
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from isula_cri.checkpoint import checkpoint
from isula_edge import errors
from isula_edge.container.record import Status
from isula_edge.runtime.oci_cli import OciCli
from isula_edge.service.events import Events
from isula_edge.sys.process import Reaper

if TYPE_CHECKING:
    from pathlib import Path

    from isula_edge.container.record import Container
    from isula_edge.service.engine import Engine

ID = "c0" * 32
DUMP = """\
while [ $# -gt 1 ]; do
  case "$1" in --image-path) images=$2;; --work-path) work=$2;; --log) log=$2;; esac
  shift
done
echo secret >"$images/pages-1.img"
echo "Error (criu/x.c:1): it is too odd" >"$work/dump.log"
"""


class Rig:
    """An engine as far as a checkpoint needs one, and a container that runs."""

    def __init__(self, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.top = top
        for name in ("bin", "tmp", "out", "container"):
            (top / name).mkdir()
        (top / "container/config.json").write_text('{"mounts": [{"destination": "/proc"}]}')
        monkeypatch.setattr("isula_cri.checkpoint._PATH", str(top / "bin"))
        self.program("criu", "exit 0")
        self.program("runc", DUMP)
        self.frozen: list[bool] = []
        self.asked: list[dict[str, Any]] = []
        self.location = top / "out" / "c.tar"
        self.container = cast(
            "Container",
            SimpleNamespace(
                id=ID, name="cc", image="busybox", image_id="", runtime="runc", created_ns=10**9,
                chain_ids=[], settings=SimpleNamespace(external_rootfs=""),
                state=SimpleNamespace(status=Status.RUNNING, started_ns=2, pid=7),
                lock=asyncio.Lock(),
            ),
        )  # fmt: skip

    def program(self, name: str, script: str) -> None:
        path = self.top / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    async def pause(self, container: Container, frozen: bool) -> None:
        self.frozen.append(frozen)
        container.state.status = Status.PAUSED if frozen else Status.RUNNING

    async def ask(self, request: dict[str, Any], _handle: object, fd: int) -> dict[str, Any]:
        self.asked.append(request)
        assert self.frozen == [True]
        os.write(fd, b"a tar")
        return {"size": 5, "deleted": ["/bin/vi"]}

    def engine(self, reaper: Reaper) -> Engine:
        runc = OciCli("runc", str(self.top / "bin/runc"), cast("Any", None), reaper, str(self.top))
        runtimes = {"runc": runc, "lxc": SimpleNamespace(name="lxc")}
        spec = json.loads((self.top / "container/config.json").read_text())
        return cast(
            "Engine",
            SimpleNamespace(
                reaper=reaper,
                life=SimpleNamespace(
                    runtime=runtimes.get,
                    pause=self.pause,
                    rootfs_data=lambda _: {"UpperDir": "/up", "LowerDir": "/b:/a"},
                ),
                images=SimpleNamespace(tmpdir=str(self.top / "tmp"), ask=self.ask),
                bundles=SimpleNamespace(
                    load=lambda _: SimpleNamespace(id=ID, spec=spec, terminal=False)
                ),
                table=SimpleNamespace(dir=lambda _: str(self.top / "container")),
                events=Events(),
            ),
        )

    def run(self, timeout_s: float = 0, location: str = "") -> None:
        """Makes a checkpoint."""

        async def work() -> None:
            reaper = Reaper()
            reaper.install()
            engine = self.engine(reaper)
            await checkpoint(engine, self.container, location or str(self.location), timeout_s)

        asyncio.run(work())

    def refused(self, kind: type[errors.EngineError], **how: Any) -> errors.EngineError:
        """The error; nothing is left of the attempt, and the container runs."""
        with pytest.raises(kind) as caught:
            self.run(**how)
        assert os.listdir(self.top / "tmp") == []
        assert os.listdir(self.top / "out") == []
        assert self.frozen in ([], [True, False])
        return caught.value


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(tmp_path, monkeypatch)


def test_the_archive_has_what_a_restore_needs_and_is_roots_alone(rig: Rig) -> None:
    rig.run()
    assert stat.S_IMODE(rig.location.stat().st_mode) == 0o600
    assert os.listdir(rig.top / "out") == ["c.tar"]
    assert os.listdir(rig.top / "tmp") == []
    with tarfile.open(rig.location) as archive:
        found = {item.name: archive.extractfile(item) for item in archive}
        texts = {name: file.read() for name, file in found.items() if file is not None}
    assert set(found) == {
        "checkpoint", "checkpoint/pages-1.img", "config.dump", "deleted.files", "dump.log",
        "network.status", "rootfs-diff.tar", "spec.dump", "status",
    }  # fmt: skip
    assert texts["rootfs-diff.tar"] == b"a tar"
    assert json.loads(texts["deleted.files"]) == ["/bin/vi"]
    config = json.loads(texts["config.dump"])
    assert (config["id"], config["rootfsImage"], config["runtime"]) == (ID, "busybox", "runc")
    assert config["createdTime"] == "1970-01-01T00:00:01+00:00"
    assert json.loads(texts["status"])["Pid"] == 7


def test_the_files_are_read_while_nothing_runs(rig: Rig) -> None:
    rig.run()
    assert rig.frozen == [True, False]
    assert rig.asked == [
        {"op": "diff", "root": "/up", "whole": False, "lowers": ["/b", "/a"], "excluded": ["/proc"]}
    ]


def test_one_that_was_paused_stays_so(rig: Rig) -> None:
    rig.container.state.status = Status.PAUSED
    rig.frozen = [True]
    rig.run()
    assert rig.frozen == [True]


def test_without_criu_it_is_not_served(rig: Rig) -> None:
    (rig.top / "bin/criu").unlink()
    assert "not installed" in str(rig.refused(errors.Unimplemented))


def test_criu_says_itself_why_it_does_not_work(rig: Rig) -> None:
    rig.program("criu", "echo 'Error: the vDSO is odd' >&2; exit 1")
    assert "the vDSO is odd" in str(rig.refused(errors.Unimplemented))


def test_other_runtimes_cannot(rig: Rig) -> None:
    rig.container.runtime = "lxc"
    assert "lxc" in str(rig.refused(errors.Unimplemented))


def test_a_dump_that_fails_leaves_nothing_and_says_what_criu_said(rig: Rig) -> None:
    rig.program("runc", DUMP + 'echo \'level=error msg="criu failed"\' >"$log"; exit 1')
    error = rig.refused(errors.Internal)
    assert str(error) == "runtime runc: criu failed"
    assert "it is too odd" in error.hint


def test_a_dump_that_takes_too_long_is_ended(rig: Rig) -> None:
    fifo = rig.top / "fifo"
    os.mkfifo(fifo)
    # holds the other end open as long as it lives
    end = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    rig.program("runc", f"exec sleep 1000 >{fifo}")
    rig.refused(errors.DeadlineExceeded, timeout_s=0.5)
    os.set_blocking(end, True)
    assert os.read(end, 1) == b""
    os.close(end)


@pytest.mark.parametrize("status", [Status.CREATED, Status.EXITED, Status.STARTING])
def test_only_one_that_runs_can_be(rig: Rig, status: Status) -> None:
    rig.container.state.status = status
    rig.refused(errors.FailedPrecondition)


def test_the_place_is_checked_first(rig: Rig) -> None:
    rig.refused(errors.InvalidArgument, location="out/c.tar")
    rig.refused(errors.InvalidArgument, timeout_s=-1)
    rig.refused(errors.NotFound, location=f"{rig.top}/nowhere/c.tar")
    rig.location.write_text("mine")
    with pytest.raises(errors.AlreadyExists):
        rig.run()
    assert rig.location.read_text() == "mine"
