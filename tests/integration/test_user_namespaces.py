"""Containers in the user namespace of a pod, with both runtimes and every storage driver."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge.oci.mounts import Mount
from isula_edge.oci.options import Settings
from isula_edge.sys import mounts
from tests.fakes.driven import Driven, EngineFailure
from tests.integration.staging import driven, shared_mount
from tests.rig import until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.lxc]
HOST = 200_000
MAPS = [(0, HOST, 65_536)]
KINDS = ("user", "net", "ipc", "uts")


@pytest.fixture(scope="module", params=["overlay", "overlay1", "vfs"])
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


@pytest.fixture(scope="module")
def pinned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Namespaces of a pod, owned by a user namespace of its own, pinned without a process."""
    folder = tmp_path_factory.mktemp("pod")
    words = ["unshare", "--user", "--net", "--ipc", "--uts", "cat"]
    with contextlib.ExitStack() as stack:
        holder = stack.enter_context(
            subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        )
        assert holder.stdin is not None
        assert holder.stdout is not None
        # what it copies comes back when it is in its namespaces
        holder.stdin.write(b"x")
        holder.stdin.flush()
        assert holder.stdout.read(1) == b"x"
        for name in ("uid", "gid"):
            Path(f"/proc/{holder.pid}/{name}_map").write_text(f"0 {HOST} 65536\n")
        for kind in KINDS:
            (folder / kind).touch()
            source = f"/proc/{holder.pid}/ns/{kind}"
            subprocess.run(["mount", "--bind", source, folder / kind], check=True)
            stack.callback(mounts.detach, str(folder / kind))
        holder.stdin.close()
        yield folder


@pytest.fixture
def pod(pinned: Path) -> dict[str, str | None]:
    """What a container of the pod joins."""
    paths: dict[str, str | None] = {kind: str(pinned / kind) for kind in ("user", "ipc", "uts")}
    return {**paths, "network": str(pinned / "net"), "pid": "", "cgroup": ""}


def settings(pod: dict[str, str | None], **given: Any) -> Settings:
    return Settings(join=pod, uid_maps=MAPS, gid_maps=MAPS, **given)


def status(engine: Driven, container: str, field: str) -> list[str]:
    pid = engine.ask("pid", id=container)
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1:] for line in lines if line.startswith(f"{field}:"))


def test_ids_are_those_of_the_pod(
    engine: Driven, runtime: str, pod: dict[str, str | None], pinned: Path
) -> None:
    """Spec: runtime should support NamespaceMode_POD."""
    container = engine.start(settings(pod), "sleep 1000", runtime)
    assert status(engine, container, "Uid") == [str(HOST)] * 4
    assert status(engine, container, "Gid") == [str(HOST)] * 4
    code, lines = engine.exec(container, "cat /proc/self/uid_map; stat -c %u /bin; id -u")
    assert (code, lines[0].split(), lines[1:]) == (0, ["0", str(HOST), "65536"], ["0", "0"])
    pid = engine.ask("pid", id=container)
    for kind in KINDS:
        assert os.stat(f"/proc/{pid}/ns/{kind}").st_ino == (pinned / kind).stat().st_ino


def test_another_user(engine: Driven, runtime: str, pod: dict[str, str | None]) -> None:
    container = engine.start(settings(pod, user="1000:1001"), "sleep 1000", runtime)
    assert status(engine, container, "Uid") == [str(HOST + 1000)] * 4
    assert status(engine, container, "Gid") == [str(HOST + 1001)] * 4


def test_root_may_what_root_may(engine: Driven, runtime: str, pod: dict[str, str | None]) -> None:
    script = """
        touch /new && chown 1000:1001 /new && stat -c %u:%g /new
        mkdir /root/folder && echo folder
        rm /etc/passwd && echo removed
        touch /dev/shm/file && echo shm
        test -c /dev/null -a -c /dev/ptmx && echo devices
        head -c 1 /etc/hosts
    """
    lines = engine.output(settings(pod), script, runtime)
    assert lines == ["1000:1001", "folder", "removed", "shm", "devices", "1"]


