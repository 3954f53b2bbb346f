"""Kubernetes quantities as whole numbers."""

from __future__ import annotations

import random

import pytest

from isula_edge import errors
from isula_edge.network.quantity import parse_quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("10M", 10_000_000),
        ("+1", 1),
        ("1.5k", 1500),
        (".5", 1),
        ("1.", 1),
        ("1n", 1),
        ("1000001n", 1),
        ("1500m", 2),
        ("1E", 10**18),
        ("1e3", 1000),
        ("1E3", 1000),
        ("25e-1", 3),
        ("1Ki", 1024),
        ("1.5Gi", 3 << 29),
        ("1Ei", 1 << 60),
        ("9223372036854775807", (1 << 63) - 1),
    ],
)
def test_quantities(text: str, value: int) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize(
    "text",
    ["", ".", "M", "-1", "1 M", "1KI", "1ki", "1e", "1e1000", "8Ei", "0x1", "1\n", "٣", "1" * 65],
)
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        parse_quantity(text)


def test_any_text_is_a_number_or_refused() -> None:
    chance = random.Random(5)
    for _ in range(5000):
        text = "".join(chance.choices("0123456789.+-eEnumkKMGTPi ", k=chance.randint(0, 9)))
        try:
            value = parse_quantity(text)
        except errors.InvalidArgument:
            continue
        assert 0 <= value < 1 << 63
