"""SPDY/3.1 frames: bytes and back, in any pieces, and hostile bytes."""

from __future__ import annotations

import itertools
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isula_cri.streaming import spdy
from isula_edge.errors import InvalidArgument

IDS = st.integers(1, 0x7FFFFFFF)
WORDS = st.integers(0, 0xFFFFFFFF)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=20)
VALUES = st.text(st.characters(max_codepoint=255), max_size=200)
HEADERS = st.dictionaries(NAMES, VALUES, max_size=8)
FRAMES = st.one_of(
    st.builds(spdy.SynStream, IDS, HEADERS, st.booleans()),
    st.builds(spdy.SynReply, IDS, HEADERS, st.booleans()),
    st.builds(spdy.Headers, IDS, HEADERS, st.booleans()),
    st.builds(spdy.RstStream, IDS, WORDS),
    st.builds(spdy.Settings, st.dictionaries(st.integers(0, 0xFFFFFF), WORDS, max_size=8)),
    st.builds(spdy.Ping, WORDS),
    st.builds(spdy.GoAway, st.integers(0, 0x7FFFFFFF), WORDS),
    st.builds(spdy.WindowUpdate, IDS, st.integers(0, 0x7FFFFFFF)),
    st.builds(spdy.Data, IDS, st.binary(max_size=3000), st.booleans()),
)


def encoded(frame: spdy.Frame, encoder: spdy.Encoder) -> bytes:
    match frame:
        case spdy.SynStream(stream, headers, fin):
            return encoder.syn_stream(stream, headers, fin=fin)
        case spdy.SynReply(stream, headers, fin):
            return encoder.syn_reply(stream, headers, fin=fin)
        case spdy.Headers(stream, headers, fin):
            return encoder.headers(stream, headers, fin=fin)
        case spdy.RstStream(stream, status):
            return spdy.rst_stream(stream, status)
        case spdy.Settings(values):
            return spdy.settings(values)
        case spdy.Ping(number):
            return spdy.ping(number)
        case spdy.GoAway(last, status):
            return spdy.goaway(last, status)
        case spdy.WindowUpdate(stream, delta):
            return spdy.window_update(stream, delta)
        case spdy.Data(stream, data, fin):
            return spdy.data_header(stream, len(data), fin=fin) + data
    raise AssertionError(frame)


def joined(frames: list[spdy.Frame]) -> list[spdy.Frame]:
    """The same frames with the parts of data frames put together."""
    found: list[spdy.Frame] = []
    for frame in frames:
        last = found[-1] if found else None
        if (
            isinstance(frame, spdy.Data)
            and isinstance(last, spdy.Data)
            and last.stream == frame.stream
            and not last.fin
        ):
            found[-1] = spdy.Data(frame.stream, last.data + frame.data, frame.fin)
        else:
            found.append(frame)
    return found


def test_the_dictionary_is_that_of_the_protocol() -> None:
    assert len(spdy.DICTIONARY) == 1423
    assert zlib.adler32(spdy.DICTIONARY) == 0xE3C6A7C2


def test_frames_have_the_bytes_of_the_draft() -> None:
    assert spdy.ping(1) == bytes.fromhex("80030006 00000004 00000001")
    assert spdy.rst_stream(5, 3) == bytes.fromhex("80030003 00000008 00000005 00000003")
    assert spdy.data_header(1, 3, fin=True) == bytes.fromhex("00000001 01000003")
    assert spdy.settings({7: 65536}) == bytes.fromhex(
        "80030004 0000000c 00000001 00000007 00010000"
    )


@given(st.lists(FRAMES, max_size=12), st.lists(st.integers(1, 200), min_size=1, max_size=20))
def test_what_is_encoded_is_decoded_in_any_pieces(
    frames: list[spdy.Frame], sizes: list[int]
) -> None:
    encoder, decoder = spdy.Encoder(), spdy.Decoder()
    data = b"".join(encoded(frame, encoder) for frame in frames)
    found: list[spdy.Frame] = []
    for size in itertools.cycle(sizes):
        found += decoder.feed(data[:size])
        data = data[size:]
        if not data:
            break
    assert joined(found) == joined(frames)


def test_a_large_data_frame_is_handed_out_as_it_comes() -> None:
    decoder = spdy.Decoder()
    assert decoder.feed(spdy.data_header(1, 0xFFFFFF, fin=True)) == []
    assert decoder.feed(b"x" * 1000) == [spdy.Data(1, b"x" * 1000)]
    rest = 0xFFFFFF - 1000
    assert decoder.feed(b"y" * rest + spdy.ping(1)) == [
        spdy.Data(1, b"y" * rest, True),
        spdy.Ping(1),
    ]


def test_frames_of_unknown_types_are_skipped() -> None:
    unknown = bytes.fromhex("8003000a 00000003 010203")
    assert spdy.Decoder().feed(unknown + spdy.ping(3)) == [spdy.Ping(3)]


def block(plain: bytes) -> bytes:
    deflate = zlib.compressobj(9, zdict=spdy.DICTIONARY)
    return deflate.compress(plain) + deflate.flush(zlib.Z_SYNC_FLUSH)


def syn_stream(headers: bytes) -> bytes:
    body = struct.pack(">IIH", 1, 0, 0) + headers
    return struct.pack(">HHI", 0x8003, 1, len(body)) + body


def counted(*texts: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(text)) + text for text in texts)


@pytest.mark.parametrize(
    "data",
    [
        bytes.fromhex("80020006 00000004 00000001"),  # SPDY/2
        bytes.fromhex("80030006 00000003 000001"),
        bytes.fromhex("80030006 00ffffff"),  # 16 MiB of a ping
        bytes.fromhex("80030003 00000008 00000000 00000001"),  # the reset of no stream
        bytes.fromhex("80030004 0000000c 00000009 00000007 00010000"),
        bytes.fromhex("80030007 00000004 00000001"),
        bytes.fromhex("00000000 00000001 61"),  # data of no stream
        bytes.fromhex("80030001 00000002 0001"),
        syn_stream(b"no zlib"),
        syn_stream(block(struct.pack(">I", 1) + counted(b"name"))),
        syn_stream(block(struct.pack(">I", 1) + counted(b"", b"value"))),
        syn_stream(block(struct.pack(">I", 2) + counted(b"a", b"1", b"A", b"2"))),
        syn_stream(block(struct.pack(">I", 0) + b"more")),
        syn_stream(block(struct.pack(">I", 1000) + counted(b"a", b"") * 1000)),
        syn_stream(block(struct.pack(">I", 1) + counted(b"bomb", b"0" * 10_000_000))),
    ],
)
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument, match="SPDY"):
        spdy.Decoder().feed(data)


@settings(max_examples=300)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=64),
            st.builds(
                lambda kind, flags, body: struct.pack(">HHI", 0x8003, kind, flags << 24 | len(body))
                + body,
                st.integers(0, 12),
                st.integers(0, 3),
                st.binary(max_size=40),
            ),
        ),
        max_size=10,
    )
)
def test_garbage_is_refused_or_read_and_nothing_grows(pieces: list[bytes]) -> None:
    decoder = spdy.Decoder()
    given_bytes = 0
    for piece in pieces:
        given_bytes += len(piece)
        try:
            frames = decoder.feed(piece)
        except InvalidArgument:
            return
        got = sum(len(frame.data) for frame in frames if isinstance(frame, spdy.Data))
        assert got <= given_bytes
