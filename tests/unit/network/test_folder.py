"""The directory of network configurations: what is taken from it, and when."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge.network.folder import ConfFolder
from isula_edge.sys.inotify import Watcher

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.fakes.cni import FakeCni

PLUGIN = {"type": "bridge"}


def put(folder: Path, file: str, /, **document: Any) -> Path:
    """A configuration file, written as an editor would."""
    path = folder / file
    path.write_text(json.dumps(document))
    return path


def names(folder: Path | ConfFolder) -> list[str]:
    conf = folder if isinstance(folder, ConfFolder) else ConfFolder(str(folder))
    return [network.name for network in conf.networks()]


def test_files_are_taken_in_the_order_of_their_names(tmp_path: Path) -> None:
    put(tmp_path, "30.json", name="c", **PLUGIN)
    put(tmp_path, "20.conflist", name="b", plugins=[PLUGIN])
    put(tmp_path, "10.conf", name="a", cniVersion="0.3.1", **PLUGIN)
    put(tmp_path, "05.txt", name="no", **PLUGIN)
    (tmp_path / "00.conf").mkdir()
    assert names(tmp_path) == ["a", "b", "c"]
    first = ConfFolder(str(tmp_path)).networks()[0]
    assert first.versions == ("0.3.1",)
    assert [plugin["type"] for plugin in first.plugins] == ["bridge"]
    assert first.pinned("0.3.1")["plugins"][0]["type"] == "bridge"


def test_a_network_without_name_has_that_of_its_file(tmp_path: Path) -> None:
    put(tmp_path, "10-mine.conf", **PLUGIN)
    put(tmp_path, "20-list.conflist", plugins=[PLUGIN])
    assert names(tmp_path) == ["10-mine", "20-list"]


def test_the_first_of_two_networks_of_a_name_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, "10.conf", name="a", type="first")
    put(tmp_path, "20.conf", name="a", type="second")
    (network,) = ConfFolder(str(tmp_path)).networks()
    assert network.plugins[0]["type"] == "first"
    assert "20.conf is not used" in caplog.text


def test_native_networks_are_marked(tmp_path: Path) -> None:
    put(tmp_path, "isulacni-x.conflist", name="x", plugins=[PLUGIN])
    put(tmp_path, "10.conf", name="a", **PLUGIN)
    networks = ConfFolder(str(tmp_path)).networks()
    assert [(network.name, network.native) for network in networks] == [("a", False), ("x", True)]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("a.conf", b""),
        ("a.conf", b"{"),
        ("a.conf", b"[1]"),
        ("a.conf", b"\xff\xfe"),
        ("a.conf", b'{"a":' * 100_000),
        ("a.conf", b'{"name": "a"}'),
        ("a.conf", b'{"name": "a", "plugins": [{"type": "bridge"}]}'),
        ("a.conf", b'{"name": "a", "type": ""}'),
        ("a.conf", b'{"name": "a", "type": "../sh"}'),
        ("a.conf", b'{"name": "a", "type": ".."}'),
        ("a.conf", b'{"name": "a/b", "type": "x"}'),
        ("a.conf", b'{"name": "a\\n", "type": "x"}'),
        ("a.conf", b'{"name": "-a", "type": "x"}'),
        ("a.conf", b'{"name": 7, "type": "x"}'),
        ("a.conf", b'{"name": "' + b"a" * 151 + b'", "type": "x"}'),
        ("a.conf", b'{"name": "a", "type": "x", "cniVersion": 1}'),
        ("a.conf", b'{"name": "a", "type": "x", "cniVersion": "1"}'),
        ("a.conf", b'{"name": "a", "type": "x", "cniVersion": "2.0.0"}'),
        ("a.conflist", b'{"name": "a"}'),
        ("a.conflist", b'{"name": "a", "plugins": []}'),
        ("a.conflist", b'{"name": "a", "plugins": {}}'),
        ("a.conflist", b'{"name": "a", "plugins": [1]}'),
        ("a.conflist", b'{"name": "a", "plugins": [{}]}'),
        ("a.conflist", b'{"name": "a", "plugins": [{"type": "x"}], "disableCheck": 1}'),
        ("a.conflist", b'{"name": "a", "plugins": [{"type": "x"}], "cniVersions": "1.0.0"}'),
        ("a.conflist", b'{"name": "a", "loadOnlyInlinedPlugins": true}'),
        ("a.conf", b'{"name": "a", "type": "x"}' + b" " * (1 << 20)),
    ],
)
def test_files_that_are_skipped_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str, text: bytes
) -> None:
    (tmp_path / file).write_bytes(text)
    put(tmp_path, "b.conf", name="b", **PLUGIN)
    conf = ConfFolder(str(tmp_path))
    assert names(conf) == ["b"]
    put(tmp_path, "c.conf", name="c", **PLUGIN)
    assert names(conf) == ["b", "c"]
    assert caplog.text.count("is not used") == 1
    # another state of the file is worth another word
    (tmp_path / file).write_bytes(b"!")
    assert names(conf) == ["b", "c"]
    assert caplog.text.count("is not used") == 2


def test_what_is_no_regular_file_is_skipped(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.conf")
    (tmp_path / "b.conf").symlink_to("nowhere")
    (tmp_path / "c.conf").symlink_to(put(tmp_path, "real", name="c", **PLUGIN))
    assert names(tmp_path) == ["c"]


def test_no_more_than_1024_files_are_read(tmp_path: Path) -> None:
    for number in range(1030):
        put(tmp_path, f"{number:04}.conf", name=f"n{number}", **PLUGIN)
    assert len(names(tmp_path)) == 1024


def test_the_newest_version_that_is_spoken_comes_last(tmp_path: Path) -> None:
    several = ["1.0.0", "0.3.1", "1.2.0"]
    put(tmp_path, "1.conflist", cniVersions=several, cniVersion="0.4.0", plugins=[PLUGIN])
    put(tmp_path, "2.conflist", cniVersions=several, plugins=[PLUGIN])
    put(tmp_path, "3.conflist", cniVersion="1.2.0", plugins=[PLUGIN])
    put(tmp_path, "4.conflist", plugins=[PLUGIN])
    found = [network.versions for network in ConfFolder(str(tmp_path)).networks()]
    assert found == [("0.3.1", "0.4.0", "1.0.0"), ("0.3.1", "1.0.0"), ("1.2.0",), ("0.1.0",)]


def test_flags_may_be_text(tmp_path: Path) -> None:
    put(tmp_path, "1.conflist", plugins=[PLUGIN], disableCheck="True", disableGC=True)
    (network,) = ConfFolder(str(tmp_path)).networks()
    assert (network.disable_check, network.disable_gc) == (True, True)


def test_plugins_of_the_folder_of_a_network(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    put(folder, "20.conf", type="two")
    put(folder, "10.conf", type="one")
    put(folder, "30.conflist", type="no")
    listed = put(tmp_path, "10.conflist", name="net", plugins=[PLUGIN])
    conf = ConfFolder(str(tmp_path))
    assert [plugin["type"] for plugin in conf.networks()[0].plugins] == ["bridge", "one", "two"]
    (folder / "10.conf").unlink()
    assert [plugin["type"] for plugin in conf.networks()[0].plugins] == ["bridge", "two"]
    assert len(conf.networks()[0].pinned("1.0.0")["plugins"]) == 2
    put(tmp_path, listed.name, name="net", plugins=[PLUGIN], loadOnlyInlinedPlugins=True)
    assert [plugin["type"] for plugin in conf.networks()[0].plugins] == ["bridge"]


def test_changes_are_seen_at_the_next_use(tmp_path: Path) -> None:
    folder = tmp_path / "net.d"
    conf = ConfFolder(str(folder))
    assert names(conf) == []
    folder.mkdir()
    assert names(conf) == []
    path = put(folder, "10.conf", name="a", **PLUGIN)
    assert names(conf) == ["a"]
    put(folder, "10.conf", name="longer", **PLUGIN)
    assert names(conf) == ["longer"]
    path.unlink()
    assert names(conf) == []


def test_nothing_is_read_while_nothing_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "10.conf", name="a", **PLUGIN)
    conf = ConfFolder(str(tmp_path))
    first = conf.networks()
    monkeypatch.setattr("isula_edge.network.folder._content", None)
    assert conf.networks() is first


# what is told at once


def watching(path: Path, work: Callable[[ConfFolder, Callable[[], Awaitable[None]]], Any]) -> None:
    """``work`` beside a watched folder; its second argument waits for the next news."""

    async def main() -> None:
        watcher = Watcher()
        conf = ConfFolder(str(path), watcher)
        news = asyncio.Event()
        settled = conf._settled

        def tell() -> None:
            settled()
            news.set()

        conf._settled = tell  # type: ignore[method-assign]

        async def wait() -> None:
            await asyncio.wait_for(news.wait(), 60)
            news.clear()

        try:
            await work(conf, wait)
        finally:
            conf.close()
            watcher.close()

    asyncio.run(main())


def test_a_folder_that_comes_later_and_is_replaced_is_watched(tmp_path: Path) -> None:
    folder = tmp_path / "cni" / "net.d"

    async def work(conf: ConfFolder, news: Callable[[], Awaitable[None]]) -> None:
        (tmp_path / "unrelated").mkdir()
        folder.parent.mkdir()
        await news()
        folder.mkdir()
        await news()
        put(folder, "10.conf", name="a", **PLUGIN)
        await news()
        assert [network.name for network in conf._networks] == ["a"]
        other = tmp_path / "other"
        other.mkdir()
        put(other, "10.conf", name="b", **PLUGIN)
        folder.rename(tmp_path / "old")
        other.rename(folder)
        await news()
        assert [network.name for network in conf._networks] == ["b"]
        put(folder, "20.conf", name="c", **PLUGIN)
        await news()
        assert [network.name for network in conf._networks] == ["b", "c"]
        shutil.rmtree(folder)
        await news()
        assert conf.networks() == ()

    watching(folder, work)


def test_a_change_that_leaves_size_and_time_is_seen(tmp_path: Path) -> None:
    path = put(tmp_path, "10.conf", name="a", **PLUGIN)

    async def work(conf: ConfFolder, news: Callable[[], Awaitable[None]]) -> None:
        assert names(conf) == ["a"]
        before = path.stat()
        put(tmp_path, "10.conf", name="b", **PLUGIN)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        await news()
        assert names(conf) == ["b"]

    watching(tmp_path, work)


def test_many_attaches_do_not_read_the_files_again(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main")
    conf = ConfFolder(str(cni.conf))
    assert conf.networks() is conf.networks()
