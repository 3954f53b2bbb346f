"""Records on disk: they come back as written, and damage never goes unnoticed or is fatal."""

from __future__ import annotations

import logging
import os
import struct
import zlib
from typing import TYPE_CHECKING, Any

import cbor2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isula_edge import errors
from isula_edge.store import RecordStore, read_record, records, schema, write_record

if TYPE_CHECKING:
    from pathlib import Path

PAYLOAD = {"chain_id": "sha256:ab", "size": 5, "dir": "ab", "list": [1, "x", None, True, b"\0"]}

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63)) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
on_disk = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def path(tmp_path: Path) -> str:
    found = str(tmp_path / "layer.cbor")
    write_record(found, "layer", PAYLOAD)
    return found


def raw(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def put(path: str, data: bytes | bytearray) -> None:
    with open(path, "wb") as file:
        file.write(data)


def framed(body: bytes, version: int = 1, magic: bytes = b"ISR1") -> bytes:
    return struct.pack(">4sHII", magic, version, len(body), zlib.crc32(body)) + body


def test_a_record_comes_back(path: str) -> None:
    assert read_record(path, "layer") == PAYLOAD


@given(payload=st.dictionaries(st.text(), VALUES, max_size=5))
@on_disk
def test_every_payload_comes_back(tmp_path: Path, payload: dict[str, Any]) -> None:
    path = str(tmp_path / "any.cbor")
    write_record(path, "image", payload, durable=False)
    assert read_record(path, "image") == payload


def test_the_layout_on_disk(path: str) -> None:
    assert raw(path) == framed(cbor2.dumps(PAYLOAD), schema.CURRENT["layer"])
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_a_missing_record_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_record(str(tmp_path / "absent"), "layer")


def test_a_record_cut_off_anywhere_is_damaged(path: str) -> None:
    whole = raw(path)
    for end in range(len(whole)):
        put(path, whole[:end])
        with pytest.raises(errors.DamagedRecord, match="layer record") as caught:
            read_record(path, "layer")
        assert (caught.value.kind, caught.value.ref) == ("layer", path)


def test_a_record_with_any_bit_turned_is_damaged(path: str) -> None:
    whole = raw(path)
    version_zero = 5 * 8
    for bit in set(range(len(whole) * 8)) - {version_zero}:
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        put(path, data)
        with pytest.raises((errors.DamagedRecord, schema.NewerRecord)):
            read_record(path, "layer")


def test_a_version_that_never_was_is_damaged(path: str) -> None:
    put(path, framed(cbor2.dumps(PAYLOAD), version=0))
    with pytest.raises(errors.DamagedRecord):
        read_record(path, "layer")


@pytest.mark.parametrize("tail", [b"\0", b"x" * 1000])
def test_bytes_behind_a_record_are_damage(path: str, tail: bytes) -> None:
    put(path, raw(path) + tail)
    with pytest.raises(errors.DamagedRecord):
        read_record(path, "layer")


@given(data=st.binary(max_size=200))
@on_disk
def test_random_bytes_are_damage(tmp_path: Path, data: bytes) -> None:
    path = str(tmp_path / "random.cbor")
    put(path, data)
    with pytest.raises(errors.DamagedRecord):
        read_record(path, "layer")


@pytest.mark.parametrize("body", [b"", b"\xff", b"\xa1", b"\x80", b"\x01", b"\xa1\x61", b"\x1c"])
def test_a_good_checksum_does_not_make_a_payload(path: str, body: bytes) -> None:
    put(path, framed(body))
    with pytest.raises(errors.DamagedRecord):
        read_record(path, "layer")


@pytest.mark.parametrize("kind", schema.CURRENT)
@pytest.mark.parametrize("ahead", [1, 1000])
def test_a_record_of_the_future_says_which_version_is_needed(
    path: str, kind: str, ahead: int
) -> None:
    version = schema.CURRENT[kind] + ahead
    put(path, framed(cbor2.dumps({}), version))
    with pytest.raises(schema.NewerRecord, match=f"schema {version}") as caught:
        read_record(path, kind)
    assert "newer isulad" in caught.value.hint


def test_an_old_record_goes_through_every_migration(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(schema.CURRENT, "layer", 4)
    monkeypatch.setitem(schema.MIGRATIONS, ("layer", 2), lambda old: {**old, "third": old["size"]})
    monkeypatch.setitem(schema.MIGRATIONS, ("layer", 3), lambda old: {**old, "fourth": True})
    put(path, framed(cbor2.dumps(PAYLOAD), version=1))
    found = read_record(path, "layer")
    assert found == {**PAYLOAD, "recipe": 0, "third": 5, "fourth": True}


def test_every_version_that_was_has_a_migration() -> None:
    wanted = {(kind, old) for kind, now in schema.CURRENT.items() for old in range(1, now)}
    assert set(schema.MIGRATIONS) == wanted


def test_every_kind_is_in_the_description() -> None:
    assert schema.__doc__ is not None
    lines = [line.split()[:2] for line in schema.__doc__.splitlines() if line]
    assert {kind: str(version) for kind, version in schema.CURRENT.items()}.items() <= {
        line[0]: line[1] for line in lines if len(line) == 2
    }.items()


# directories of records


@pytest.fixture
def store(tmp_path: Path) -> RecordStore:
    found = RecordStore(f"{tmp_path}/layers", "layer", f"{tmp_path}/quarantine")
    for key in ("a", "b", "c"):
        found.write(key, {"key": key})
    return found


def test_records_are_loaded_by_key(store: RecordStore) -> None:
    assert list(store.load()) == [(key, {"key": key}) for key in "abc"]
    assert store.quarantined == []


def test_a_record_is_replaced(store: RecordStore) -> None:
    store.write("b", {"key": "new"})
    assert store.read("b") == {"key": "new"}


def test_removing_is_final_and_may_be_repeated(store: RecordStore) -> None:
    store.remove("b")
    store.remove("b")
    assert store.read("b") is None
    assert [key for key, _ in store.load()] == ["a", "c"]


def test_a_removal_needs_no_space(store: RecordStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_kwargs: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    store.remove("a")
    assert store.read("a") is None
    with pytest.raises(errors.NoSpace):
        store.write("b", {"key": "new"})
    assert store.read("b") == {"key": "b"}


@pytest.mark.parametrize("damage", ["empty", "truncated", "zeros", "random"])
def test_a01_a_damaged_record_is_put_aside_and_the_rest_goes_on(
    store: RecordStore, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = raw(store.path("b"))
    data = {
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "zeros": bytes(len(whole)),
        "random": os.urandom(len(whole)),
    }[damage]
    put(store.path("b"), data)
    with caplog.at_level(logging.ERROR):
        assert [key for key, _ in store.load()] == ["a", "c"]
    assert len(store.quarantined) == 1
    assert raw(store.quarantined[0]) == data
    assert store.quarantined[0] in caplog.text
    assert not os.path.exists(store.path("b"))
    assert store.read("b") is None
    assert len(store.quarantined) == 1


def test_what_is_put_aside_twice_is_kept_twice(store: RecordStore) -> None:
    for data in (b"first", b"second", b"third"):
        put(store.path("a"), data)
        assert store.read("a") is None
    assert [raw(moved) for moved in store.quarantined] == [b"first", b"second", b"third"]
    assert len(set(store.quarantined)) == 3


def test_the_name_in_quarantine_says_where_it_was(store: RecordStore) -> None:
    put(store.path("a"), b"")
    store.read("a")
    name = os.path.basename(store.quarantined[0])
    assert name.replace("%", "/") == store.path("a").strip("/")


def test_a_record_far_below_the_root_can_be_put_aside(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d" * 60] * 4)
    store = RecordStore(f"{deep}/layers", "layer", f"{deep}/quarantine")
    put(store.path("a"), b"")
    assert list(store.load()) == []
    assert len(store.quarantined) == 1


def test_a01_a_record_that_cannot_be_read_is_not_fatal(
    store: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = records.read_record

    def read(path: str, kind: str) -> dict[str, Any]:
        if path == store.path("b"):
            raise OSError(5, "Input/output error", path)
        return real(path, kind)

    monkeypatch.setattr(records, "read_record", read)
    assert [key for key, _ in store.load()] == ["a", "c"]


def test_other_files_are_no_records(store: RecordStore) -> None:
    for name in ("notes.txt", "a.cbor.bak"):
        put(f"{store.folder}/{name}", b"x")
    assert [key for key, _ in store.load()] == ["a", "b", "c"]
    assert os.path.exists(f"{store.folder}/notes.txt")


def test_loading_removes_what_a_crash_left_and_opening_does_not(store: RecordStore) -> None:
    """A worker opens the store while others write."""
    put(f"{store.folder}/.tmp-b.cbor-1-2", b"half")
    again = RecordStore(store.folder, "layer", store.quarantine_dir)
    assert len(os.listdir(again.folder)) == 4
    list(again.load())
    assert sorted(os.listdir(again.folder)) == ["a.cbor", "b.cbor", "c.cbor"]


def test_a_record_of_a_newer_engine_is_left_where_it_is(
    store: RecordStore, caplog: pytest.LogCaptureFixture
) -> None:
    data = framed(raw(store.path("b"))[14:], 9)
    put(store.path("b"), data)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert [key for key, _ in store.load()] == ["a", "c"]
    assert caplog.text.count(store.path("b")) == 1
    assert (store.newer, store.quarantined) == ({"b"}, [])
    assert raw(store.path("b")) == data
    store.remove("b")
    assert store.newer == set()
