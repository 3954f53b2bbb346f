"""Storage drivers under a whole engine: sizes, volatile mounts, one lower directory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from isula_edge import kernel
from tests.disks import disk
from tests.rig import Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.lxc]

DF = "df -k / | tail -n 1 | awk '{ print $2 }'"
FILL = "dd if=/dev/zero of=/file bs=64k count=1000 2>&1; wc -c </file"


def root_options(engine: Engine, container: str) -> set[str]:
    """Options of the mount that is the container's root, the file system's own too."""
    merged = engine.inspect(container)["GraphDriver"]["Data"]["MergedDir"]
    with open("/proc/self/mountinfo") as file:
        (line,) = [line for line in file if line.split()[4] == merged]
    left, _, right = line.partition(" - ")
    return {*left.split()[5].split(","), *right.split()[2].split(",")}


def status(engine: Engine) -> dict[str, str]:
    """Indented lines of ``isula info``."""
    lines = [line for line in engine.ok("info").splitlines() if line.startswith(" ")]
    return {line.partition(": ")[0].strip(): line.partition(": ")[2] for line in lines}


def test_info_tells_what_the_driver_can_do(engine: Engine) -> None:
    found = status(engine)
    assert found["Backing Filesystem"] not in ("", "unknown")
    assert found["Supports d_type"] == "true"
    assert found["Using metacopy"] == "false"
    assert found["Native Overlay Diff"] == "true"
    assert found["userxattr"] == "false"
    assert found["Project Quota"].startswith(("true", "false ("))


def volatile(options: set[str]) -> bool:
    # newer kernels show it as a value of fsync
    return bool(options & {"volatile", "fsync=volatile"})


def test_only_what_goes_with_rm_is_not_synced(engine: Engine, runtime: str) -> None:
    words = ["--runtime", runtime, "-d", "busybox", "sleep", "1000"]
    engine.ok("run", "--name", "kept", *words)
    assert not volatile(root_options(engine, "kept"))
    engine.ok("run", "--rm", "--name", "gone", *words)
    assert volatile(root_options(engine, "gone")) is kernel.probe().usable("overlay-volatile")
    engine.ok("stop", "-t", "0", "gone")


def test_a_container_with_rm_that_failed_to_start_is_started_again(engine: Engine) -> None:
    engine.ok("create", "--rm", "--name", "twice", "busybox", "/bin/missing")
    for _ in range(2):
        result = engine.isula("start", "twice")
        assert result.code != 0
        assert "missing" in result.err
        assert "Invalid argument" not in result.err
    engine.ok("rm", "twice")


def test_a_size_is_refused_where_it_cannot_be_kept(tmp_path: Path, images: Path) -> None:
    with disk(tmp_path, "ext4") as point:
        engine = Engine(tmp_path / "engine")
        engine.graph = point / "graph"
        try:
            engine.start()
            engine.ok("load", "-i", str(images / "docker.tar"))
            result = engine.isula("run", "--storage-opt", "size=8m", "busybox", "true")
            assert result.code == 125
            assert "is supported only for overlay over xfs or ext4" in result.err
            assert "prjquota" in result.err
            assert engine.ok("ps", "-aq") == ""
            assert os.listdir(engine.graph / "storage/overlay/rw") == []
            engine.stop()
            engine.configure({"storage-opts": ["overlay2.size=8m"]})
            with pytest.raises(AssertionError, match="isulad ended"):
                engine.start()
            assert "overlay2.size is supported only for overlay over xfs" in engine.log_text()
            engine.configure({})
            engine.start()
        finally:
            engine.close()


WRONG = [
    ("size", "Invalid storage option 'size'"),
    ("color=red", "Unknown storage option: color"),
    ("size=100", "Illegal storage quota size 100, 4096 at least"),
    ("size=x", "Invalid quota size: 'x'"),
]


@pytest.mark.parametrize(("option", "text"), WRONG)
def test_a_wrong_storage_option_is_named(engine: Engine, option: str, text: str) -> None:
    result = engine.isula("create", "--storage-opt", option, "busybox")
    assert result.code == 125
    assert text in result.err


@pytest.fixture(params=["ext4", "xfs"])
def limited(request: pytest.FixtureRequest, tmp_path: Path, images: Path) -> Iterator[Engine]:
    """An engine on a file system with project quotas."""
    with disk(tmp_path, request.param, quota=True) as point:
        engine = Engine(tmp_path / "engine")
        engine.graph = point / "graph"
        try:
            engine.start()
            engine.ok("load", "-i", str(images / "docker.tar"))
            yield engine
        finally:
            engine.close()


def test_a_container_stops_at_its_size(limited: Engine, runtime: str) -> None:
    words = ["run", "--name", "one", "--runtime", runtime, "--storage-opt", "size=8m", "busybox"]
    out = limited.ok(*words, "sh", "-c", f"{DF}; {FILL}").splitlines()
    assert out[0] == "8192"
    assert 7 << 20 < int(out[-1]) <= 8 << 20
    assert "quota" in " ".join(out).lower() or "No space left" in " ".join(out)
    assert limited.inspect("one")["HostConfig"]["StorageOpt"] == {"size": str(8 << 20)}
    assert status(limited)["Project Quota"] == "true"


def test_sizes_survive_a_restart_and_are_not_mixed_up(limited: Engine) -> None:
    words = ["busybox", "sh", "-c", DF]
    limited.ok("create", "--name", "one", "--storage-opt", "size=8m", *words)
    limited.restart()
    limited.ok("create", "--name", "two", "--storage-opt", "size=16m", *words)
    limited.stop()
    limited.configure({"storage-opts": ["overlay2.size=32m"]})
    limited.start()
    limited.ok("create", "--name", "three", *words)
    found = [limited.ok("start", "-a", name) for name in ("one", "two", "three")]
    assert found == ["8192", "16384", "32768"]
    for name in ("one", "two", "three"):
        limited.ok("rm", name)


def test_mount_options_of_the_administrators(make_engine: Callable[..., Engine]) -> None:
    options = {"storage-opts": ["overlay2.mountopt=nodev,metacopy=on", "overlay2.size=0"]}
    engine = make_engine(config=options)
    engine.ok("run", "-d", "--name", "one", "busybox", "sleep", "1000")
    assert {"nodev", "metacopy=on"} <= root_options(engine, "one")
    found = status(engine)
    assert found["Using metacopy"] == "true"
    assert found["Native Overlay Diff"] == "false"


def test_overlay_of_one_layer_serves_images_and_stays_what_it_is(
    make_engine: Callable[..., Engine], runtime: str
) -> None:
    engine = make_engine("--storage-driver", "overlay1")
    engine.ok("create", "--name", "one", "--runtime", runtime, "busybox", "cat", "/etc/group")
    assert "root:x:0:" in engine.ok("start", "-a", "one")
    engine.args = ["--storage-driver", "overlay2"]
    engine.restart()
    assert "Storage Driver: overlay1" in engine.ok("info")
    assert "root:x:0:" in engine.ok("start", "-a", "one")
    data = engine.inspect("one")["GraphDriver"]
    assert data["Name"] == "overlay1"
    assert ":" not in data["Data"]["LowerDir"]
