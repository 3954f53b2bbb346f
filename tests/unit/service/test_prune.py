"""Which containers and images a prune takes, and how leftovers go."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.service.prune import Chosen, remove_paths

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@pytest.mark.parametrize(
    ("wanted", "created_ns", "labels", "taken"),
    [
        ({}, 5, {}, True),
        ({"until": ["10"]}, 10, {}, True),
        ({"until": ["10"]}, 11, {}, False),
        ({"label": ["a"]}, 5, {"a": "1"}, True),
        ({"label": ["a"]}, 5, {"b": "1"}, False),
        ({"label": ["a=1"]}, 5, {"a": "1"}, True),
        ({"label": ["a=1"]}, 5, {"a": "2"}, False),
        ({"label": ["a", "b"]}, 5, {"a": ""}, False),
        ({"label!": ["a"]}, 5, {"a": "1"}, False),
        ({"label!": ["a=1"]}, 5, {"a": "2"}, True),
        ({"label!": ["a", "b"]}, 5, {"b": ""}, False),
        ({"label": ["a"], "label!": ["b"], "until": ["10"]}, 5, {"a": ""}, True),
    ],
)
def test_filters(
    wanted: Mapping[str, Sequence[str]], created_ns: int, labels: Mapping[str, str], taken: bool
) -> None:
    assert Chosen(wanted)(created_ns, labels) == taken


@pytest.mark.parametrize(
    "wanted", [{"name": ["x"]}, {"until": ["soon"]}, {"until": ["1", "2"]}, {"dangling": ["true"]}]
)
def test_filters_that_are_none(wanted: Mapping[str, Sequence[str]]) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        Chosen(wanted)
    assert caught.value.kind == "filter"


def test_files_links_and_trees_go(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    folder = tmp_path / "folder"
    (folder / "tree" / "deep").mkdir(parents=True)
    (folder / "tree" / "deep" / "file").touch()
    (folder / "file").touch()
    (folder / "link").symlink_to(outside)
    names = ("tree", "file", "link", "not there")
    asyncio.run(remove_paths([f"{folder}/{name}" for name in names]))
    assert list(folder.iterdir()) == []
    assert (outside / "kept").exists()


def test_names_are_free_before_anything_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody may put a layer where a leftover was, while that is being removed."""
    for name in "ab":
        (tmp_path / name).mkdir()
    seen: list[list[str]] = []

    def look(path: str) -> None:
        seen.append(sorted(os.listdir(tmp_path)))
        os.rmdir(path)

    monkeypatch.setattr("isula_edge.service.prune._remove", look)
    asyncio.run(remove_paths([f"{tmp_path}/a", f"{tmp_path}/b"]))
    assert len(seen) == 2
    assert not {"a", "b"} & {name for names in seen for name in names}
