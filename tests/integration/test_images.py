"""Images as a user handles them: registry, archives, import, tags, removal."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.images import FakeLayer, docker_archive, make_image
from tests.rig import children, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.conftest import Pulling
    from tests.rig import Engine

pytestmark = [pytest.mark.root, pytest.mark.lxc]


def test_pull_run_remove(pulling: Pulling, runtime: str) -> None:
    engine, name = pulling.engine, "127.0.0.1:5000/busybox:latest"
    result = engine.isula("pull", name)
    assert (result.code, result.out) == (0, "")
    lines = result.err.splitlines()
    assert (lines[0], lines[-1]) == (f'Image "{name}" pulling', f'Image "{name}" pulled')
    image = engine.image(name)
    assert engine.ok("images", "-q") == image["id"][:12]
    assert engine.ok("run", "--rm", "--runtime", runtime, name, "echo", "hello") == "hello"
    # what is there is not fetched again: the registry may be gone
    digest = image["repo_digests"][0]
    assert digest.startswith("127.0.0.1:5000/busybox@sha256:")
    engine.ok("rmi", name)
    assert engine.ok("images", "-q") == ""
    assert os.listdir(engine.graph / "storage" / "overlay") == ["rw"]
    engine.ok("pull", digest)
    assert engine.ok("run", "--rm", digest, "echo", "by digest") == "by digest"


def test_run_pulls_what_is_missing(pulling: Pulling) -> None:
    result = pulling.engine.isula("run", "--rm", "127.0.0.1:5000/busybox", "echo", "there")
    assert (result.code, result.out) == (0, "there\n")
    assert "127.0.0.1:5000/busybox" in result.err
    pulling.down()
    refused = pulling.engine.isula("run", "--pull", "always", "--rm", "127.0.0.1:5000/busybox")
    assert refused.code == 125


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("127.0.0.1:5000/busybox:nosuch", 1, ("127.0.0.1:5000/busybox:nosuch", "not found")),
        ("127.0.0.1:5000/nosuch:latest", 1, ("127.0.0.1:5000/nosuch:latest", "not found")),
        ("127.0.0.1:5000/UPPER", 125, ("127.0.0.1:5000/UPPER",)),
        ("busybox@sha256:12", 125, ("busybox@sha256:12",)),
        ("127.0.0.1:9/busybox", 1, ("127.0.0.1:9",)),
    ],
)
def test_what_cannot_be_pulled(
    pulling: Pulling, name: str, code: int, words: tuple[str, ...]
) -> None:
    result = pulling.engine.isula("pull", name)
    assert result.code == code
    for word in words:
        assert word in result.err
    assert pulling.engine.ok("images", "-q") == ""
    assert os.listdir(pulling.engine.graph / "tmp") == []


def test_an_image_of_another_architecture(pulling: Pulling) -> None:
    engine, other = pulling.engine, {"x86_64": "arm64", "aarch64": "amd64"}[os.uname().machine]
    name = "127.0.0.1:5000/busybox:latest"
    engine.ok("pull", "--platform", f"linux/{other}", name)
    assert engine.image(name)["architecture"] == other
    engine.ok("rmi", name)
    refused = engine.isula("pull", "--platform", "linux/mips", name)
    assert refused.code == 1
    assert "linux/mips" in refused.err
    assert "linux/amd64" in refused.err


def test_a_mirror_is_asked_first(pulling: Pulling) -> None:
    engine = pulling.engine
    engine.configure(
        {"registry-mirrors": ["http://127.0.0.1:5000"], "insecure-registries": ["127.0.0.1:5000"]}
    )
    # names without a host are those of Docker's hub, where official images are in library/
    subprocess.run(
        [
            *(*engine.network.prefix, "skopeo", "--insecure-policy", "copy", "-q", "--all"),
            *("--src-tls-verify=false", "--dest-tls-verify=false"),
            "docker://127.0.0.1:5000/busybox:latest",
            "docker://127.0.0.1:5000/library/busybox:latest",
        ],
        check=True,
    )
    assert engine.process is not None
    engine.process.send_signal(signal.SIGHUP)
    until(lambda: "read again" in engine.log_text(), "the settings read again")
    engine.ok("pull", "busybox")
    assert engine.image("busybox")["repo_tags"] == ["busybox:latest"]


def test_load_of_both_archives_and_of_standard_input(
    make_engine: Callable[..., Engine], images: Path
) -> None:
    engine = make_engine(load=False)
    assert "busybox:latest" in engine.ok("load", "-i", str(images / "docker.tar"))
    assert engine.ok("run", "--rm", "busybox", "echo", "docker") == "docker"
    engine.ok("rmi", "busybox")
    # the names in the layout are tags alone, so its images have none
    found = engine.ok("load", "-i", str(images / "oci.tar")).splitlines()
    image = found[0].removeprefix("Loaded image: ")
    assert engine.ok("run", "--rm", image, "echo", "oci") == "oci"
    engine.ok("rmi", image)
    engine.ok("load", "-i", "-", stdin=(images / "docker.tar").read_bytes())
    assert engine.ok("run", "--rm", "busybox", "echo", "stdin") == "stdin"


def test_load_under_another_name(engine: Engine, images: Path) -> None:
    engine.ok("load", "-i", str(images / "docker.tar"), "--tag", "own/name:v1")
    assert engine.ok("run", "--rm", "own/name:v1", "echo", "named") == "named"
    engine.ok("rmi", "own/name:v1")


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"", "is empty"), (b"no archive at all", "manifest.json"), (b"\0" * 10240, "manifest.json")],
)
def test_a_bad_archive_is_refused_by_name(
    engine: Engine, tmp_path: Path, content: bytes, word: str
) -> None:
    file = tmp_path / "bad.tar"
    file.write_bytes(content)
    before = engine.ok("images", "-q", "--no-trunc")
    result = engine.isula("load", "-i", str(file))
    assert result.code == 125
    assert word in result.err
    assert engine.ok("images", "-q", "--no-trunc") == before
    assert os.listdir(engine.graph / "tmp") == []


def test_a_layer_that_is_not_what_its_config_says_is_refused(
    engine: Engine, tmp_path: Path
) -> None:
    image = make_image([FakeLayer.of({"etc/file": b"content"})])
    data = docker_archive({"evil:latest": image})
    out = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(data)) as source,
        tarfile.open(fileobj=out, mode="w") as target,
    ):
        for member in source:
            body = source.extractfile(member)
            content = body.read() if body else b""
            if b"content" in content:
                content = content.replace(b"content", b"CONTENT")
            member.size = len(content)
            target.addfile(member, io.BytesIO(content))
    file = tmp_path / "evil.tar"
    file.write_bytes(out.getvalue())
    if b"CONTENT" not in out.getvalue():
        pytest.fail("the layer was not changed: the archive compresses it")
    result = engine.isula("load", "-i", str(file))
    assert result.code == 1
    assert "sha256:" in result.err
    assert "evil" not in engine.ok("images")


def test_import_of_a_root_file_system(engine: Engine, tmp_path: Path, runtime: str) -> None:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "sh").write_bytes(Path("/bin/busybox").read_bytes())
    (root / "bin" / "sh").chmod(0o755)
    archive = tmp_path / "root.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(root, ".")
    image = engine.ok("import", str(archive), "imported:one")
    assert image == engine.image("imported:one")["id"]
    assert (
        engine.ok("run", "--rm", "--runtime", runtime, "imported:one", "/bin/sh", "-c", "echo in")
        == "in"
    )
    engine.ok("rmi", "imported:one")


def test_tags_come_and_go_with_the_image(engine: Engine) -> None:
    engine.ok("tag", "busybox", "one:two")
    assert engine.image("one:two")["id"] == engine.image("busybox")["id"]
    assert engine.ok("rmi", "one:two")
    assert engine.isula("inspect", "one:two").code != 0
    assert engine.ok("run", "--rm", "busybox", "echo", "kept") == "kept"
    result = engine.isula("rmi", "one:two")
    assert result.code == 1
    assert "one:two" in result.err


def test_an_image_in_use_is_not_removed_and_nothing_changes(engine: Engine) -> None:
    container = engine.ok("create", "busybox", "true")
    before = engine.ok("images", "--no-trunc"), engine.ok("inspect", "busybox")
    result = engine.isula("rmi", "busybox")
    assert result.code == 1
    assert container in result.err
    assert (engine.ok("images", "--no-trunc"), engine.ok("inspect", "busybox")) == before


def test_an_unknown_image_is_named(engine: Engine) -> None:
    result = engine.isula("run", "--pull", "never", "--rm", "nosuch:v9", "true")
    assert result.code == 125
    assert "nosuch:v9" in result.err


def test_the_copying_driver_does_the_same(
    make_engine: Callable[..., Engine], images: Path, runtime: str
) -> None:
    engine = make_engine("--storage-driver", "vfs")
    engine.ok("run", "-d", "--name", "vfs", "--runtime", runtime, "busybox", "sleep", "1000")
    assert engine.inspect("vfs")["GraphDriver"]["Name"] == "vfs"
    engine.ok("exec", "vfs", "sh", "-c", "echo changed >/etc/passwd")
    assert "root" in engine.ok("run", "--rm", "--runtime", runtime, "busybox", "cat", "/etc/passwd")
    engine.ok("rm", "-f", "vfs")
    assert os.listdir(engine.graph / "storage" / "vfs" / "rw") == []


def test_a_digest_and_a_tag_are_removed_one_after_the_other(pulling: Pulling) -> None:
    engine, name = pulling.engine, "127.0.0.1:5000/busybox:latest"
    engine.ok("pull", name)
    digest = engine.image(name)["repo_digests"][0]
    engine.ok("rmi", digest)
    assert engine.isula("inspect", digest).code == 1
    assert engine.ok("run", "--rm", name, "echo", "still") == "still"
    engine.ok("rmi", name)
    assert engine.ok("images", "-q") == ""


def test_loads_of_one_image_at_once(make_engine: Callable[..., Engine], images: Path) -> None:
    engine = make_engine(load=False)
    for _ in range(3):
        words = ("load", "-i", str(images / "docker.tar"))
        clients = [
            engine.popen(*words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            for _ in range(6)
        ]
        found = [client.communicate(timeout=60)[1] for client in clients]
        assert [client.returncode for client in clients] == [0] * 6, found
        assert engine.ok("run", "--rm", "busybox", "echo", "whole") == "whole"
        assert len(os.listdir(engine.graph / "layers")) == 1
        engine.ok("rmi", "busybox")
        assert os.listdir(engine.graph / "layers") == []
        assert os.listdir(engine.graph / "storage" / "overlay") == ["rw"]


def test_two_pulls_at_once_are_one(pulling: Pulling) -> None:
    words = ("pull", "127.0.0.1:5000/busybox:latest")
    clients = [pulling.engine.popen(*words, stdout=subprocess.DEVNULL) for _ in range(3)]
    assert [client.wait(60) for client in clients] == [0, 0, 0]
    assert len(pulling.engine.ok("images", "-q").split()) == 1


def test_a_registry_that_does_not_answer_is_given_up_when_the_client_leaves(
    make_engine: Callable[..., Engine],
) -> None:
    engine = make_engine(load=False)
    # a socket that accepts and says nothing, made inside the engine's namespace
    code = (
        "import socket; s = socket.create_server(('127.0.0.1', 5001)); print(flush=True); "
        "c = s.accept(); print(flush=True); c[0].recv(1 << 16); c[0].recv(1)"
    )
    silent = subprocess.Popen(
        [*engine.network.prefix, sys.executable, "-c", code], stdout=subprocess.PIPE
    )
    try:
        assert silent.stdout is not None
        silent.stdout.readline()
        client = engine.popen("pull", "127.0.0.1:5001/busybox", stderr=subprocess.DEVNULL)
        silent.stdout.readline()
        assert len(children(engine.pid)) == 1
        client.send_signal(signal.SIGINT)
        assert client.wait(30) != 0
        until(lambda: not children(engine.pid), "the pull given up")
        assert os.listdir(engine.graph / "tmp") == []
    finally:
        silent.kill()
        silent.communicate()


def test_names_of_the_network_do_not_leak() -> None:
    """The registry of these tests lives in namespaces: none on the machine's own lo."""
    with socket.socket() as probe:
        probe.settimeout(1)
        assert probe.connect_ex(("127.0.0.1", 5000)) != 0
