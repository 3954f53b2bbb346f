"""Maps of user namespaces, read."""

from __future__ import annotations

import pytest

from isula_edge.sys.userns import host_id

MAPS = [(0, 1000, 10), (10, 5000, 5)]


@pytest.mark.parametrize(
    ("number", "expected"), [(0, 1000), (9, 1009), (10, 5000), (14, 5004), (15, -1)]
)
def test_an_id_on_the_host(number: int, expected: int) -> None:
    assert host_id(MAPS, number) == expected


def test_nothing_is_mapped_without_maps() -> None:
    assert host_id([]) == -1