def test_the_network_is_its_own(engine: Driven, runtime: str, pod: dict[str, str | None]) -> None:
    given = settings(pod, cap_add=["NET_ADMIN"])
    script = "ip link set lo up && ls /sys/class/net && ip -o link show dev lo | grep -c UP"
    assert engine.output(given, script, runtime) == ["lo", "1"]


def test_the_network_of_the_host(
    engine: Driven, runtime: str, tmp_path: Path, pod: dict[str, str | None]
) -> None:
    joined = {**pod, "network": None, "ipc": "", "uts": "", "user": ""}
    container = engine.start(settings(joined), "sleep 1000", runtime)
    assert engine.exec(container, "ls -d /sys/kernel; touch /sys/x 2>/dev/null || echo no") == (
        0,
        ["/sys/kernel", "no"],
    )
    pid = engine.ask("pid", id=container)
    mine = os.stat(f"/run/netns/{engine.network.name}").st_ino
    assert os.stat(f"/proc/{pid}/ns/net").st_ino == mine
    assert status(engine, container, "Uid") == [str(HOST)] * 4


def test_a_new_user_namespace(engine: Driven, runtime: str) -> None:
    joined: dict[str, str | None] = dict.fromkeys(("user", "network", "ipc", "uts", "pid"), "")
    script = "cat /proc/self/uid_map; touch /x; stat -c %u /x"
    lines = engine.output(settings(joined), script, runtime)
    assert (lines[0].split(), lines[1]) == (["0", str(HOST), "65536"], "0")


def test_a_read_only_root(engine: Driven, runtime: str, pod: dict[str, str | None]) -> None:
    given = settings(pod, read_only=True)
    assert engine.output(given, "touch /x 2>/dev/null || echo no", runtime) == ["no"]


def test_what_it_wrote_is_there_again(
    engine: Driven, runtime: str, pod: dict[str, str | None]
) -> None:
    script = "test -e /x && echo again; touch /x; chown 7:8 /x; stat -c %u:%g /x; sleep 1000"
    container = engine.start(settings(pod), script, runtime)
    written = (0, ["7:8"])
    until(lambda: engine.exec(container, "stat -c %u:%g /x") == written, "the file")
    engine.ask("stop", id=container)
    engine.ask("start", id=container)
    assert engine.exec(container, "stat -c %u:%g /x") == written


def test_exec(engine: Driven, runtime: str, pod: dict[str, str | None]) -> None:
    container = engine.start(settings(pod), "sleep 1000", runtime)
    script = "id -u; id -g; id -G; cat /proc/self/uid_map"
    code, lines = engine.exec(container, script, uid=1000, gid=1001, groups=[1001, 77])
    assert (code, lines[:2]) == (0, ["1000", "1001"])
    assert sorted(lines[2].split()) == ["1001", "77"]
    assert lines[3].split() == ["0", str(HOST), "65536"]


def test_exec_with_a_terminal(engine: Driven, runtime: str, pod: dict[str, str | None]) -> None:
    container = engine.start(settings(pod), "sleep 1000", runtime)
    script = "echo x >$(tty) && stat -c %u $(tty)"
    given = {"uid": 1000, "gid": 1000, "terminal": True}
    assert engine.exec(container, script, **given) == (0, ["x", "1000"])


def test_a_terminal(engine: Driven, runtime: str, pod: dict[str, str | None]) -> None:
    lines = engine.output(settings(pod, tty=True), "tty; echo x >/dev/tty", runtime)
    assert [line.strip() for line in lines if line.strip()] == ["/dev/pts/0", "x"]


