"""The benchmark of pulls: its images, the proxy that cuts, and its tables."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import tarfile
import threading
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import config, image_report, image_sets
from benchmarks.cutting import SMALLEST, Cuts, Proxy
from tests.fakes.registry import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# the images


def test_files_are_picked_by_number_and_size() -> None:
    files = [(f"/usr/{number}", 100 if number % 3 else 10_000) for number in range(3000)]
    chosen = image_sets.pick(files, 600, 600_000)
    sizes = dict(files)
    assert len(set(chosen)) == 600
    assert sum(sizes[path] for path in chosen) == pytest.approx(600_000, rel=0.05)
    assert chosen == sorted(chosen, key=lambda path: int(path[5:]))
    assert chosen == image_sets.pick(files, 600, 600_000)


def test_a_machine_with_too_few_files() -> None:
    with pytest.raises(config.ConfigError, match="no 5 files"):
        image_sets.pick([("/usr/a", 1)], 5, 5)


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A layout of twenty files in three layers."""
    source = tmp_path / "usr" / "share"
    source.mkdir(parents=True)
    found = []
    for number in range(20):
        path = source / f"file{number}"
        path.write_bytes(bytes([number]) * 100)
        found.append((str(path), 100))
    monkeypatch.setattr(image_sets, "_installed", lambda: found)
    return image_sets.make(tmp_path / "images", image_sets.ImageSet("tiny", 20, 2000, 3))


def test_every_digest_of_a_layout_is_right(layout: Path) -> None:
    for blob in (layout / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]

    def document(digest: str) -> Any:
        return json.loads((layout / "blobs" / digest.replace(":", "/")).read_text())

    manifest = document(entry["digest"])
    diff_ids = document(manifest["config"]["digest"])["rootfs"]["diff_ids"]
    names: list[str] = []
    for layer, diff_id in zip(manifest["layers"], diff_ids, strict=True):
        blob = layout / "blobs" / layer["digest"].replace(":", "/")
        assert layer["size"] == blob.stat().st_size
        data = gzip.decompress(blob.read_bytes())
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" == diff_id
        with tarfile.open(blob) as archive:
            known: set[str] = set()
            for member in archive:
                assert member.name.rpartition("/")[0] in {*known, ""}, "a folder comes first"
                known.add(member.name)
                names += [member.name] if member.isfile() else []
    assert len(names) == 20


def test_a_layout_is_made_once(layout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_sets, "_installed", lambda: pytest.fail("made again"))
    again = image_sets.make(layout.parent, image_sets.ImageSet("tiny", 20, 2000, 3))
    assert again == layout


# the proxy


def test_a_blob_is_cut_once_at_each_place() -> None:
    cuts = Cuts([0.75, 0.25])
    assert cuts.end("a", 0, 1000) == 250
    assert cuts.end("b", 0, 100) == 25
    assert cuts.end("a", 250, 1000) == 750
    assert cuts.end("a", 750, 1000) == 1000
    # from the beginning again: nothing is left to be cut
    assert cuts.end("a", 0, 1000) == 1000
    assert Cuts().end("a", 0, 1000) == 1000


