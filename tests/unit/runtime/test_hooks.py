"""OCI hooks: the state they are told, how they are run, and what is said of failures."""

from __future__ import annotations

import asyncio
import json
import subprocess
from typing import TYPE_CHECKING, Any, cast

import pytest

from isula_edge.runtime import hooks
from tests.unit.runtime.conftest import ID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from isula_edge.sys.process import Reaper
    from tests.unit.runtime.conftest import MakeBundle


class FakeReaper:
    """Notes what is run, and answers as it is told: an exit code, or None for a time-out."""

    def __init__(self, *answers: int | None) -> None:
        self.ran: list[tuple[list[str], bytes, float]] = []
        self._answers = list(answers)

    async def run(
        self, argv: Sequence[str], *, data: bytes = b"", timeout_s: float = 0, group: bool = False
    ) -> tuple[int, bytes, bytes]:
        # so that a hook ends with everything that it has started
        assert group
        self.ran.append((list(argv), data, timeout_s))
        code = self._answers.pop(0) if self._answers else 0
        if code is None:
            raise TimeoutError
        return code, b"out", b" said so\xff\n" if code else b""


def run(make_bundle: MakeBundle, fake: FakeReaper, table: dict[str, Any]) -> list[str]:
    bundle = make_bundle({"hooks": table, "annotations": {"a": "b"}})
    return asyncio.run(hooks.run_hooks(bundle, "poststop", "stopped", 0, cast("Reaper", fake)))


@pytest.fixture
def program(tmp_path: Path) -> str:
    path = tmp_path / "my hook"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_the_state_of_a_container(make_bundle: MakeBundle) -> None:
    bundle = make_bundle({"ociVersion": "1.1.0", "annotations": {"a": '"pid": 0'}})
    assert json.loads(hooks.state(bundle, "running", "42")) == {
        "ociVersion": "1.1.0",
        "id": ID,
        "status": "running",
        "pid": 42,
        "bundle": bundle.dir,
        "annotations": {"a": '"pid": 0'},
    }


def test_the_pid_may_be_a_word_that_a_script_fills_in(make_bundle: MakeBundle) -> None:
    text = hooks.state(make_bundle(), "created", "PID")
    assert text.count("PID") == 1
    assert json.loads(text.replace("PID", "7"))["pid"] == 7


def test_a_document_that_says_little_is_completed(make_bundle: MakeBundle) -> None:
    found = json.loads(hooks.state(make_bundle({"annotations": None}), "created", "0"))
    assert found["ociVersion"]
    assert found["annotations"] == {}


def test_hooks_are_listed_in_the_order_of_the_names(make_bundle: MakeBundle) -> None:
    one, two, three = ({"path": f"/{number}"} for number in range(3))
    bundle = make_bundle({"hooks": {"createRuntime": [three], "prestart": [one, two]}})
    assert hooks.listed(bundle, "prestart", "createRuntime") == [one, two, three]
    assert hooks.listed(bundle, "poststop") == []
    assert hooks.listed(make_bundle({"hooks": None}), "prestart") == []
    assert hooks.listed(make_bundle({"hooks": {"prestart": None}}), "prestart") == []


@pytest.mark.parametrize(
    ("hook", "expected"),
    [
        (
            {"path": "/h"},
            ["/usr/bin/env", "-i", "--", "/usr/bin/timeout", "-s", "KILL", "120", "/h"],
        ),
        (
            {"path": "/h", "args": ["other name", "a b", "-x"], "env": ["A=1", "B=two words"],
             "timeout": 5},
            ["/usr/bin/env", "-i", "--", "A=1", "B=two words", "/usr/bin/timeout", "-s", "KILL",
             "5", "/h", "a b", "-x"],
        ),
        (
            {"path": "/h", "args": [], "env": None, "timeout": 0},
            ["/usr/bin/env", "-i", "--", "/usr/bin/timeout", "-s", "KILL", "120", "/h"],
        ),
    ],
)  # fmt: skip
def test_a_hook_gets_its_own_variables_arguments_and_time(
    hook: dict[str, Any], expected: list[str]
) -> None:
    assert hooks.command(hook) == expected


@pytest.mark.parametrize("word", ["WORD", "", "=1"])
def test_what_is_no_variable_is_not_what_is_run(word: str) -> None:
    """env(1) would take it for the program."""
    found = hooks.command({"path": "/h", "env": ["A=1", word, "B="]})
    assert found[2:6] == ["--", "A=1", "B=", "/usr/bin/timeout"]


def test_a_variable_like_an_option_is_one() -> None:
    found = hooks.command({"path": "/usr/bin/env", "env": ["-S=id", "A=b c"]})
    done = subprocess.run(found, capture_output=True, text=True, check=True)
    assert done.stdout == "-S=id\nA=b c\n"


def test_hooks_run_one_after_another_and_are_told_the_state(
    make_bundle: MakeBundle, program: str
) -> None:
    fake = FakeReaper()
    table: dict[str, list[dict[str, Any]]] = {
        "poststop": [{"path": program, "timeout": 7}, {"path": program, "args": ["x", "second"]}],
        "poststart": [{"path": "/never"}],
    }
    assert run(make_bundle, fake, table) == []
    assert [argv for argv, _, _ in fake.ran] == [hooks.command(h) for h in table["poststop"]]
    for _, data, _ in fake.ran:
        found = json.loads(data)
        assert (found["status"], found["id"], found["pid"]) == ("stopped", ID, 0)
    # timeout(1) has to be there first
    assert fake.ran[0][2] > 7
    assert fake.ran[1][2] > 120


def test_a_failure_is_told_and_holds_no_other_hook_up(
    make_bundle: MakeBundle, program: str
) -> None:
    fake = FakeReaper(3, None, 0, 137)
    problems = run(make_bundle, fake, {"poststop": [{"path": program}] * 4})
    assert problems == [
        f"poststop hook {program} failed with status 3: said so\ufffd",
        f"poststop hook {program} did not end",
        f"poststop hook {program} failed with status 137: said so\ufffd",
    ]
    assert len(fake.ran) == 4


def test_what_cannot_be_executed_is_not_tried(
    make_bundle: MakeBundle, tmp_path: Path, program: str
) -> None:
    plain = tmp_path / "plain"
    plain.write_text("")
    plain.chmod(0o644)
    fake = FakeReaper()
    found = run(
        make_bundle,
        fake,
        {"poststop": [{"path": str(plain)}, {"path": "/no/such"}, {"path": program}]},
    )
    assert found == [
        f"poststop hook {plain} cannot be executed: permission denied",
        "poststop hook /no/such cannot be executed: permission denied",
    ]
    assert [argv[-1] for argv, _, _ in fake.ran] == [program]


def test_without_hooks_nothing_is_run(make_bundle: MakeBundle) -> None:
    fake = FakeReaper()
    assert run(make_bundle, fake, {}) == []
    assert fake.ran == []


def test_a_start_may_take_as_long_as_its_hooks_may(make_bundle: MakeBundle) -> None:
    table = {
        "prestart": [{"path": "/a", "timeout": 200}, {"path": "/b"}],
        "startContainer": [{"path": "/c", "timeout": 7}],
        "poststop": [{"path": "/d", "timeout": 1000}],
    }
    assert hooks.patience(make_bundle({"hooks": table})) == 207
    assert hooks.patience(make_bundle({})) == 0
