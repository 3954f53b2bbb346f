"""Case A15: a whiteout speaks of lower layers, wherever it stands in its own."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

import pytest

from tests.fakes.layers import Graph, directory, link, regular, tree

if TYPE_CHECKING:
    import tarfile
    from pathlib import Path

pytestmark = pytest.mark.root

Entries = list["tuple[tarfile.TarInfo, bytes]"]
LOWER: Entries = [
    directory("d"), regular("d/old", b"old"), regular("d/other", b"other"),
    directory("d/sub"), regular("d/sub/deep", b"deep"),
    directory("e"), regular("e/gone", b"gone"), regular("e/stays", b"stays"), regular("f", b"f"),
]  # fmt: skip
OPAQUE: Entries = [
    directory("d", mode=0o700), regular("d/.wh..wh..opq"), regular("d/new", b"new"),
    regular("d/.wh.old"),
]  # fmt: skip
PLAIN: Entries = [directory("e"), regular("e/.wh.gone"), regular("e/gone", b"again"),
                  regular("e/.wh.stays")]  # fmt: skip
DRIVERS = ["overlay", "vfs"]


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_an_opaque_directory_in_any_order(
    tmp_path: Path, driver: str, order: tuple[int, ...]
) -> None:
    with Graph(tmp_path / "g", driver) as graph:
        graph.layer(LOWER)
        graph.layer([OPAQUE[at] for at in order])
        found = tree(graph.root())
    assert {name: text for name, text in found.items() if name.startswith("d")} == {
        "d": "directory 700",
        "d/new": "file 644 b'new'",
    }
    assert "e/gone" in found
    assert "f" in found


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_plain_whiteouts_in_any_order(tmp_path: Path, driver: str, order: tuple[int, ...]) -> None:
    with Graph(tmp_path / "g", driver) as graph:
        graph.layer(LOWER)
        graph.layer([PLAIN[at] for at in order])
        found = tree(graph.root())
    assert {name: text for name, text in found.items() if name.startswith("e")} == {
        "e": "directory 755",
        "e/gone": "file 644 b'again'",
    }
    assert found["d/sub/deep"] == "file 644 b'deep'"


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_directory_that_replaces_a_file_and_the_reverse(tmp_path: Path, driver: str) -> None:
    with Graph(tmp_path / "g", driver) as graph:
        graph.layer(LOWER)
        graph.layer([directory("f"), regular("f/in", b"in"), regular("d", b"now a file")])
        graph.layer([regular(".wh.d"), link("e", "f")])
        assert tree(graph.root()) == {
            "f": "directory 755", "f/in": "file 644 b'in'", "e": "link f",
        }  # fmt: skip


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_a_layer_hides_a_later_one_may_bring_back(tmp_path: Path, driver: str) -> None:
    with Graph(tmp_path / "g", driver) as graph:
        graph.layer(LOWER)
        graph.layer([regular(".wh.d"), regular(".wh.e")])
        graph.layer([directory("d"), regular("d/back", b"back")])
        found = tree(graph.root())
        assert found == {
            "d": "directory 755", "d/back": "file 644 b'back'", "f": "file 644 b'f'",
        }  # fmt: skip