@pytest.fixture
def proxy() -> Iterator[tuple[Proxy, FakeRegistry]]:
    with FakeRegistry() as registry:
        found = Proxy("127.0.0.1:0", registry.host)
        thread = threading.Thread(target=found.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield found, registry
        finally:
            found.shutdown()
            thread.join()
            found.server_close()


def get(proxy: Proxy, path: str, start: int = 0) -> tuple[int, bytes]:
    """Status and what arrives of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.server_address[1], timeout=20)
    try:
        connection.request("GET", path, headers={"Range": f"bytes={start}-"} if start else {})
        answer = connection.getresponse()
        try:
            return answer.status, answer.read()
        except http.client.IncompleteRead as error:
            return answer.status, error.partial
    finally:
        connection.close()


def test_the_proxy_cuts_and_counts(proxy: tuple[Proxy, FakeRegistry]) -> None:
    server, registry = proxy
    data = bytes(range(256)) * 1024
    path = f"/v2/some/image/blobs/{registry.put_blob(data)}"
    assert get(server, path) == (200, data)
    assert get(server, "/bench/sent") == (200, str(len(data)).encode())
    assert get(server, "/bench/cut/0.25,0.5") == (200, b"")
    quarter = len(data) // 4
    assert get(server, path) == (200, data[:quarter])
    assert get(server, path, quarter) == (206, data[quarter : quarter * 2])
    assert get(server, path, quarter * 2) == (206, data[quarter * 2 :])
    assert get(server, "/bench/sent") == (200, str(len(data)).encode())


def test_what_is_no_layer_is_passed_on(proxy: tuple[Proxy, FakeRegistry]) -> None:
    server, registry = proxy
    small = b"x" * (SMALLEST - 1)
    get(server, "/bench/cut/0.5")
    assert get(server, f"/v2/some/image/blobs/{registry.put_blob(small)}") == (200, small)
    assert get(server, "/v2/")[0] == 200
    assert get(server, "/v2/some/image/manifests/nosuch")[0] == 404
    assert get(server, "/bench/sent") == (200, b"0")


def test_headers_that_are_sent_twice_arrive_both(proxy: tuple[Proxy, FakeRegistry]) -> None:
    server, registry = proxy
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    connection.putrequest("GET", "/v2/some/image/manifests/latest")
    for media_type in ("a/b", "c/d"):
        connection.putheader("Accept", media_type)
    connection.endheaders()
    connection.getresponse().read()
    connection.close()
    assert registry.requests[-1].headers["accept"] == "a/b, c/d"


# flags and tables


def test_programs_are_named_by_flags() -> None:
    found = config.programs(["docker=/opt/docker", "isula=/opt/isula"], {"podman": "/opt/podman"})
    assert found["docker"] == "/opt/docker"
    assert found["isula"] == "/opt/isula"
    assert found["podman"] == "/opt/podman"
    with pytest.raises(config.ConfigError, match="docker: not NAME=PATH"):
        config.programs(["docker"], {})


def result(failures: dict[str, str]) -> dict[str, Any]:
    """A small result of two engines."""
    keys = ("wall_s", "synced_s", "cpu_s", "pss_kib", "peak_kib")
    pulls = [
        {
            "engine": engine,
            "image": "small",
            "repeat": repeat,
            **dict.fromkeys(keys, factor * (repeat + 1)),
            "written_bytes": 3_000_000,
            "peak_used_bytes": 2_500_000,
        }
        for engine, factor in (("isula", 1.0), ("docker", 4.0))
        for repeat in range(3)
        if engine not in failures
    ]
    tar = {**dict.fromkeys(keys, 0.5), "written_bytes": 2_100_000, "used_bytes": 2_000_000}
    facts = {**dict.fromkeys("cpu memory distribution kernel cgroup".split(), "x"), "cores": 2}
    return {
        "began": 0,
        "seconds": 1,
        "failures": failures,
        "host": {**facts, "load_average": [0, 0, 0]},
        "versions": {"isula": {"isula": "1.0"}},
        "settings": {
            "engines": ["isula", "docker"],
            "images": ["small"],
            "repeats": 3,
            "cuts": [0.5],
        },
        "pulls": pulls,
        "unpacked": {"small": {**tar, "peak_used_bytes": 2_000_000}},
        "compressed_bytes": {"small": 1_000_000},
        "cut_image": "small",
        "cuts": {
            "isula": {"sent_bytes": 1_010_000, "wall_s": 2.0},
            "docker": {"failure": "unexpected EOF"},
        },
    }


def test_the_tables_show_medians_ratios_and_parts_of_the_unpacked_size() -> None:
    text = image_report.markdown(result({}))
    assert "- small: 1 files, 2 MB, 1 layer; 1.0 MB to fetch, 2.0 MB unpacked" in text
    times = text.partition("## Time of a pull")[2].partition("##")[0]
    assert "| small | 2000 | 8000 | 500 | 0.25 |" in times
    written = text.partition("## Written")[2].partition("##")[0]
    assert "| small | 150 | 150 | 105 | 1.00 |" in written
    assert "| isula | 1.010 | 2.0 |" in text
    assert "| docker | gives up | |" in text
    assert text.endswith("\n\n- docker: unexpected EOF\n")
    assert "void" not in text


def test_the_tables_of_a_void_run_say_so() -> None:
    text = image_report.markdown(result({"docker": "pull: no space"}))
    assert "**This run is void**" in text
    assert "pull: no space" in text
    assert "| small | 2000 | void | 500 |  |" in text
