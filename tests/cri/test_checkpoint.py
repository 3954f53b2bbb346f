"""CheckpointContainer: an archive of a running container, where criu can make one."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from tests.cri.client import refused
from tests.cri.node import RUNNING
from tests.rig import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cri.node import Machine, Node

pytestmark = [pytest.mark.root, pytest.mark.lxc]
_COUNT = "rm /bin/vi; i=0; while :; do i=$((i+1)); echo $i >/count; sleep 0.05; done"


def criu_works() -> bool:
    """Whether there is a criu that knows this kernel."""
    program = shutil.which("criu")
    return bool(program) and subprocess.run([str(program), "check"], check=False).returncode == 0


def test_the_archive_is_whole_and_the_container_goes_on(machine: Machine, tmp_path: Path) -> None:
    if not criu_works():
        pytest.skip("needs a criu that knows this kernel")
    node = machine.node("runc")
    try:
        container = node.pod().run("sh", "-c", _COUNT)
        until(lambda: container.exec("cat", "/count").out.strip(), "the container counting")
        archive = tmp_path / "checkpoint.tar"
        node.call("CheckpointContainer", container_id=container.id, location=str(archive))
        assert stat.S_IMODE(archive.stat().st_mode) == 0o600
        with tarfile.open(archive) as found:
            names = found.getnames()
            assert {"checkpoint/inventory.img", "spec.dump", "dump.log"} <= set(names)
            files = {name: found.extractfile(name) for name in ("config.dump", "deleted.files")}
            texts = {name: json.load(file) for name, file in files.items() if file is not None}
            inner = found.extractfile("rootfs-diff.tar")
            assert inner is not None
            with tarfile.open(fileobj=inner) as diff:
                counted = diff.extractfile("count")
                assert counted is not None
                before = int(counted.read() or 0)
        assert texts["config.dump"]["id"] == container.id
        assert texts["deleted.files"] == ["/bin/vi"]
        assert container.status().state == RUNNING
        until(lambda: int(container.output("cat", "/count") or 0) > before, "it going on")
    finally:
        node.close()


def test_where_it_cannot_be_made_the_call_says_so(
    node: Node, runtime: str, tmp_path: Path
) -> None:
    if runtime == "runc" and criu_works():
        pytest.skip("it can be made here")
    container = node.pod().run("sleep", "1000")
    archive = tmp_path / "checkpoint.tar"
    with refused("UNIMPLEMENTED") as failure:
        node.call("CheckpointContainer", container_id=container.id, location=str(archive))
    assert ("criu" if runtime == "runc" else runtime) in str(failure.value)
    assert list(tmp_path.iterdir()) == []
    assert container.status().state == RUNNING


def test_one_that_does_not_run_is_refused(machine: Machine, tmp_path: Path) -> None:
    if not criu_works():
        pytest.skip("needs a criu that knows this kernel")
    node = machine.node("runc")
    try:
        container = node.pod().create("sleep", "1000")
        place = str(tmp_path / "checkpoint.tar")
        with refused("FAILED_PRECONDITION"):
            node.call("CheckpointContainer", container_id=container.id, location=place)
        with refused("NOT_FOUND"):
            node.call("CheckpointContainer", container_id="0" * 64, location=place)
        assert list(tmp_path.iterdir()) == []
    finally:
        node.close()
