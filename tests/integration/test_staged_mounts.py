"""Mounts that runtimes cannot make: recursively read-only, id-mapped, of images."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from isula_edge.oci.mounts import Mount
from isula_edge.oci.options import Settings
from isula_edge.sys import mounts
from tests.fakes.driven import Driven, EngineFailure
from tests.integration.staging import driven, shared_mount

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.lxc]
MAPS = ((0, 300_000, 65_536),)


@pytest.fixture(scope="module", params=["overlay", "vfs"])
def shared(request: pytest.FixtureRequest, images: Path) -> Iterator[Driven]:
    with driven(images, request.param, Driven) as found:
        yield found


@pytest.fixture
def engine(shared: Driven) -> Iterator[Driven]:
    yield shared
    shared.ask("clear")


@pytest.fixture(params=["lxc", "runc"])
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A volume with another mounted in it."""
    with shared_mount(tmp_path / "volume") as folder:
        (folder / "file").write_text("seen\n")
        with shared_mount(folder / "sub"):
            yield folder


def volume_of(engine: Driven, **given: object) -> Mount:
    image = engine.ask("image")
    mount = Mount("image", "", "/v", True, image=image["id"], layers=tuple(image["layers"]))
    return replace(mount, **given)  # type: ignore[arg-type]


def staged(engine: Driven) -> list[str]:
    return mounts.below(f"{engine.folder}/state")


def test_it_says_what_it_can(engine: Driven) -> None:
    # of the kernel that the tests are for
    assert engine.ask("features") == {"recursive_read_only": True, "user_namespaces": True}


@pytest.mark.parametrize("recursive", [False, True])
def test_read_only(engine: Driven, runtime: str, volume: Path, recursive: bool) -> None:
    mount = Mount("bind", str(volume), "/v", True, recursive_read_only=recursive)
    script = "exec 2>/dev/null; cat /v/file; touch /v/x || echo no; touch /v/sub/x || echo no"
    lines = engine.output(Settings(mounts=[mount]), script, runtime)
    assert lines == ["seen"] + ["no"] * (1 + recursive)
    (volume / "sub/mine").touch()


