"""``system check``: what is damaged is found by name, and repaired where that is possible."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.rig import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.conftest import Pulling
    from tests.rig import Engine

pytestmark = [pytest.mark.root, pytest.mark.lxc]
NAME = "127.0.0.1:5000/busybox:latest"


def check(engine: Engine, *words: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit status and problems."""
    result = engine.isula("system", "check", "--format", "json", *words)
    assert result.out, result
    return result.code, json.loads(result.out)["problems"]


def trees(engine: Engine) -> list[Path]:
    """Trees of layers."""
    (home,) = (engine.graph / "storage").iterdir()
    return [path for path in home.iterdir() if path.is_dir() and path.name != "rw"]


def alter(engine: Engine) -> str:
    """Changes a byte of the passwd of the one layer that has it: the layer's directory."""
    (tree,) = [path for path in trees(engine) if (path / "etc/passwd").exists()]
    file = tree / "etc/passwd"
    data = file.read_bytes()
    file.write_bytes(data.replace(b"root", b"toor", 1))
    assert len(data) == file.stat().st_size
    return tree.name


def test_what_is_whole_is_said_to_be(pulling: Pulling) -> None:
    engine = pulling.engine
    engine.ok("pull", NAME)
    engine.ok("create", "--name", "web", NAME, "true")
    assert check(engine) == (0, [])
    assert check(engine, "--quick", "--repair") == (0, [])
    said = engine.ok("system", "check")
    assert said.startswith("Checked 1 images, ")
    assert said.endswith("1 containers: no problems")
    assert engine.isula("system", "check", "--format", "yaml").code == 1


def test_a_changed_file_is_found_and_the_layer_is_fetched_again(pulling: Pulling) -> None:
    engine = pulling.engine
    engine.ok("pull", NAME)
    engine.ok("tag", NAME, "second:v1")
    before = engine.ok("images", "--no-trunc", "--digests")
    layer = alter(engine)
    engine.ok("create", "--name", "web", NAME, "cat", "/etc/passwd")
    assert check(engine, "--quick") == (0, [])
    code, (problem,) = check(engine)
    assert code == 1
    assert problem["kind"] == "layer"
    assert problem["ref"].startswith(f"sha256:{layer}")
    assert NAME in problem["names"]
    assert problem["repaired"] == ""
    code, (problem,) = check(engine, "--repair")
    assert (code, problem["repaired"]) == (0, "fetched again")
    assert check(engine) == (0, [])
    assert engine.ok("images", "--no-trunc", "--digests") == before
    assert engine.ok("start", "-a", "web").startswith("root:")
    engine.ok("system", "prune", "-f")
    assert not (engine.graph / "quarantine").exists()


def test_what_a_running_container_needs_is_not_touched(pulling: Pulling) -> None:
    engine = pulling.engine
    engine.ok("pull", NAME)
    engine.ok("run", "-d", "--name", "web", NAME, "sleep", "1000")
    alter(engine)
    code, (problem,) = check(engine, "--repair")
    assert code == 1
    assert "container web runs on it" in problem["problem"]
    assert engine.ok("exec", "web", "cat", "/etc/passwd").startswith("toor:")
    engine.ok("rm", "-f", "web")
    assert check(engine, "--repair")[0] == 0


@pytest.mark.parametrize("lost", ["tree", "record"])
def test_a_layer_that_is_gone(pulling: Pulling, lost: str) -> None:
    engine = pulling.engine
    engine.ok("pull", NAME)
    layer = alter(engine)
    if lost == "tree":
        (tree,) = [path for path in trees(engine) if path.name == layer]
        shutil.rmtree(tree)
    else:
        (record,) = (engine.graph / "layers").glob(f"{layer}*")
        record.unlink()
        result = engine.isula("run", "--pull", "never", "--rm", NAME, "true")
        assert result.code == 125
        assert "isula system check --repair" in result.err
    code, (problem,) = check(engine, "--quick")
    assert code == 1
    assert lost in problem["problem"]
    code, (problem,) = check(engine, "--quick", "--repair")
    assert (code, problem["repaired"]) == (0, "fetched again")
    assert engine.ok("run", "--rm", NAME, "cat", "/etc/passwd").startswith("root:")
    assert check(engine) == (0, [])


def test_what_cannot_be_fetched_is_put_aside(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine()
    alter(engine)
    code, (problem,) = check(engine, "--repair")
    assert code == 1
    assert "put aside, and not fetched again" in problem["problem"]
    assert "busybox:latest" in problem["names"]
    result = engine.isula("create", "busybox", "true")
    assert result.code != 0
    assert "lacks its layer" in result.err
    assert (engine.graph / "quarantine").exists()


def test_loading_it_again_is_a_repair_too(make_engine: Callable[..., Engine], images: Path) -> None:
    engine = make_engine("--storage-driver", "vfs")
    alter(engine)
    assert check(engine, "--repair")[0] == 1
    engine.ok("load", "-i", str(images / "docker.tar"))
    assert check(engine) == (0, [])
    assert engine.ok("run", "--rm", "busybox", "cat", "/etc/passwd").startswith("root:")


def test_records_are_written_again(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine()
    engine.ok("create", "--name", "web", "busybox", "true")
    (image,) = (engine.graph / "images").iterdir()
    (container,) = (engine.graph / "engines").rglob("container.cbor")
    image.write_bytes(b"garbage")
    container.unlink()
    (engine.graph / "engine.cbor").write_bytes(b"")
    code, problems = check(engine)
    assert code == 1
    assert [problem["kind"] for problem in problems] == ["engine", "image", "container"]
    code, problems = check(engine, "--repair")
    assert code == 0
    assert {problem["repaired"] for problem in problems} == {"written again"}
    engine.restart()
    assert engine.ok("ps", "-a", "--format", "{{.Names}}") == "web"
    assert check(engine) == (0, [])


def test_strays_are_removed(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine()
    (home,) = (engine.graph / "storage").iterdir()
    for path in (home / "ingest-1/a", home / "f" / "a", home / "rw" / ("f" * 64)):
        path.mkdir(parents=True)
    code, problems = check(engine)
    assert code == 1
    assert {problem["kind"] for problem in problems} == {"stray"}
    assert len(problems) == 3
    code, problems = check(engine, "--repair")
    assert code == 0
    assert check(engine) == (0, [])


def test_layers_are_checked_after_an_unclean_end(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(config={"image-layer-check": True})
    engine.restart()
    alter(engine)
    # a clean end is trusted
    engine.stop()
    engine.start()
    assert "WARNING: layer" not in engine.isula("info").err
    engine.restart()
    until(lambda: "WARNING: layer" in engine.isula("info").err, "the layer being found")
    assert "busybox:latest" in engine.isula("info").err
    assert engine.isula("create", "busybox", "true").code != 0
