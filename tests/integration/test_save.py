"""Images and root file systems that leave the engine as archives, and come back."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from tests.fakes.images import FakeLayer, docker_archive, make_image
from tests.rig import program, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.conftest import Pulling
    from tests.rig import Engine

pytestmark = [pytest.mark.root, pytest.mark.lxc]

DRIVERS = ["overlay", "vfs"]
HERE = {"os": "linux", "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]}


def names_in(path: Path | io.BytesIO) -> list[str]:
    file = path if isinstance(path, io.BytesIO) else io.BytesIO(path.read_bytes())
    with tarfile.open(fileobj=file) as archive:
        return archive.getnames()


def load(engine: Engine, data: bytes) -> str:
    return engine.ok("load", "-i", "-", stdin=data)


@pytest.mark.parametrize("driver", DRIVERS)
def test_save_remove_load(make_engine: Callable[..., Engine], tmp_path: Path, driver: str) -> None:
    engine = make_engine("--storage-driver", driver)
    before = engine.image("busybox")["id"]
    path = tmp_path / "saved.tar"
    assert engine.ok("save", "-o", str(path), "busybox") == ""
    assert path.stat().st_mode & 0o777 == 0o600
    again = tmp_path / "again.tar"
    engine.ok("save", "-o", str(again), "busybox")
    assert path.read_bytes() == again.read_bytes()
    engine.ok("rmi", "busybox")
    assert os.listdir(engine.graph / "storage" / driver) == ["rw"]
    assert engine.ok("load", "-i", str(path)) == "Loaded image: busybox:latest"
    assert engine.image("busybox")["id"] == before
    assert engine.ok("run", "--rm", "busybox", "echo", "back") == "back"


def test_what_was_pulled_is_saved(pulling: Pulling, tmp_path: Path) -> None:
    engine, name = pulling.engine, "127.0.0.1:5000/busybox:latest"
    engine.ok("pull", name)
    image = engine.image(name)["id"]
    path = tmp_path / "saved.tar"
    engine.ok("save", "-o", str(path), "--format", "oci", name)
    assert "manifest.json" not in names_in(path)
    engine.ok("rmi", name)
    assert engine.ok("load", "-i", str(path)) == f"Loaded image: {name}"
    assert engine.image(name)["id"] == image
    # by digest, as by id, it has no name
    engine.ok("rmi", name)
    engine.ok("pull", name)
    digest = engine.image(name)["repo_digests"][0]
    engine.ok("rmi", name)
    engine.ok("pull", digest)
    engine.ok("save", "-o", str(path), digest)
    engine.ok("rmi", digest)
    assert engine.ok("load", "-i", str(path)) == f"Loaded image: {image}"


def test_skopeo_reads_both_halves(make_engine: Callable[..., Engine], tmp_path: Path) -> None:
    engine = make_engine()
    path = tmp_path / "saved.tar"
    engine.ok("save", "-o", str(path), "busybox")
    image = engine.image("busybox")["id"]
    for source in (f"docker-archive:{path}", f"oci-archive:{path}"):
        config = subprocess.run(
            ["skopeo", "--insecure-policy", "inspect", "--config", "--raw", source],
            check=True,
            capture_output=True,
        ).stdout
        assert hashlib.sha256(config).hexdigest() == image
        target = tmp_path / source.partition(":")[0]
        # every blob is read, and its digest compared
        subprocess.run(
            ["skopeo", "--insecure-policy", "copy", "-q", source, f"dir:{target}"], check=True
        )
        assert (target / image).read_bytes() == config


BASE = FakeLayer.of({"base": os.urandom(300_000)})
TOP = FakeLayer.of({"app": os.urandom(5000)})
OTHER = FakeLayer.of({"other": b"other"})
IMAGES = {
    "base:1": make_image([BASE], platform=HERE),
    "app:1,app:stable": make_image([BASE, TOP], platform=HERE),
    "other:1": make_image([BASE, OTHER], platform=HERE),
}


@pytest.fixture
def stocked(make_engine: Callable[..., Engine]) -> Engine:
    engine = make_engine(load=False)
    load(engine, docker_archive(IMAGES))
    return engine


def test_several_images_share_their_layers(stocked: Engine, tmp_path: Path) -> None:
    path = tmp_path / "saved.tar"
    image = IMAGES["other:1"].id
    stocked.ok("save", "-o", str(path), "app:1", "base:1", "app:stable", image[:12])
    found = names_in(path)
    layers = [BASE, TOP, OTHER]
    for layer in layers:
        assert found.count(f"blobs/sha256/{layer.diff_id[7:]}") == 1
    with tarfile.open(path) as archive:
        listed = archive.extractfile("manifest.json")
        assert listed is not None
        tags = [entry["RepoTags"] for entry in json.load(listed)]
    assert tags == [["app:1", "app:stable"], ["base:1"], None]
    stocked.ok("rmi", "app:1", "app:stable", "base:1", "other:1")
    assert stocked.ok("images", "-q") == ""
    loaded = stocked.ok("load", "-i", str(path)).splitlines()
    shown = ["app:1", "app:stable", "base:1", image]
    assert loaded == [f"Loaded image: {name}" for name in shown]


def test_an_update_without_the_base(stocked: Engine, tmp_path: Path) -> None:
    full, update = tmp_path / "full.tar", tmp_path / "update.tar"
    stocked.ok("save", "-o", str(full), "app:1")
    stocked.ok("save", "-o", str(update), "--exclude", "base:1", "app:1")
    assert update.stat().st_size < full.stat().st_size - 300_000
    stocked.ok("rmi", "app:1", "app:stable", "other:1")
    # with the base
    assert stocked.ok("load", "-i", str(update)) == "Loaded image: app:1"
    stocked.ok("rmi", "app:1", "base:1")
    # without
    before = sorted(os.listdir(stocked.graph / "storage" / "overlay"))
    refused = stocked.isula("load", "-i", str(update))
    assert refused.code == 1
    assert BASE.diff_id in refused.err
    assert "app:1" in refused.err
    assert stocked.ok("images", "-q") == ""
    assert sorted(os.listdir(stocked.graph / "storage" / "overlay")) == before
    # the layout alone, too
    load(stocked, docker_archive(IMAGES))
    stocked.ok("save", "-o", str(update), "--format", "oci", "--exclude", "base:1", "app:1")
    stocked.ok("rmi", "app:1", "app:stable", "other:1", "base:1")
    refused = stocked.isula("load", "-i", str(update))
    assert refused.code == 1
    assert BASE.diff_id in refused.err


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("nosuch",), 1, "No such image:nosuch:latest"),
        (("app:1", "--exclude", "nosuch"), 1, "No such image:nosuch:latest"),
        (("app:1", "--format", "zip"), 125, "Invalid image type: zip"),
        ((), 1, '"save" requires a minimum of 1 argument.'),
    ],
)
def test_what_cannot_be_saved(
    stocked: Engine, tmp_path: Path, words: tuple[str, ...], code: int, text: str
) -> None:
    path = tmp_path / "folder" / "saved.tar"
    path.parent.mkdir()
    refused = stocked.isula("save", "-o", str(path), *words)
    assert refused.code == code
    assert text in refused.err
    assert os.listdir(path.parent) == []


def test_where_it_cannot_be_written(stocked: Engine, tmp_path: Path) -> None:
    for place, text in ((tmp_path / "no" / "such", "No such file"), (tmp_path, "Is a directory")):
        refused = stocked.isula("save", "-o", str(place), "app:1")
        assert refused.code == 1
        assert text in refused.err


def test_an_old_file_is_replaced_only_by_a_whole_one(stocked: Engine, tmp_path: Path) -> None:
    path, link = tmp_path / "saved.tar", tmp_path / "link.tar"
    path.write_bytes(b"old")
    link.symlink_to(path)
    assert stocked.isula("save", "-o", str(link), "nosuch").code == 1
    assert path.read_bytes() == b"old"
    stocked.ok("save", "-o", str(link), "app:1")
    assert link.is_symlink()
    assert "manifest.json" in names_in(path)


def test_a_changed_layer_is_not_saved(stocked: Engine, tmp_path: Path) -> None:
    (found,) = (stocked.graph / "storage" / "overlay").glob("*/app")
    found.write_bytes(os.urandom(5000))
    path = tmp_path / "saved.tar"
    refused = stocked.isula("save", "-o", str(path), "app:1")
    assert refused.code == 1
    assert "its files were changed" in refused.err
    assert not path.exists()
    found.unlink()
    refused = stocked.isula("save", "-o", str(path), "app:1")
    assert refused.code == 1
    assert "file app of the layer was changed" in refused.err
    # the other layers are well
    stocked.ok("save", "-o", str(path), "other:1")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_save_that_is_broken_off_leaves_nothing(
    make_engine: Callable[..., Engine], tmp_path: Path, number: int
) -> None:
    engine = make_engine(load=False)
    layer = FakeLayer.of({"large": os.urandom(60 << 20)})
    load(engine, docker_archive({"large:1": make_image([layer], platform=HERE)}))
    folder = tmp_path / "out"
    folder.mkdir()
    client = engine.popen("save", "-o", str(folder / "large.tar"), "large:1")
    until(lambda: any(path.stat().st_size for path in folder.iterdir()), "the first bytes")
    client.send_signal(signal.SIGSTOP)
    assert engine.pid
    client.send_signal(number)
    client.send_signal(signal.SIGCONT)
    assert client.wait() in (130, 128 + number, -number)
    assert list(folder.iterdir()) == []
    # and the engine's worker has ended, so that the image can go
    until(lambda: engine.isula("rmi", "large:1").code == 0, "the image removed")


def test_standard_output(stocked: Engine, tmp_path: Path) -> None:
    done = subprocess.run(
        [program("isula"), "save", "app:1"],
        env=stocked.client_env,
        capture_output=True,
        check=True,
    )
    assert "manifest.json" in names_in(io.BytesIO(done.stdout))
    stocked.ok("rmi", "app:1")
    assert load(stocked, done.stdout) == "Loaded image: app:1"


@pytest.mark.parametrize("state", ["created", "running", "stopped"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_export_import_run(
    make_engine: Callable[..., Engine], tmp_path: Path, driver: str, state: str
) -> None:
    engine = make_engine("--storage-driver", driver)
    script = "echo mine >/etc/own; rm /bin/vi; ln /etc/own /etc/second; chown 5:6 /etc/own; "
    words = ("--name", "web", "busybox", "sh", "-c")
    if state == "created":
        engine.ok("create", *words, "true")
    else:
        engine.ok("run", "-d", *words, f"{script} touch /done; test {state} = stopped || sleep 600")
        until(lambda: engine.isula("exec", "web", "test", "-e", "/done").code != 1, "the files")
        if state == "stopped":
            engine.ok("wait", "web")
    path = tmp_path / "rootfs.tar"
    assert engine.ok("export", "-o", str(path), "web") == ""
    mounts = [place for place in engine.mounts() if place.endswith("/merged")]
    assert len(mounts) == (1 if (state, driver) == ("running", "overlay") else 0)
    with tarfile.open(path) as archive:
        members = {member.name: member for member in archive}
    assert "bin/busybox" in members
    if state != "created":
        assert "bin/vi" not in members
        assert (members["etc/own"].uid, members["etc/own"].gid) == (5, 6)
        assert members["etc/second"].linkname == "etc/own"
    engine.ok("import", str(path), "again:1")
    own = engine.isula("run", "--rm", "again:1", "cat", "/etc/own")
    assert own.out == ("" if state == "created" else "mine\n")
    assert engine.ok("run", "--rm", "again:1", "echo", "runs") == "runs"
    if state == "running":
        engine.ok("exec", "web", "true")
    else:
        engine.ok("start", "web")
    engine.ok("rm", "-f", "web")


def test_export_to_standard_output_and_its_refusals(engine: Engine, tmp_path: Path) -> None:
    engine.ok("create", "--name", "web", "busybox", "true")
    done = subprocess.run(
        [program("isula"), "export", "web"], env=engine.client_env, capture_output=True, check=True
    )
    assert "bin/busybox" in names_in(io.BytesIO(done.stdout))
    for words, text in (
        (("-o", str(tmp_path / "no" / "such.tar"), "web"), "No such file or directory"),
        (("-o", str(tmp_path), "web"), "Is a directory"),
        (("-o", str(tmp_path / "x.tar"), "nosuch"), "nosuch"),
    ):
        refused = engine.isula("export", *words)
        assert refused.code not in (0, 2)
        assert text in refused.err
    assert os.listdir(tmp_path) == []


def test_export_of_an_external_root(engine: Engine, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "sh").write_bytes(b"#!")
    engine.ok("create", "--name", "web", "--external-rootfs", str(root), "none", "sh")
    engine.ok("export", "-o", str(tmp_path / "x.tar"), "web")
    assert "bin/sh" in names_in(tmp_path / "x.tar")


def test_layers_from_before_recipes(stocked: Engine, tmp_path: Path) -> None:
    from isula_edge.store import schema
    from isula_edge.store.records import RecordStore, write_record

    stocked.stop()
    store = RecordStore(f"{stocked.graph}/layers", "layer", f"{stocked.graph}/quarantine")
    current = schema.CURRENT["layer"]
    for key, record in list(store.load()):
        del record["recipe"]
        schema.CURRENT["layer"] = 1
        try:
            write_record(store.path(key), "layer", record)
        finally:
            schema.CURRENT["layer"] = current
    for path in (stocked.graph / "storage" / "overlay").glob("*.recipe"):
        path.unlink()
    stocked.start()
    assert stocked.isula("run", "--rm", "app:1", "x").code == 127
    refused = stocked.isula("save", "-o", str(tmp_path / "x.tar"), "app:1")
    assert refused.code == 1
    assert "kept no recipes" in refused.err
    assert "pull or load them again" in refused.err
    stocked.ok("rmi", "app:1", "app:stable", "base:1", "other:1")
    assert os.listdir(stocked.graph / "storage" / "overlay") == ["rw"]


def test_a_container_that_is_removed_while_it_is_exported(
    make_engine: Callable[..., Engine], tmp_path: Path
) -> None:
    engine = make_engine()
    engine.ok("create", "--name", "web", "busybox", "true")
    rootfs = engine.graph / "storage" / "overlay" / "rw" / engine.inspect("web")["Id"] / "diff"
    (rootfs / "large").write_bytes(bytes(60 << 20))
    folder = tmp_path / "out"
    folder.mkdir()
    client = engine.popen("export", "-o", str(folder / "x.tar"), "web", stderr=subprocess.PIPE)
    until(lambda: any(path.stat().st_size for path in folder.iterdir()), "the first bytes")
    client.send_signal(signal.SIGSTOP)
    engine.ok("rm", "web")
    client.send_signal(signal.SIGCONT)
    _, err = client.communicate()
    assert client.returncode == 125
    assert b"container web was removed while it was exported" in err
    assert list(folder.iterdir()) == []
    assert os.listdir(rootfs.parents[1]) == []