def test_a_device(engine: Driven, runtime: str, pod: dict[str, str | None]) -> None:
    # of another name than the host's
    given = settings(pod, devices=[("/dev/kmsg", "/dev/log9", "r")])
    assert engine.output(given, "stat -c %t:%T /dev/log9", runtime) == ["1:b"]


def test_hooks(engine: Driven, runtime: str, pod: dict[str, str | None], tmp_path: Path) -> None:
    hooks = {
        "prestart": [{"path": "/bin/touch", "args": ["touch", f"{tmp_path}/host"]}],
        "createContainer": [{"path": "/bin/true"}],
        "startContainer": [{"path": "/bin/touch", "args": ["touch", "/tmp/inside"]}],
    }
    assert engine.output(settings(pod, hooks=hooks), "ls /tmp", runtime) == ["inside"]
    assert (tmp_path / "host").exists()


def test_a_volume_with_mapped_ids(
    engine: Driven, runtime: str, pod: dict[str, str | None], tmp_path: Path
) -> None:
    """Spec: when Host idmap mount support is needed runtime should support NamespaceMode_POD."""
    tmp_path.chmod(0o700)
    (tmp_path / "file").write_text("seen\n")
    maps = tuple(MAPS)
    mount = Mount("bind", str(tmp_path), "/v", uid_maps=maps, gid_maps=maps)
    script = "cat /v/file; stat -c %u /v/file; touch /v/new; chown 5:6 /v/new"
    assert engine.output(settings(pod, mounts=[mount]), script, runtime) == ["seen", "0"]
    found = (tmp_path / "new").stat()
    assert (found.st_uid, found.st_gid) == (5, 6)


def test_a_volume_as_it_is(
    engine: Driven, runtime: str, pod: dict[str, str | None], tmp_path: Path
) -> None:
    """Below a directory that root of the pod may not search."""
    tmp_path.chmod(0o700)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    mount = Mount("bind", f"{tmp_path}/open", "/v")
    engine.output(settings(pod, mounts=[mount]), "touch /v/new", runtime)
    assert (tmp_path / "open/new").stat().st_uid == HOST


def test_an_image_belongs_to_root(
    engine: Driven, runtime: str, pod: dict[str, str | None]
) -> None:
    image = engine.ask("image")
    mount = Mount("image", "", "/v", True, image=image["id"], layers=tuple(image["layers"]))
    script = "stat -c %u /v/bin/busybox; touch /v/x 2>/dev/null || echo no"
    assert engine.output(settings(pod, mounts=[mount]), script, runtime) == ["0", "no"]


def test_propagation_inward(
    engine: Driven, runtime: str, pod: dict[str, str | None], tmp_path: Path
) -> None:
    with shared_mount(tmp_path / "volume") as folder:
        maps = tuple(MAPS)
        mount = Mount("bind", str(folder), "/v", propagation="rslave", uid_maps=maps, gid_maps=maps)
        container = engine.start(settings(pod, mounts=[mount]), "sleep 1000", runtime, pod="a")
        with shared_mount(folder / "later"):
            (folder / "later/file").touch()
            assert engine.exec(container, "ls /v/later") == (0, ["file"])
            engine.ask("remove", id=container)


def test_only_the_root_stays_mounted(
    engine: Driven, runtime: str, pod: dict[str, str | None]
) -> None:
    engine.start(settings(pod), "sleep 1000", runtime)
    assert mounts.below(f"{engine.folder}/state") == []


def test_a_crash(engine: Driven, runtime: str, pod: dict[str, str | None]) -> None:
    container = engine.start(settings(pod), "sleep 1000", runtime)
    engine.crash()
    assert engine.exec(container, "stat -c %u /bin") == (0, ["0"])


def test_a_namespace_that_is_gone(engine: Driven, pod: dict[str, str | None]) -> None:
    with pytest.raises(EngineFailure, match="no user namespace") as why:
        engine.output(settings({**pod, "user": "/nowhere/user"}), "true", "lxc")
    assert why.value.name == "FailedPrecondition"
