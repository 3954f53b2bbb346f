"""The codec of the wire: what is sent arrives, and hostile bytes raise WireError alone."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
from typing import Any

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from isula_edge import wire
from isula_edge.version import API_VERSION

INTEGERS = st.integers(-(1 << 64), (1 << 64) - 1)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | INTEGERS
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=30)
    | st.binary(max_size=300),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(max_size=8) | INTEGERS | st.binary(max_size=8), inner, max_size=5)
    ),
    max_leaves=20,
)
many = settings(max_examples=100, deadline=None)


@given(VALUES)
@many
def test_a_value_comes_back(value: Any) -> None:
    assert wire.decode(wire.encode(value)) == value


@given(VALUES)
@many
def test_another_implementation_reads_what_is_written(value: Any) -> None:
    assert cbor2.loads(wire.encode(value)) == value


@given(VALUES)
@many
def test_what_another_implementation_writes_is_read(value: Any) -> None:
    assert wire.decode(cbor2.dumps(value)) == value


@given(st.binary(max_size=200))
@example(b"")
@example(b"\x9b" + b"\xff" * 8)
@example(b"\xbb" + b"\xff" * 8)
@example(b"\x5b" + b"\x7f" * 8)
@example(b"\x81" * 200)
@example(b"\xa1" * 200)
@settings(max_examples=300, deadline=None)
def test_random_bytes_are_a_value_or_a_wire_error(data: bytes) -> None:
    with contextlib.suppress(wire.WireError):
        wire.decode(data)


@given(VALUES, st.data())
@many
def test_a_damaged_value_is_a_value_or_a_wire_error(value: Any, draw: st.DataObject) -> None:
    data = bytearray(wire.encode({"p": value}))
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    with contextlib.suppress(wire.WireError):
        wire.decode(bytes(data))


@given(VALUES)
@many
def test_every_truncation_is_a_wire_error(value: Any) -> None:
    data = wire.encode([value])[:400]
    for end in range(len(data) - 1):
        with pytest.raises(wire.WireError):
            wire.decode(data[:end])


LENGTHS = [0, 23, 24, 255, 256, 65535, 65536]


@pytest.mark.parametrize("length", LENGTHS)
def test_lengths_at_the_borders_of_the_head(length: int) -> None:
    for value in ("x" * length, b"x" * length, [0] * length, length, -1 - length):
        assert wire.decode(wire.encode(value)) == value


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (0, "00"),
        (23, "17"),
        (24, "1818"),
        (1000, "1903e8"),
        (1000000, "1a000f4240"),
        (18446744073709551615, "1bffffffffffffffff"),
        (-18446744073709551616, "3bffffffffffffffff"),
        (-1, "20"),
        (1.1, "fb3ff199999999999a"),
        (False, "f4"),
        (True, "f5"),
        (None, "f6"),
        (b"\1\2\3\4", "4401020304"),
        ("\u00fc", "62c3bc"),
        ([1, [2, 3]], "8201820203"),
        ({"a": 1, "b": [2, 3]}, "a26161016162820203"),
    ],
)
def test_examples_of_rfc_8949(value: object, data: str) -> None:
    assert wire.encode(value).hex() == data
    assert wire.decode(bytes.fromhex(data)) == value


@pytest.mark.parametrize(
    ("data", "value"), [("fa47c35000", 100000.0), ("fb7ff0000000000000", math.inf)]
)
def test_floats_of_four_and_eight_bytes(data: str, value: float) -> None:
    assert wire.decode(bytes.fromhex(data)) == value


def test_not_a_number_arrives() -> None:
    assert math.isnan(wire.decode(wire.encode(math.nan)))


REFUSED = {
    "nothing": "",
    "trailing bytes": "0000",
    "tag": "c11a514b67b0",
    "indefinite text": "7f6161ff",
    "indefinite list": "9f01ff",
    "indefinite map": "bfff",
    "reserved length": "1c",
    "break alone": "ff",
    "undefined": "f7",
    "half float": "f93c00",
    "simple value": "f820",
    "list as a key": "a18001",
    "null as a key": "a1f601",
    "float as a key": "a1fb3ff199999999999a01",
    "list longer than the data": "9a7fffffff00",
    "map longer than the data": "ba7fffffff00",
    "text longer than the data": "7a7fffffff00",
}


@pytest.mark.parametrize("case", REFUSED)
def test_outside_the_subset(case: str) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(bytes.fromhex(REFUSED[case]))


@pytest.mark.parametrize("opening", [b"\x81", b"\xa1\x00"], ids=["lists", "maps"])
def test_nesting_has_a_limit(opening: bytes) -> None:
    assert wire.decode(opening * 64 + b"\x00") is not None
    with pytest.raises(wire.WireError, match="too deeply"):
        wire.decode(opening * 100_000 + b"\x00")


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j, {"a": [object()]}])
def test_a_type_outside_the_subset_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match="cannot send a"):
        wire.encode(value)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_kind_of_bytes_can_be_sent(kind: type) -> None:
    assert wire.decode(wire.encode({"i": kind(b"abc")})) == {"i": b"abc"}


def test_file_names_that_are_no_utf8_come_back() -> None:
    name = b"caf\xe9 \xff".decode("utf-8", "surrogateescape")
    assert wire.encode(name)[1:] == b"caf\xe9 \xff"
    assert wire.decode(wire.encode(name)) == name


@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=4))
@many
def test_a_frame_says_its_length(value: Any) -> None:
    frame = wire.pack(value)
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    assert wire.decode(frame[4:]) == value


def test_the_preamble_names_the_version_of_the_api() -> None:
    assert b"isula\n" + API_VERSION.to_bytes(2, "big") == wire.PREAMBLE
    assert wire.PREAMBLE.startswith(wire.PREAMBLE_MAGIC)
    assert len(wire.PREAMBLE) == 8


def test_it_imports_nothing_that_is_not_there_already() -> None:
    code = (
        "import sys; before = set(sys.modules); import isula_edge.wire as wire;"
        "wire.decode(wire.encode({'a': [1, b'2', 'x', None, True]}));"
        "print(*sorted(set(sys.modules) - before))"
    )
    found = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=f"{os.path.dirname(__file__)}/../..",
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(found.stdout.split()) <= {"__future__", "isula_edge", "isula_edge.wire"}
