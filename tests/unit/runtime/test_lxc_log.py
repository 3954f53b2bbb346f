"""What lxc-start's log says of a start and of an end."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from isula_edge.runtime.lxc_log import Progress, exit_code, read_progress

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "lxc-start box 20240101000000.123 "
STARTED = f'{HEAD}NOTICE   start - start.c:post_start:2205 - Started "/bin/sh" with pid "4711"\n'
FAILED = f'{HEAD}ERROR    start - start.c:start:2170 - {{}} - Failed to exec "/no-such program"\n'
OTHER = (
    f"{HEAD}ERROR    cgfsng - cgroups/cgfsng.c:cg_set:10 - Read-only file system - "
    "Failed to set memory\n"
)
ENDED = f"{HEAD}INFO     error - error.c:lxc_error_set_and_log:31 - Child <4711> ended on {{}}\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "lxc.log"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Progress()),
        (f"{HEAD}INFO     conf - conf.c:x:1 - nothing of note\n", Progress()),
        (STARTED, Progress(pid=4711)),
        (
            FAILED.format("No such file or directory"),
            Progress(0, errno.ENOENT,
                     'No such file or directory - Failed to exec "/no-such program"'),
        ),
        (
            FAILED.format("Permission denied"),
            Progress(0, errno.EACCES, 'Permission denied - Failed to exec "/no-such program"'),
        ),
        (
            FAILED.format("Exec format error"),
            Progress(0, errno.ENOEXEC, 'Exec format error - Failed to exec "/no-such program"'),
        ),
        (
            FAILED.format("Something unheard of"),
            Progress(0, errno.EIO, 'Something unheard of - Failed to exec "/no-such program"'),
        ),
        (OTHER, Progress(error="Read-only file system - Failed to set memory")),
        # the first error is the cause of the others
        (
            OTHER + f"{HEAD}ERROR    start - start.c:y:2 - Second\n",
            Progress(error="Read-only file system - Failed to set memory"),
        ),
        (OTHER + STARTED, Progress(4711, 0, "Read-only file system - Failed to set memory")),
    ],
)  # fmt: skip
def test_how_a_start_went(log: Path, text: str, expected: Progress) -> None:
    log.write_text(text)
    assert read_progress(str(log)) == expected


def test_without_a_log_nothing_is_known(log: Path) -> None:
    assert read_progress(str(log)) == Progress()
    assert exit_code(str(log)) is None


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("error (1)", 1),
        ("error (42)", 42),
        ("error (255)", 255),
        ("signal Killed(9)", 137),
        ("signal Terminated(15)", 143),
        ("signal Real-time signal 0(34)", 162),
    ],
)
def test_the_exit_code(log: Path, how: str, code: int) -> None:
    log.write_text(STARTED + ENDED.format(how))
    assert exit_code(str(log)) == code


def test_no_line_about_the_end_is_success(log: Path) -> None:
    log.write_text(STARTED)
    assert exit_code(str(log)) == 0


def test_the_last_end_counts(log: Path) -> None:
    log.write_text(ENDED.format("error (1)") + ENDED.format("signal Killed(9)"))
    assert exit_code(str(log)) == 137


def test_the_end_is_found_behind_a_long_log(log: Path) -> None:
    log.write_text("x\n" * 100_000 + ENDED.format("error (7)") + "after\n")
    assert exit_code(str(log)) == 7
