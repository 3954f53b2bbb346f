"""Damaged input of every kind ends in an error of the engine, never in another exception."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st

from isula_edge import errors
from isula_edge.image import manifest as manifests
from isula_edge.image.archive import Archive
from isula_edge.image.auth import parse_challenges
from isula_edge.image.reference import parse
from tests.fakes.images import FakeLayer, docker_archive, index, make_image

IMAGE = make_image([FakeLayer.of({"a": b"1"})], platform={"os": "linux", "architecture": "arm"})
DOCUMENTS = [IMAGE.manifest, IMAGE.config, index([IMAGE])]
ARCHIVE = docker_archive({"a:1": IMAGE})

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = ("mediaType", "digest", "size", "platform", "annotations", "config", "layers", "manifests")
DESCRIPTOR = st.dictionaries(st.sampled_from(KEYS), JSON, max_size=6)

few = settings(max_examples=100, deadline=None)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """``whole`` with some bytes replaced, left out or put in."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        until = min(len(data), at + draw(st.integers(0, 8)))
        data[at:until] = draw(st.binary(max_size=8))
    return bytes(data)


def read(data: bytes) -> None:
    """Reads ``data`` as all kinds of documents."""
    with contextlib.suppress(errors.EngineError):
        manifests.parse(data, manifests.OCI_INDEX, "x")
    with contextlib.suppress(errors.EngineError):
        manifests.parse_config(data, 1, "x")


@few
@given(st.sampled_from(DOCUMENTS).flatmap(damaged))
def test_damaged_documents(data: bytes) -> None:
    read(data)


@few
@given(DESCRIPTOR, st.lists(DESCRIPTOR, max_size=3), JSON)
def test_odd_documents(
    one: dict[str, object], several: list[dict[str, object]], odd: object
) -> None:
    for document in (
        {"config": one, "layers": several},
        {"manifests": several},
        {"rootfs": one},
        {"rootfs": {"diff_ids": [odd]}, "os": odd, "architecture": odd},
        odd,
    ):
        read(json.dumps(document).encode())


@few
@given(st.text(max_size=300))
def test_names(text: str) -> None:
    with contextlib.suppress(errors.InvalidArgument):
        found = parse(text)
        assert parse(found.familiar).familiar == found.familiar
        assert "\n" not in found.full


@few
@given(st.text(max_size=200))
def test_challenges(text: str) -> None:
    assert len(parse_challenges(text)) <= 8


@few
@given(damaged(ARCHIVE[:6144]))
def test_archives(data: bytes) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        with contextlib.suppress(errors.EngineError):
            archive = Archive(file.fileno())
            for name in ("manifest.json", f"{IMAGE.id}.json", "repositories"):
                archive.read(name, 1 << 20)
        assert os.fstat(file.fileno()).st_size == len(data)