def test_a_link_is_followed(engine: Driven, runtime: str, volume: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(volume)
    for recursive in (False, True):
        mount = Mount("bind", f"{tmp_path}/link", "/v", True, recursive_read_only=recursive)
        assert engine.output(Settings(mounts=[mount]), "cat /v/file", runtime) == ["seen"]


def test_what_is_missing_is_made(engine: Driven, runtime: str, tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("there")
    for name in ("made/deep", "dangling"):
        mount = Mount("bind", f"{tmp_path}/{name}", "/v", True, recursive_read_only=True)
        assert engine.output(Settings(mounts=[mount]), "ls -d /v", runtime) == ["/v"]
        assert (tmp_path / name).is_dir()


def test_a_file_is_mounted(engine: Driven, runtime: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("one\n")
    mount = Mount("bind", f"{tmp_path}/file", "/etc/one", True, recursive_read_only=True)
    script = "exec 2>/dev/null; cat /etc/one; touch /etc/one || echo no"
    assert engine.output(Settings(mounts=[mount]), script, runtime) == ["one", "no"]


def test_ids_are_mapped(engine: Driven, runtime: str, volume: Path) -> None:
    mount = Mount("bind", str(volume), "/v", uid_maps=MAPS, gid_maps=MAPS)
    script = "stat -c %u:%g /v/file /v/sub"
    assert engine.output(Settings(mounts=[mount]), script, runtime) == ["300000:300000"] * 2


def test_a_file_system_that_maps_no_ids_is_named(engine: Driven, runtime: str) -> None:
    mount = Mount("bind", "/proc/sys", "/v", uid_maps=MAPS, gid_maps=MAPS)
    words = "/proc/sys cannot be mounted .* file system, proc,"
    with pytest.raises(EngineFailure, match=words) as why:
        engine.output(Settings(mounts=[mount]), "true", runtime)
    assert why.value.name == "FailedPrecondition"


def test_flags(engine: Driven, runtime: str, volume: Path) -> None:
    mount = Mount("bind", str(volume), "/v", options=("noexec", "nosuid", "nodev"))
    lines = engine.output(Settings(mounts=[mount]), "grep ' /v ' /proc/mounts", runtime)
    assert set(lines[0].split()[3].split(",")) >= {"rw", "noexec", "nosuid", "nodev"}


def test_an_image(engine: Driven, runtime: str) -> None:
    mount = volume_of(engine)
    script = "test -x /v/bin/busybox && echo there; touch /v/new 2>/dev/null || echo no"
    assert engine.output(Settings(mounts=[mount]), script, runtime) == ["there", "no"]


def test_a_path_in_an_image(engine: Driven, runtime: str) -> None:
    mount = volume_of(engine, sub_path="bin", options=("noexec",))
    script = "test -e /v/busybox && echo there; /v/busybox true 2>/dev/null || echo no"
    assert engine.output(Settings(mounts=[mount]), script, runtime) == ["there", "no"]


@pytest.mark.parametrize(
    ("path", "name"), [("none", "NotFound"), ("../etc", "InvalidArgument"), ("bin/x", "NotFound")]
)
def test_a_path_that_an_image_lacks(engine: Driven, path: str, name: str) -> None:
    with pytest.raises(EngineFailure, match=path) as why:
        engine.output(Settings(mounts=[volume_of(engine, sub_path=path)]), "true", "lxc")
    assert why.value.name == name
    assert staged(engine) == []


def test_layers_of_a_volume_are_needed(engine: Driven) -> None:
    """Whatever the container itself is made of."""
    other = "sha256:" + "a" * 64
    mount = volume_of(engine, layers=(other,))
    container = engine.create(Settings(mounts=[mount]), "true", "lxc")
    assert other in engine.ask("chains")
    assert engine.ask("discard") is False
    engine.ask("remove", id=container)
    assert engine.ask("chains") == []


def test_nothing_is_left_while_it_runs(engine: Driven, runtime: str, volume: Path) -> None:
    mounted = [
        Mount("bind", str(volume), "/a", True, recursive_read_only=True),
        volume_of(engine),
    ]
    container = engine.start(Settings(mounts=mounted), "sleep 1000", runtime)
    assert staged(engine) == []
    for _ in range(2):
        assert engine.exec(container, "cat /a/file; ls -d /v/bin") == (0, ["seen", "/v/bin"])
        engine.ask("stop", id=container)
        engine.ask("start", id=container)
    engine.ask("remove", id=container)


def test_nothing_is_left_of_a_start_that_fails(
    engine: Driven, runtime: str, volume: Path
) -> None:
    mount = Mount("bind", str(volume), "/a", True, recursive_read_only=True)
    with pytest.raises(EngineFailure):
        engine.start(Settings(mounts=[mount], user="nobody-there"), "true", runtime)
    assert staged(engine) == []
    assert (volume / "file").exists()


def test_a_crash_in_a_start_loses_nothing(engine: Driven, volume: Path) -> None:
    """A run directory with something mounted in it is never deleted with what is in there."""
    mount = Mount("bind", str(volume), "/a", True, recursive_read_only=True)
    container = engine.create(Settings(mounts=[mount]), "true", "lxc")
    place = engine.folder / "state/lxc" / container / "mounts/0"
    place.mkdir(parents=True)
    subprocess.run(["mount", "--rbind", volume, place], check=True)
    engine.crash()
    # it answers when all that is taken over
    engine.ask("image")
    assert staged(engine) == []
    assert not place.exists()
    assert (volume / "file").read_text() == "seen\n"
    # the other side of what was mounted below it is still there
    assert (volume / "sub").is_mount()
    engine.ask("remove", id=container)


def test_a_crash_after_a_start_leaves_what_runs(
    engine: Driven, runtime: str, volume: Path
) -> None:
    mount = Mount("bind", str(volume), "/a", True, recursive_read_only=True)
    container = engine.start(Settings(mounts=[mount]), "sleep 1000", runtime)
    engine.crash()
    assert engine.exec(container, "cat /a/file") == (0, ["seen"])
    engine.ask("remove", id=container)


@pytest.mark.parametrize(
    ("mode", "inward", "outward"),
    [("rprivate", False, False), ("rslave", True, False), ("rshared", True, True)],
)
def test_propagation(
    engine: Driven, runtime: str, volume: Path, mode: str, inward: bool, outward: bool
) -> None:
    mount = Mount("bind", str(volume), "/v", propagation=mode)
    settings = Settings(mounts=[mount], privileged=True)
    (volume / "in").mkdir()
    container = engine.start(settings, "sleep 1000", runtime, pod="a")
    with shared_mount(volume / "out"):
        (volume / "out/file").touch()
        assert (engine.exec(container, "ls /v/out/file")[0] == 0) is inward
        engine.exec(container, "mount -t tmpfs x /v/in && touch /v/in/file")
        assert (volume / "in/file").exists() is outward
        engine.ask("remove", id=container)


@pytest.mark.parametrize(("mode", "kinds"), [("rshared", "shared"), ("rslave", "shared or slave")])
def test_propagation_that_a_source_does_not_have(
    engine: Driven, tmp_path: Path, mode: str, kinds: str
) -> None:
    with shared_mount(tmp_path / "x") as folder:
        subprocess.run(["mount", "--make-private", folder], check=True)
        mount = Mount("bind", str(folder), "/v", propagation=mode)
        words = f'path "{folder}" is mounted on "{folder}" but it is not a {kinds} mount'
        with pytest.raises(EngineFailure, match=words):
            engine.output(Settings(mounts=[mount]), "true", "lxc", pod="a")
