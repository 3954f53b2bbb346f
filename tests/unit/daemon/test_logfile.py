"""The daemon's own log: where it goes, how it is rotated, and what a full disk does."""

from __future__ import annotations

import gzip
import logging
import os
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from isula_edge.daemon import config, keys, logfile
from isula_edge.service.config import EngineConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

log = logging.getLogger("isula_edge.tests")


@pytest.fixture
def set_up(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Sets the log up with options; the tests' own logging is put back afterwards."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers
    root.handlers = []
    base = config.DaemonConfig(EngineConfig(graph=str(tmp_path / "graph")))

    def work(driver: str = "file", level: str = "INFO", **options: str) -> None:
        named = {key.replace("_", "-"): value for key, value in options.items()}
        logfile.set_up(replace(base, log_driver=driver, log_level=level, log_options=named))

    try:
        yield work
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers = handlers
        root.setLevel(level)


def fill(size: int) -> None:
    for number in range(size // 100):
        log.info("%06d %s", number, "x" * 93)


def test_messages_go_to_a_file_of_the_graph(set_up: Callable[..., None], tmp_path: Path) -> None:
    set_up()
    log.warning("what %s", "happened")
    path = tmp_path / "graph/isulad.log"
    line = path.read_text()
    assert line.startswith("isulad 2")
    assert line.endswith(" WARNING isula_edge.tests - what happened\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_path_and_the_mode_can_be_set(set_up: Callable[..., None], tmp_path: Path) -> None:
    set_up(log_path=str(tmp_path / "other"), log_file_mode="0640")
    log.info("text")
    path = tmp_path / "other/isulad.log"
    assert "text" in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert not (tmp_path / "graph").exists()


def test_old_messages_stay_when_the_daemon_starts_again(
    set_up: Callable[..., None], tmp_path: Path
) -> None:
    set_up()
    log.info("first")
    set_up()
    log.info("second")
    assert len(logging.getLogger().handlers) == 1
    assert len((tmp_path / "graph/isulad.log").read_text().splitlines()) == 2


@pytest.mark.parametrize("level", keys.LEVELS)
def test_every_level_is_known(set_up: Callable[..., None], level: str) -> None:
    set_up(level=level)
    shown = logging.getLogger().getEffectiveLevel()
    assert (shown <= logging.DEBUG) == (level in ("DEBUG", "TRACE"))
    assert (shown <= logging.INFO) == (level in ("INFO", "NOTICE", "DEBUG", "TRACE"))
    assert (shown <= logging.ERROR) == (level not in ("FATAL", "ALERT", "CRIT"))


@pytest.mark.parametrize(("driver", "stream"), [("stdout", "out"), ("stderr", "err")])
def test_messages_go_to_a_standard_stream(
    set_up: Callable[..., None], driver: str, stream: str, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up(driver)
    log.info("text")
    assert getattr(capsys.readouterr(), stream).endswith(" - text\n")


def test_a_full_file_is_compressed_and_the_oldest_dropped(
    set_up: Callable[..., None], tmp_path: Path
) -> None:
    set_up(max_size="4KB", max_file="3", log_file_mode="0640")
    fill(100_000)
    folder = tmp_path / "graph"
    assert sorted(os.listdir(folder)) == ["isulad.log", "isulad.log.1.gz", "isulad.log.2.gz"]
    assert (folder / "isulad.log").stat().st_size <= 4096
    for name in ("isulad.log.1.gz", "isulad.log.2.gz"):
        assert len(gzip.decompress((folder / name).read_bytes())) <= 4096
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o640
    assert "000999" in (folder / "isulad.log").read_text()


def test_the_mode_stays_when_the_file_is_rotated(
    set_up: Callable[..., None], tmp_path: Path
) -> None:
    mask = os.umask(0o022)
    try:
        set_up(max_size="4KB")
        fill(10_000)
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "graph/isulad.log").stat().st_mode) == 0o600


def test_one_file_is_bounded_too(set_up: Callable[..., None], tmp_path: Path) -> None:
    set_up(max_size="4KB", max_file="1")
    fill(20_000)
    assert (tmp_path / "graph/isulad.log").stat().st_size <= 4096


def test_without_space_old_messages_are_dropped_and_new_ones_kept(
    set_up: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    set_up(max_size="4KB", max_file="3")
    fill(10_000)
    log.info("the last")
    assert os.listdir(tmp_path / "graph") == ["isulad.log"]
    assert "the last" in (tmp_path / "graph/isulad.log").read_text()


def test_names_that_are_no_text_can_be_logged(set_up: Callable[..., None], tmp_path: Path) -> None:
    set_up()
    log.info("%s", b"caf\xe9".decode("utf-8", "surrogateescape"))
    assert "caf\\udce9" in (tmp_path / "graph/isulad.log").read_text()
