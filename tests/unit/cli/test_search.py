"""``isula search`` and ``isula pull -a``: what is sent, and what is printed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.cli.answers import answer

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Isula
    from tests.unit.daemon.served import Served

FOUND: list[dict[str, Any]] = [
    {"name": "busybox", "description": "Busybox base image.", "stars": 3200, "official": True,
     "automated": False},
    {"name": "me/box", "description": "d" * 60, "stars": 7, "official": False,
     "automated": True},
]  # fmt: skip


@pytest.fixture
def found(daemon: Served) -> Served:
    daemon.methods["image.search"] = answer({"results": FOUND})
    return daemon


def test_the_table(found: Served, isula: Isula) -> None:
    lines = isula("search", "busybox").out.splitlines()
    cut = "d" * 42 + "..."
    assert [line.split() for line in lines] == [
        ["NAME", "DESCRIPTION", "STARS", "OFFICIAL", "AUTOMATED"],
        ["busybox", "Busybox", "base", "image.", "3200", "[OK]"],
        ["me/box", cut, "7", "[OK]"],
    ]
    at = lines[0].index("AUTOMATED")
    assert lines[2][at:] == "[OK]"
    assert "d" * 60 in isula("search", "--no-trunc", "busybox").out


def test_what_is_sent(found: Served, isula: Isula) -> None:
    words = ("--limit", "5", "-f", "stars=3", "--filter=is-official=true", "h:5000/x y")
    assert isula("search", *words).status == 0
    (params,) = found.answers("image.search")
    assert params == {
        "term": "h:5000/x y",
        "limit": 5,
        "filters": {"stars": ["3"], "is-official": ["true"]},
    }


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.Name}} {{ .StarCount }}", "busybox 3200\nme/box 7\n"),
        ("{{.IsOfficial}}|{{.IsAutomated}}", "[OK]|\n|[OK]\n"),
        ("table {{.Name}}\\t{{.StarCount}}", "NAME      STARS\nbusybox   3200\nme/box    7\n"),
    ],
)
def test_formats(found: Served, isula: Isula, template: str, text: str) -> None:
    assert isula("search", "--format", template, "x") == (0, text, "")


def test_an_empty_result_has_headings(daemon: Served, isula: Isula) -> None:
    daemon.methods["image.search"] = answer({"results": []})
    assert isula("search", "x").out.startswith("NAME ")


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        ([], 125, "Search requires 1 argument."),
        (["a", "b"], 125, "Search requires 1 argument."),
        (["--limit", "0", "x"], 1, "Limit 0 is outside the range of [1, 100]"),
        (["--limit", "101", "x"], 1, "Limit 101 is outside the range of [1, 100]"),
        (["--format", "{{.Stars}}", "x"], 1, ".Stars"),
        (["-f", "stars", "x"], 1, "stars"),
    ],
)
def test_what_is_wrong_is_not_sent(
    found: Served, isula: Isula, words: list[str], status: int, text: str
) -> None:
    done = isula("search", *words)
    assert done.status == status
    assert text in done.err
    assert done.out == ""
    assert found.answers("image.search") == []


# all tags

PULLED = {
    "ref": "a/b",
    "id": "",
    "images": [{"ref": "a/b:1", "id": "1" * 64}, {"ref": "a/b:2", "id": "2" * 64}],
    "skipped": [{"ref": "a/b:sig", "reason": "unsupported media type"}],
}


def test_pull_all_tags(daemon: Served, isula: Isula) -> None:
    daemon.methods["image.pull"] = answer(PULLED)
    done = isula("pull", "-a", "a/b")
    assert done.status == 0
    assert done.out == ""
    assert done.err.splitlines() == [
        'Image "a/b" pulling',
        'Image "a/b:1" pulled',
        'Image "a/b:2" pulled',
        'Image "a/b:sig" skipped: unsupported media type',
    ]
    quiet = isula("pull", "--all-tags", "-q", "a/b")
    assert quiet.out == "a/b:1\na/b:2\n"
    assert "skipped" in quiet.err
    sent = daemon.answers("image.pull")
    assert sent == [{"ref": "a/b", "all_tags": True}] * 2
