"""Case A24: images with very many layers, below a very long graph root, are mounted and run."""

from __future__ import annotations

import json
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.images import add_file, sha256, tar_of
from tests.rig import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.lxc]

COUNTS = [127, 200, 500]
DENIED = """
import errno, os
from isula_edge.sys import syscalls
def denied(fstype):
    with open(os.environ["DENIED_LOG"], "a") as log:
        log.write("fsopen\\n")
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
syscalls.fsopen = denied
"""


def many_layers(busybox: Path, target: Path, count: int) -> None:
    """A docker archive: busybox and layers that each add, replace or remove something."""
    with tarfile.open(busybox) as archive:

        def content(name: str) -> bytes:
            file = archive.extractfile(name)
            assert file is not None
            return file.read()

        manifest = json.loads(content("manifest.json"))[0]
        config: dict[str, Any] = json.loads(content(manifest["Config"]))
        layers = [content(name) for name in manifest["Layers"]]
    while len(layers) < count:
        number = len(layers)
        files = {f"many/file{number}": b"x", "many/number": str(number).encode()}
        if number == count - 1:
            files["many/.wh.file1"] = b""
        layers.append(tar_of(files))
    config["rootfs"]["diff_ids"] = [sha256(layer) for layer in layers]
    config.pop("history", None)
    names = [f"{number}.tar" for number in range(count)]
    told = [{"Config": "config.json", "RepoTags": [f"many:{count}"], "Layers": names}]
    with tarfile.open(target, "w") as out:
        for name, layer in zip(names, layers, strict=True):
            add_file(out, name, layer)
        add_file(out, "config.json", json.dumps(config).encode())
        add_file(out, "manifest.json", json.dumps(told).encode())


def engine_of(folder: Path, *args: str, env: dict[str, str] | None = None) -> Engine:
    """An engine whose graph root has more than 200 characters."""
    engine = Engine(folder / "engine", *args, env=env)
    engine.graph = folder / ("g" * 120) / ("r" * 120)
    assert len(str(engine.graph)) > 200
    return engine


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory, images: Path) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("archives")
    made = {count: folder / f"{count}.tar" for count in COUNTS}
    for count, path in made.items():
        many_layers(images / "docker.tar", path, count)
    return made


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory, archives: dict[int, Path]) -> Iterator[Engine]:
    """An engine that has all the images."""
    engine = engine_of(tmp_path_factory.mktemp("a24"))
    try:
        engine.start()
        for path in archives.values():
            engine.ok("load", "-i", str(path))
        yield engine
    finally:
        engine.close()


def seen(engine: Engine, count: int, *words: str) -> None:
    """A container sees every layer, the upper ones first, and can write."""
    script = "cat /many/number; echo; ls /many | wc -l; touch /many/new; ls -d /many/file1 || true"
    out = engine.ok("run", "--rm", *words, f"many:{count}", "sh", "-c", script)
    # one file of each layer but busybox's and the removed one, and "number"
    assert out.split()[:2] == [str(count - 1), str(count - 1)]
    assert "/many/file1" not in out.split()


@pytest.mark.parametrize("count", COUNTS)
def test_an_image_runs(loaded: Engine, count: int, runtime: str) -> None:
    seen(loaded, count, "--runtime", runtime)


def test_a_container_of_it_is_started_again_and_removed(loaded: Engine) -> None:
    loaded.ok("create", "--name", "again", "many:500", "sh", "-c", "echo x >>/many/log")
    for _ in range(2):
        loaded.ok("start", "again")
        loaded.ok("wait", "again")
    out = loaded.ok("inspect", "--format", "{{json .GraphDriver.Data}}", "again")
    data = json.loads(out)
    assert len(data["LowerDir"].split(":")) == 500
    with open(f"{data['UpperDir']}/many/log") as file:
        assert file.read() == "x\nx\n"
    loaded.ok("rm", "again")


def test_names_of_layers_in_mount_options_are_short(loaded: Engine) -> None:
    loaded.ok("run", "-d", "--name", "running", "many:127", "sleep", "1000")
    try:
        with open("/proc/self/mountinfo") as file:
            (line,) = [line for line in file if str(loaded.graph) in line and " overlay " in line]
        options = line.partition(" - ")[2]
        assert str(loaded.graph) not in options
        lowers = options.partition("lowerdir=")[2].partition(",")[0].split(":")
        assert len(lowers) == 127
        assert max(map(len, lowers)) <= 24
    finally:
        loaded.ok("rm", "-f", "running")


@pytest.mark.parametrize("count", COUNTS)
def test_without_the_newer_mount_calls(
    tmp_path: Path, archives: dict[int, Path], count: int
) -> None:
    (tmp_path / "sitecustomize.py").write_text(DENIED)
    log = tmp_path / "denied"
    log.touch()
    env = {"PYTHONPATH": str(tmp_path), "DENIED_LOG": str(log)}
    engine = engine_of(tmp_path, env=env)
    try:
        engine.start()
        engine.ok("load", "-i", str(archives[count]))
        seen(engine, count)
        assert log.read_text() == ("" if count == 127 else "fsopen\n")
    finally:
        engine.close()


@pytest.mark.parametrize("driver", ["overlay1", "vfs"])
def test_drivers_of_whole_trees(tmp_path: Path, archives: dict[int, Path], driver: str) -> None:
    engine = engine_of(tmp_path, "--storage-driver", driver)
    try:
        engine.start()
        engine.ok("load", "-i", str(archives[200]))
        seen(engine, 200)
    finally:
        engine.close()


def test_more_layers_than_any_kernel_mounts_are_refused_by_name(
    tmp_path: Path, loaded: Engine, images: Path
) -> None:
    path = tmp_path / "501.tar"
    many_layers(images / "docker.tar", path, 501)
    result = loaded.isula("load", "-i", str(path))
    assert result.code != 0
    assert "501 layers, 1 to 500 are possible" in result.err
