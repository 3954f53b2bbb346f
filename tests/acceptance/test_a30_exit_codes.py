"""Case A30: exit codes, stop signals and zombies of application containers."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from tests.fakes.images import FakeLayer, docker_archive, make_image
from tests.rig import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rig import Engine

pytestmark = [pytest.mark.root, pytest.mark.lxc]

ENDS = [
    ("exit 0", 0), ("exit 1", 1), ("exit 42", 42),
    ("sh -c 'kill -9 $$'; exit $?", 137),
    ("trap 'exit 143' TERM; kill -TERM $$; sleep 9", 143),
]  # fmt: skip


@pytest.mark.parametrize(("script", "code"), ENDS)
def test_the_same_code_everywhere(engine: Engine, runtime: str, script: str, code: int) -> None:
    result = engine.isula(
        "run", "--name", "ends", "--runtime", runtime, "busybox", "sh", "-c", script
    )
    assert result.code == code
    assert engine.ok("wait", "ends") == str(code)
    assert engine.state_of("ends")["ExitCode"] == code
    assert f"Exited ({code})" in engine.ok("ps", "-a")
    assert engine.isula("start", "-a", "ends").code == code


@pytest.mark.parametrize(("signal", "code"), [("KILL", 137), ("TERM", 143), ("SEGV", 139)])
def test_a_program_killed_from_outside(
    engine: Engine, runtime: str, signal: str, code: int
) -> None:
    # in the host's pid namespace pid 1 is not protected from signals that it does not handle
    client = engine.popen(
        *("run", "--name", "shot", "--pid", "host", "--runtime", runtime),
        *("busybox", "sleep", "1000"),
        stdout=subprocess.DEVNULL,
    )
    until(lambda: engine.isula("inspect", "shot").code == 0, "the container")
    until(lambda: engine.state_of("shot")["Running"], "the container running")
    engine.ok("kill", "-s", signal, "shot")
    assert client.wait(60) == code
    assert engine.state_of("shot")["ExitCode"] == code


def test_stop_signal_of_the_image(
    engine: Engine, runtime: str, images: Path, tmp_path: Path
) -> None:
    layer = FakeLayer(
        *2 * (only_layer(images / "docker.tar"),), "application/vnd.oci.image.layer.v1.tar"
    )
    host = {"os": "linux", "architecture": {"x86_64": "amd64"}.get(os.uname().machine, "arm64")}
    image = make_image([layer], platform=host, config={"config": {"StopSignal": "SIGUSR1"}})
    file = tmp_path / "image.tar"
    file.write_bytes(docker_archive({"stopper:latest": image}))
    engine.ok("load", "-i", str(file))
    script = (
        'for s in TERM INT USR1; do trap "echo $s; exit 0" $s; done; '
        "echo ready; while :; do sleep 0.05; done"
    )
    engine.ok("run", "-d", "--name", "stop", "--runtime", runtime, "stopper", "sh", "-c", script)
    until(lambda: "ready" in engine.ok("logs", "stop"), "the traps set")
    engine.ok("stop", "stop")
    assert engine.ok("logs", "stop").splitlines() == ["ready", "USR1"]
    engine.ok("rm", "stop")
    engine.ok("rmi", "stopper")


def only_layer(path: Path) -> bytes:
    """The plain tar of the one layer in a docker archive."""
    with tarfile.open(path) as archive:
        described = archive.extractfile("manifest.json")
        assert described is not None
        (name,) = json.load(described)[0]["Layers"]
        layer = archive.extractfile(name)
        assert layer is not None
        data = layer.read()
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def test_orphans_leave_no_zombies(engine: Engine, runtime: str) -> None:
    # a hundred grandchildren whose parent ends at once fall to pid 1, a shell that waits
    script = (
        "for i in $(seq 100); do (sh -c 'sleep 0.1 & exit 0'); done; "
        "trap 'exit 0' TERM; echo made; while :; do sleep 0.1; done"
    )
    engine.ok("run", "-d", "--name", "orphans", "--runtime", runtime, "busybox", "sh", "-c", script)
    until(lambda: "made" in engine.ok("logs", "orphans"), "the orphans")
    until(lambda: " Z" not in engine.ok("exec", "orphans", "ps", "-o", "stat,pid"), "no zombies")
    engine.ok("kill", "-s", "TERM", "orphans")
    assert engine.ok("wait", "orphans") == "0"
