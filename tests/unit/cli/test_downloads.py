"""Archives that the client writes: whole under their name, or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from isula_cli import downloads
from isula_edge import errors
from tests.unit.cli.answers import answer, refusal

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Isula
    from tests.unit.daemon.served import Served

MAIN = "import sys; from isula_cli.main import main; sys.exit(main())"
PIECES = [("o", b"a" * 70_000), ("o", b"b"), ("o", b"c" * 300)]
CONTENT = b"".join(data for _, data in PIECES)


@pytest.fixture(autouse=True)
def _signals(monkeypatch: pytest.MonkeyPatch) -> None:
    # they stay for the rest of a client's short life, but not of this process's
    monkeypatch.setattr("_signal.signal", lambda *_: None)


@pytest.fixture
def sending(daemon: Served) -> Served:
    for method in ("image.save", "container.export"):
        daemon.methods[method] = answer({"size": len(CONTENT)}, *PIECES)
    return daemon


@pytest.mark.parametrize("words", [("save", "a:1"), ("export", "web")])
def test_a_file_or_standard_output(
    sending: Served, isula: Isula, tmp_path: Path, words: tuple[str, str]
) -> None:
    path = tmp_path / "x.tar"
    assert isula(*words, "-o", str(path)) == (0, "", "")
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o777 == 0o600
    assert [item.name for item in tmp_path.iterdir() if "tar" in item.name] == ["x.tar"]
    assert isula(*words) == (0, CONTENT.decode(), "")


def test_what_the_daemon_is_asked(daemon: Served, isula: Isula, tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []

    async def save(params: dict[str, Any], session: Any) -> dict[str, Any]:
        asked.append(params)
        return {"size": 0}

    daemon.methods["image.save"] = save
    path = str(tmp_path / "x")
    isula("save", "-o", path, "a", "b:2", "--exclude", "c", "--exclude", "d", "--format", "oci")
    isula("save", "-o", path, "a")
    assert asked == [
        {"refs": ["a", "b:2"], "exclude": ["c", "d"], "format": "oci"},
        {"refs": ["a"], "exclude": [], "format": "docker"},
    ]


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (("save", "a:1"), 1, "Cowardly refusing to save to a terminal"),
        (("export", "web"), 125, "Missing output file, use -o,--output option"),
    ],
)
def test_nothing_is_written_to_a_terminal(
    sending: Served, words: tuple[str, str], status: int, text: str
) -> None:
    ours, theirs = os.openpty()
    done = subprocess.run(
        [sys.executable, "-c", MAIN, words[0], "-H", sending.host, words[1]],
        stdout=theirs,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        check=False,
    )
    os.close(theirs)
    os.close(ours)
    assert (done.returncode, text in done.stderr.decode()) == (status, True)


def test_a_refusal_leaves_the_old_file(daemon: Served, isula: Isula, tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(b"old")
    daemon.methods["image.save"] = refusal(errors.NotFound("No such image:a:latest"))
    done = isula("save", "-o", str(path), "a")
    assert done == (1, "", "Error response from daemon: No such image:a:latest\n")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir() if "tar" in item.name] == ["x.tar"]


def test_a_break_in_the_middle_leaves_nothing(daemon: Served, isula: Isula, tmp_path: Path) -> None:
    async def broken(params: dict[str, Any], session: Any) -> dict[str, Any]:
        await session.out(b"1" * 100_000)
        raise errors.DigestMismatch("layer x was changed")

    daemon.methods["image.save"] = broken
    assert isula("save", "-o", str(tmp_path / "x.tar"), "a").status == 1
    assert not [item for item in tmp_path.iterdir() if "tar" in item.name]


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    def interrupted(write: Any) -> None:
        write(b"some")
        assert len(os.listdir(tmp_path)) == 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        downloads.download(interrupted, str(tmp_path / "x.tar"))
    assert os.listdir(tmp_path) == []


def test_where_nothing_can_be_written(sending: Served, isula: Isula, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, why in (
        (tmp_path / "no" / "x.tar", "No such file or directory"),
        (tmp_path / "file" / "x.tar", "Not a directory"),
        (tmp_path, "Is a directory"),
    ):
        done = isula("save", "-o", str(path), "a")
        assert done == (1, "", f"isula: {path}: {why}\n")
    assert isula("export", "-o", str(tmp_path / "no" / "x.tar"), "web").status == 125


def test_links_pipes_and_devices(sending: Served, isula: Isula, tmp_path: Path) -> None:
    target, link = tmp_path / "target.tar", tmp_path / "link.tar"
    link.symlink_to("target.tar")
    for old in (False, True):
        if old:
            target.write_bytes(b"old")
        assert isula("save", "-o", str(link), "a").status == 0
        assert target.read_bytes() == CONTENT
        assert link.is_symlink()
    assert isula("save", "-o", "/dev/null", "a").status == 0
    assert Path("/dev/null").is_char_device()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    assert isula("save", "-o", str(pipe), "a").status == 0
    reader.join()
    assert found == [CONTENT]


def test_the_ends_of_the_process_are_caught() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        with pytest.raises(SystemExit) as caught:
            downloads._ended(number, None)
        assert caught.value.code == 128 + number


def test_signals_that_are_ignored_stay_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caught: list[int] = []
    monkeypatch.setattr("_signal.signal", lambda number, _: caught.append(number))
    monkeypatch.setattr(
        "_signal.getsignal",
        lambda number: signal.SIG_IGN if number == signal.SIGHUP else signal.SIG_DFL,
    )
    downloads.download(lambda write: write(b"1"), str(tmp_path / "x"))
    assert caught == [signal.SIGTERM]


def test_names_of_as_many_bytes_as_there_can_be(tmp_path: Path) -> None:
    path = tmp_path / ("\u00e9" * 127)
    downloads.download(lambda write: write(b"1"), str(path))
    assert os.listdir(tmp_path) == [path.name]


def test_what_an_earlier_client_of_the_same_pid_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr("posix.rename", killed)
        patch.setattr("posix.unlink", lambda _: None)
        with pytest.raises(SystemExit):
            downloads.download(lambda write: write(b"1"), str(tmp_path / "x"))
    downloads.download(lambda write: write(b"2"), str(tmp_path / "x"))
    assert (tmp_path / "x").read_bytes() == b"2"


def test_a_signal_right_after_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def renamed(old: bytes, new: str) -> None:
        Path(os.fsdecode(old)).rename(new)
        raise SystemExit(143)

    monkeypatch.setattr("posix.rename", renamed)
    with pytest.raises(SystemExit):
        downloads.download(lambda write: write(b"1"), str(tmp_path / "x"))
    assert (tmp_path / "x").read_bytes() == b"1"
