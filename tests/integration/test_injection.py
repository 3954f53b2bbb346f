"""What users give is what containers see, whatever is in it, on real runtimes.

tests/unit/runtime/test_injection.py has every value; here are those that a container can show.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge.oci.options import Settings
from tests.fakes.documents import Documents
from tests.fakes.driven import EngineFailure
from tests.integration.staging import driven
from tests.unit.runtime.test_injection import NASTY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.rig import Engine

pytestmark = [pytest.mark.root, pytest.mark.lxc]

# a path component: no longer than a file system takes
TEXTS = {kind: text[:200] if kind == "long" else text for kind, text in NASTY.items()}
HEX = "od -An -v -tx1 | tr -d ' \\n'"


@pytest.fixture(scope="module")
def shared(images: Path) -> Iterator[Documents]:
    with driven(images, "overlay", Documents) as engine:
        yield engine


@pytest.fixture
def engine(shared: Documents) -> Iterator[Documents]:
    yield shared
    shared.patch({})
    shared.ask("clear")


def env(text: str, _folder: Path) -> dict[str, Any]:
    return {"patch": {"process": {"env": ["PATH=/bin", f"A={text}"]}}}


def argument(text: str, _folder: Path) -> dict[str, Any]:
    script = f'printf %s "$1" | {HEX}'
    return {"patch": {"process": {"args": ["sh", "-c", script, "sh", text]}}}


def hostname(text: str, _folder: Path) -> dict[str, Any]:
    return {"patch": {"hostname": text}}


def domainname(text: str, _folder: Path) -> dict[str, Any]:
    return {"patch": {"domainname": text}}


def directory(text: str, _folder: Path) -> dict[str, Any]:
    mount = {"destination": f"/{text}", "type": "tmpfs", "source": "x", "options": []}
    return {"patch": {"process": {"cwd": f"/{text}"}}, "mounts": [mount]}


def source(text: str, folder: Path) -> dict[str, Any]:
    if "\0" not in text and len(text) < 255:
        place = f"{folder}/{text.replace('/', '_')}"
        os.mkdir(place)
        Path(f"{place}/f").write_bytes(os.fsencode(text))
    else:
        place = f"{folder}/{text}"
    mount = {"destination": "/s", "type": "bind", "source": place, "options": ["rbind", "ro"]}
    return {"mounts": [mount]}


# what is set, and how the container shows the bytes
SEEN: dict[str, tuple[Callable[[str, Path], dict[str, Any]], str]] = {
    "env": (env, f'printf %s "$A" | {HEX}'),
    "argument": (argument, ""),
    "hostname": (hostname, f"printf %s \"$(hostname; echo .)\" | {HEX}"),
    "domainname": (domainname, f'cat /proc/sys/kernel/domainname | {HEX}'),
    "directory": (directory, f'pwd | {HEX}'),
    "source": (source, f"cat /s/f | {HEX}"),
}  # fmt: skip
AROUND = {"hostname": ("", "\n."), "domainname": ("", "\n"), "directory": ("/", "\n")}


# runc 1.1 knows nothing of a domain name, see docs/runtimes.md
PAIRS = [
    (runtime, name)
    for runtime in ("lxc", "runc")
    for name in SEEN
    if (runtime, name) != ("runc", "domainname")
]


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize(("runtime", "name"), PAIRS)
def test_a_container_sees_what_was_given(
    engine: Documents, runtime: str, tmp_path: Path, name: str, kind: str
) -> None:
    text = TEXTS[kind]
    if name == "directory":
        text = text.replace("/", "_")
    build, script = SEEN[name]
    engine.patch(**{"patch": {}, **build(text, tmp_path)})
    before, after = AROUND.get(name, ("", ""))
    try:
        lines = engine.output(Settings(), script, runtime)
    except EngineFailure as error:
        refused = str(error)
    else:
        assert bytes.fromhex("".join(lines)) == os.fsencode(before + text + after)
        return
    assert refused
    assert not Path("/evil").exists()


BYTES = "a\udcff\udc80"


@pytest.fixture
def isula(make_engine: Callable[..., Engine]) -> Engine:
    return make_engine()


def test_bytes_that_no_record_can_hold(isula: Engine, runtime: str) -> None:
    """They came by the command line, as the bytes that they are."""
    for words in (
        ("busybox", "printf", BYTES),
        ("-e", f"A={BYTES}", "busybox", "true"),
        ("-v", f"/usr:/{BYTES}", "busybox", "true"),
        ("--label", BYTES, "busybox", "true"),
    ):
        result = isula.isula("run", "--rm", "--runtime", runtime, *words)
        assert result.code == 125
        assert "has bytes that are no UTF-8" in result.err
    assert isula.ok("ps", "-aq") == ""
    isula.ok("run", "-d", "--runtime", runtime, "--name", "box", "busybox", "sleep", "1000")
    script = f'printf %s "$1" | {HEX}'
    result = isula.isula("exec", "box", "sh", "-c", script, "sh", BYTES)
    if runtime == "lxc":
        assert result.out == os.fsencode(BYTES).hex()
    else:
        assert "the command: 'a\\udcff\\udc80' has bytes that are no UTF-8" in result.err
        assert result.code == 125
