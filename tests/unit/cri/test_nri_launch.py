"""Plugins that are installed: which are found, how they are started, and that they end."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

import pytest

from isula_cri.nri import Nri
from isula_cri.nri.launch import find
from isula_edge.sys.process import Identity, Reaper, identify
from tests.fakes.nri import POD, FakeView, soon

if TYPE_CHECKING:
    from pathlib import Path


PROGRAM = f"""#!{sys.executable}
import asyncio, json, os, socket, sys
sys.path[:0] = {[entry for entry in sys.path if entry]!r}
from tests.fakes.nri import Plugin

def note(name, value):
    place = os.path.join(os.path.dirname(sys.argv[0]), "..", name)
    with open(place + ".new", "w") as file:
        json.dump(value, file)
    os.rename(place + ".new", place)

def configure(request):
    note("configured", request.config)

async def main():
    note("started", [dict(os.environ), os.getpid(), sorted(os.listdir("/proc/self/fd"))])
    sock = socket.socket(fileno=int(os.environ["NRI_PLUGIN_SOCKET"]))
    plugin = Plugin(await asyncio.open_unix_connection(sock=sock), {{"Configure": configure}})
    await plugin.register("said", "99")
    await asyncio.Event().wait()

asyncio.run(main())
"""


def install(path: Path, name: str, text: str = "#!/bin/sh\n", mode: int = 0o755) -> None:
    file = path / "plugins" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    file.chmod(mode)


def run(path: Path) -> tuple[list[str], Identity | None]:
    """The plugins of an engine that is started and closed again, and the first one's process."""

    async def main() -> tuple[list[str], Identity | None]:
        reaper = Reaper()
        reaper.install()
        nri = Nri(
            "",
            FakeView(),
            plugin_dir=str(path / "plugins"),
            config_dir=str(path / "conf.d"),
            reaper=reaper,
            registration_s=30,
        )
        await nri.start()
        plugins, process = nri.plugins, None
        await nri.run_pod(POD)
        if (path / "started").exists():
            process = identify(json.loads((path / "started").read_text())[1])
        await nri.close()
        await soon(lambda: process is None or not process.alive(), "the process ends")
        return plugins, process

    return asyncio.run(main())


def test_the_plugins_that_are_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("20-b", "10-a", "30-c.sh", "nonsense", "1-a", "40-"):
        install(tmp_path, name)
    install(tmp_path, "50-data", mode=0o644)
    (tmp_path / "plugins" / "60-folder").mkdir()
    config = tmp_path / "conf.d"
    config.mkdir()
    (config / "a.conf").write_text("of a")
    (config / "b.conf").write_text("of every b")
    (config / "20-b.conf").write_text("of this b")
    (config / "c.sh.conf").write_bytes(b"\xff")
    found = find(str(tmp_path / "plugins"), str(config))
    assert [(item.index, item.name, item.config) for item in found] == [
        ("10", "a", "of a"),
        ("20", "b", "of this b"),
    ]
    assert found[0].path == str(tmp_path / "plugins" / "10-a")
    for name in ("nonsense", "1-a", "40-", "30-c.sh"):
        assert f"/{name} is left out" in caplog.text
    assert "data" not in caplog.text


def test_a_directory_that_is_not_there_or_no_directory(tmp_path: Path) -> None:
    assert find(str(tmp_path / "none"), str(tmp_path)) == []
    (tmp_path / "file").touch()
    assert find(str(tmp_path / "file"), str(tmp_path)) == []


def test_a_plugin_is_started_with_a_socket_and_ends_with_the_engine(tmp_path: Path) -> None:
    install(tmp_path, "07-inst", PROGRAM)
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "inst.conf").write_text("a: b")
    plugins, process = run(tmp_path)
    assert plugins == ["07-inst"]  # not what it says itself
    assert process is not None
    env, _, fds = json.loads((tmp_path / "started").read_text())
    assert json.loads((tmp_path / "configured").read_text()) == "a: b"
    assert env["NRI_PLUGIN_NAME"] == "inst"
    assert env["NRI_PLUGIN_IDX"] == "07"
    assert {"0", "1", "2", env["NRI_PLUGIN_SOCKET"]} <= set(fds)
    assert "HOME" not in env


@pytest.mark.native  # under qemu-user execve(2) of what is no program succeeds
def test_plugins_that_do_not_start_keep_nothing_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install(tmp_path, "01-gone", "#!/no/such/interpreter\n")
    install(tmp_path, "02-short", "#!/bin/sh\nexit 3\n")
    install(tmp_path, "03-good", PROGRAM)
    plugins, _ = run(tmp_path)
    assert plugins == ["03-good"]
    assert "01-gone cannot be started" in caplog.text
    assert "02-short is refused: it hung up before it registered" in caplog.text
