"""Several registries around a real engine: mirrors that are down, old ones, tags, search."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.images import FakeLayer, make_image
from tests.fakes.registry import FakeRegistry
from tests.fakes.schema1 import EMPTY, MEDIA_TYPE, make_old
from tests.rig import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.rig import Engine

pytestmark = pytest.mark.root


class Broken:
    """A server that hangs up on everybody, and counts them."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.calls = 0
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.calls += 1
            connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def engine(make_engine: Callable[..., Engine]) -> Engine:
    """An engine without images."""
    return make_engine(load=False)


@pytest.fixture
def registry(engine: Engine) -> Iterator[FakeRegistry]:
    """A registry that the engine can reach."""
    with engine.network.make(FakeRegistry) as found:
        yield found


def reload(engine: Engine, **config: Any) -> None:
    """Gives the engine new settings; they are in force when this returns."""
    written = engine.log_text().count("settings")
    engine.configure(config)
    os.kill(engine.pid, signal.SIGHUP)
    until(lambda: engine.log_text().count("settings") > written, "the reload")


def small(text: str) -> Any:
    return make_image([FakeLayer.of({"text": text.encode()})])


def test_a_mirror_that_is_down_is_asked_once(engine: Engine, registry: FakeRegistry) -> None:
    for name in ("one", "two", "three"):
        registry.add(f"a/{name}", "latest", small(name))
    broken = engine.network.make(Broken)
    try:
        config = {"registry-mirrors": [f"http://{broken.host}", registry.url]}
        reload(engine, **config)
        engine.ok("pull", "a/one")
        calls = broken.calls
        assert calls > 0
        engine.ok("pull", "a/two")
        assert broken.calls == calls
        # the error names every place
        result = engine.isula("pull", "a/none")
        assert result.code == 1
        assert "Image not found in registry: a/none:latest" in result.err
        # new settings forget
        calls = broken.calls
        reload(engine, **config)
        engine.ok("pull", "a/three")
        assert broken.calls > calls
    finally:
        broken.close()


def test_mirrors_of_one_host(engine: Engine, registry: FakeRegistry) -> None:
    registry.add("library/name", "latest", small("x"))
    reload(engine, **{"registry-host-mirrors": {"docker.io": [registry.url]}})
    engine.ok("pull", "docker.io/name")
    assert engine.image("name")["repo_tags"] == ["name:latest"]
    reload(engine)
    registry.forget()
    engine.isula("pull", "localhost:1/name")
    assert registry.requests == []


def test_every_tag(engine: Engine, registry: FakeRegistry) -> None:
    registry.faults.page = 2
    for number in range(5):
        registry.add("a/b", f"v{number}", small(str(number)))
    registry.put_manifest("a/b", "signature", b'{"mediaType": "application/x"}', "application/x")
    name = f"{registry.host}/a/b"
    result = engine.isula("pull", "-a", "-q", name)
    assert result.code == 0, result
    assert result.lines == [f"{name}:v{number}" for number in range(5)]
    assert f'Image "{name}:signature" skipped: ' in result.err
    assert len(engine.ok("images", "-q").splitlines()) == 5
    assert engine.isula("pull", "-a", f"{name}:v1").code == 125
    events = engine.ok("events", "--until", "0s", "--since", "1h")
    assert events.count("image pull") == 5


@pytest.mark.lxc
def test_an_image_of_schema_1_runs(engine: Engine, registry: FakeRegistry, images: Path) -> None:
    """Busybox as a registry of 2015 would give it."""
    registry.add_layout("new/busybox", str(images / "oci"))
    found = registry.manifest("new/busybox", "latest")
    assert found is not None
    manifest = json.loads(found[0])
    if "manifests" in manifest:
        digest = manifest["manifests"][0]["digest"]
        found = registry.manifest("new/busybox", digest)
        assert found is not None
        manifest = json.loads(found[0])
    layers = [_blob(registry, item["digest"]) for item in manifest["layers"]]
    old = make_old([*layers, EMPTY], {len(layers): {"config": {"Cmd": ["echo", "old"]}}})
    registry.put_manifest("old/busybox", "latest", old.data, MEDIA_TYPE, old.digest)
    name = f"{registry.host}/old/busybox"
    assert engine.ok("run", "--rm", name) == "old"
    assert engine.image(name)["repo_digests"] == [f"{name}@{old.digest}"]
    assert engine.ok("run", "--rm", f"{name}@{old.digest}", "echo", "again") == "again"


def _blob(registry: FakeRegistry, digest: str) -> FakeLayer:
    content = registry.blob(digest)
    if isinstance(content, str):
        with open(content, "rb") as file:
            content = file.read()
    assert content is not None
    found = FakeLayer(b"", content)
    assert found.digest == digest
    return found


def test_search(engine: Engine, registry: FakeRegistry) -> None:
    results = [
        {"name": "box", "description": "A box.", "star_count": 12, "is_official": True},
        {"name": "me/box", "description": "", "star_count": 1, "is_automated": True},
    ]
    registry.put_document("/v1/search", json.dumps({"results": results}).encode())
    result = engine.isula("search", "box")
    assert result.code == 125
    assert "no registry to search" in result.err
    lines = engine.ok("search", f"{registry.host}/box").splitlines()
    assert [line.split() for line in lines] == [
        ["NAME", "DESCRIPTION", "STARS", "OFFICIAL", "AUTOMATED"],
        ["box", "A", "box.", "12", "[OK]"],
        ["me/box", "1", "[OK]"],
    ]
    reload(engine, **{"registry-mirrors": [registry.url]})
    words = ("search", "--filter", "stars=5", "--format", "{{.Name}}", "box")
    assert engine.ok(*words) == "box"
    assert engine.isula("search", "-f", "color=red", "box").code == 125
