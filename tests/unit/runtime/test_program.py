"""Programs of runtimes: what is wrong with one, its version, and what it says."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, cast

import pytest

from isula_edge import errors
from isula_edge.runtime import program
from isula_edge.runtime.program import Program

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from isula_edge.sys.process import Reaper


class Answers:
    """A reaper that notes what is asked, and answers exit status and output by the word."""

    def __init__(self, **answers: tuple[int, bytes] | Exception) -> None:
        self.asked: list[str] = []
        self._answers = answers

    async def run(
        self, argv: Sequence[str], *, timeout_s: float, group: bool
    ) -> tuple[int, bytes, bytes]:
        assert group
        assert timeout_s > 0
        word = argv[-1].lstrip("-")
        self.asked.append(word)
        answer = self._answers.get(word, (1, b""))
        if isinstance(answer, Exception):
            raise answer
        return (*answer, b"noise")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "runtime"
    found.write_text("#!/bin/sh\n")
    found.chmod(0o755)
    return found


def check(found: Program, answers: Answers) -> str:
    return asyncio.run(found.check(cast("Reaper", answers)))


def test_a_name_is_looked_for_where_programs_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert Program("x", "sh").path.endswith("/sh")
    lost = Program("x", "no-such-runtime")
    assert lost.path == "no-such-runtime"
    assert lost.problem() == f"no-such-runtime is not in {program.PATH}"


def test_what_cannot_be_executed(tmp_path: Path, path: Path) -> None:
    assert Program("x", str(path)).problem() == ""
    assert Program("x", f"{tmp_path}/no").problem() == f"{tmp_path}/no does not exist"
    assert Program("x", f"{path}/no").problem() == f"{path}/no does not exist"
    assert Program("x", str(tmp_path)).problem() == f"{tmp_path} is no file"
    path.chmod(0o644)
    assert Program("x", str(path)).problem() == f"{path} is not executable"
    path.chmod(0o755)
    path.write_text("#!/no/such -x\n")
    assert Program("x", str(path)).problem() == f"{path} needs /no/such, which does not exist"
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert "symbolic links" in Program("x", str(loop)).problem()


VERSIONS = [
    ("runc version 1.1.5+ds1\ncommit: 1\nspec: 1.0.2-dev\ngo: go1.19.8\n", ""),
    ("crun version 1.8.1\nrundir: /run/crun\nspec: 1.0.0\n+SYSTEMD\n", ""),
    ("kata-runtime  : 1.12.1\n   commit   : 0f8\n   OCI specs: 1.0.1-dev\n", ""),
    ("runc version 0.1.1\nspec: 0.6.0-dev\n", "0.6.0-dev"),
    ("runc version 1.0.0-rc3\nspec: 1.0.0-rc5\n", "1.0.0-rc5"),
    ("spec: v0.9.9\n", "v0.9.9"),
    ("spec: new\n", ""),
    ("spec: 99999.1.1\n", ""),
    ("", ""),
    ("\x00\xff spec: 0.1.0", ""),
]


@pytest.mark.parametrize(("text", "old"), VERSIONS)
def test_the_runtime_spec_that_a_program_is_for(path: Path, text: str, old: str) -> None:
    answers = Answers(version=(0, text.encode("latin-1")))
    found = Program("x", str(path))
    if not old:
        assert check(found, answers) == str(path)
        return
    with pytest.raises(errors.Unavailable) as caught:
        check(found, answers)
    assert str(caught.value) == (
        f"runtime x cannot be used: {path} is too old: it is for OCI runtime-spec {old}, "
        "1.0.0 is needed"
    )
    assert "daemon.json" in caught.value.hint


@pytest.mark.parametrize(
    ("features", "good"),
    [
        ((0, b'{"ociVersionMin": "1.0.0", "ociVersionMax": "1.1.0"}'), True),
        ((0, b'{"ociVersionMax": "0.5.0"}'), False),
        ((0, b'{"ociVersionMax": 5}'), True),
        ((0, b"[" * 100_000), True),
        ((0, b"[]"), True),
        ((1, b'{"ociVersionMax": "0.5.0"}'), True),
        (TimeoutError(), True),
    ],
)
def test_features_are_asked_where_the_version_does_not_tell(
    path: Path, features: tuple[int, bytes] | Exception, good: bool
) -> None:
    answers = Answers(version=(0, b"1.0"), features=features)
    found = Program("x", str(path))
    if good:
        check(found, answers)
    else:
        with pytest.raises(errors.Unavailable, match=r"runtime-spec 0\.5\.0"):
            check(found, answers)
    assert answers.asked == ["version", "features"]


def test_a_program_is_asked_once_for_each_file(path: Path) -> None:
    found, answers = Program("x", str(path)), Answers(version=(0, b"spec: 1.0.0"))
    for _ in range(3):
        check(found, answers)
    assert answers.asked == ["version"]
    os.utime(path, ns=(1, 1))
    check(found, answers)
    assert answers.asked == ["version"] * 2
    path.unlink()
    with pytest.raises(errors.Unavailable, match="does not exist"):
        check(found, answers)


def test_what_the_kernel_says_of_a_program(path: Path) -> None:
    answers = Answers(version=OSError(8, "Exec format error"))
    with pytest.raises(errors.Unavailable, match=f"{path}: exec format error"):
        check(Program("x", str(path)), answers)


# logs


def test_the_end_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert program.tail(str(log)) == ""
    log.write_bytes(b"a" * 100 + b"\xff")
    assert program.tail(str(log), 3) == "aa\ufffd"
    os.mkfifo(tmp_path / "fifo")
    assert program.tail(str(tmp_path / "fifo")) == ""
    (tmp_path / "link").symlink_to(log)
    assert program.tail(str(tmp_path / "link")) == ""
    assert program.tail(str(tmp_path)) == ""


@pytest.mark.parametrize(
    ("log", "err", "expected"),
    [
        ("", "", ""),
        ("", " err\n", "err"),
        ("level=warning msg=w\n", "", "level=warning msg=w"),
        ("level=warning msg=w\n", "err", "err"),
        ('level=error msg="1"\nlevel=error msg="a \\"b\\""\nlevel=info msg="x"\n', "e", 'a "b"'),
        ('{"level":"error","msg":"json"}\n', "e", "json"),
        ('{"level":"error","msg":5}\n', "e", '{"level":"error","msg":5}'),
        ('level=error msg="open', "", 'level=error msg="open'),
        ("level=error \x1b[31m\x00red\n", "", "level=error [31m red"),
        ("[" * 100_000, "", "[" * 999 + "\u2026"),
    ],
)
def test_what_is_said_of_a_failure(tmp_path: Path, log: str, err: str, expected: str) -> None:
    path = tmp_path / "log"
    path.write_text(log)
    assert program.one_line(program.last_words(str(path), err)) == expected


def test_words_without_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"level=error " + os.urandom(1 << 21).replace(b"\n", b""))
    words = program.one_line(program.last_words(str(path)))
    assert len(words) <= 1000
    assert words.isprintable()
