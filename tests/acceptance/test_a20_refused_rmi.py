"""Case A20: a refused rmi changes nothing; a forced one takes names, not what containers need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.conftest import Pulling
    from tests.rig import Engine

pytestmark = [pytest.mark.root, pytest.mark.lxc]
pytest_plugins = ["tests.integration.conftest"]


def everything(engine: Engine, *names: str) -> list[object]:
    """All that can be seen of images and containers, and the bytes of their records."""
    records = {
        str(path): path.read_bytes()
        for folder in ("images", "layers")
        for path in (engine.graph / folder).iterdir()
    }
    shown = [
        engine.ok("images", "--no-trunc", "--digests"),
        engine.ok("ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Image}} {{.Names}}"),
        *(engine.ok("inspect", name) for name in names),
    ]
    return [*shown, records]


@pytest.mark.parametrize("running", [True, False])
def test_a_refused_rmi_changes_nothing(pulling: Pulling, running: bool) -> None:
    engine, name = pulling.engine, "127.0.0.1:5000/busybox:latest"
    engine.ok("pull", name)
    image = engine.image(name)["id"]
    if running:
        container = engine.ok("run", "-d", "--name", "web", name, "sleep", "1000")
    else:
        container = engine.ok("create", "--name", "web", name, "sleep", "1000")
    before = everything(engine, name, "web")
    for ref in (name, image, image[:12]):
        result = engine.isula("rmi", ref)
        assert result.code == 1
        assert result.err.startswith(f"Error response from daemon: Image used by {container}")
        assert everything(engine, name, "web") == before
    # with a second name the id is refused just as much, and both names stay
    engine.ok("tag", name, "second:v1")
    before = everything(engine, name, "second:v1", "web")
    assert engine.isula("rmi", image).code == 1
    assert everything(engine, name, "second:v1", "web") == before


@pytest.mark.parametrize("by", ["name", "id"])
def test_a_forced_one_untags_and_the_container_starts_again(
    make_engine: Callable[..., Engine], by: str
) -> None:
    engine = make_engine()
    image = engine.image("busybox")["id"]
    engine.ok("tag", "busybox", "second:v1")
    engine.ok("run", "--name", "web", "busybox", "echo", "hello")
    if by == "name":
        engine.ok("rmi", "-f", "busybox")
        assert engine.isula("inspect", "busybox").code == 1
        assert engine.image("second:v1")["id"] == image
        engine.ok("rmi", "-f", "second:v1")
    else:
        engine.ok("rmi", "-f", image)
    for name in ("busybox", "second:v1"):
        assert engine.isula("inspect", name).code == 1
    for _ in range(2):
        assert engine.ok("start", "-a", "web") == "hello"
        assert engine.ok("system", "check")
        engine.restart()
    # it is there without a name until nothing needs it
    assert image[:12] in engine.ok("images")
    engine.ok("rm", "web")
    engine.ok("rmi", image)
    assert engine.ok("images", "-q") == ""
    assert [path.name for path in (engine.graph / "layers").iterdir()] == []


def test_a_forced_one_removes_what_nobody_uses(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine()
    engine.ok("rmi", "-f", "busybox")
    assert engine.ok("images", "-q") == ""
    assert engine.isula("rmi", "-f", "busybox").code == 1
