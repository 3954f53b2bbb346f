"""Single answers: slow, cut, too large; URLs; and what failures are called."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from urllib3 import exceptions as http_errors

from isula_edge import errors
from isula_edge.image.transport import Origin, Response, Transient, translate
from tests.fakes.jobs import FakeDaemon


class Body:
    """A urllib3 response: each piece takes its time on the fake clock."""

    status = 200

    def __init__(self, daemon: FakeDaemon, pieces: list[tuple[float, bytes]]) -> None:
        self.headers: dict[str, str] = {}
        self._daemon = daemon
        self._pieces = pieces
        self.closed = False

    def read1(self, _size: int, decode_content: bool) -> bytes:
        assert not decode_content
        if not self._pieces:
            return b""
        seconds, data = self._pieces.pop(0)
        self._daemon.clock.now += seconds
        return data

    def shutdown(self) -> None:
        raise RuntimeError

    def close(self) -> None:
        self.closed = True


def response(*pieces: tuple[float, bytes]) -> tuple[Response, FakeDaemon]:
    daemon = FakeDaemon()
    body: Any = Body(daemon, list(pieces))
    return Response(body, "h", daemon.job), daemon


def packed(encoding: str, *pieces: bytes) -> Response:
    found, _ = response(*[(0.0, piece) for piece in pieces])
    found.headers = {"Content-Encoding": encoding}
    return found


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip"])
def test_a_document_that_a_proxy_has_compressed(encoding: str) -> None:
    data = gzip.compress(b"x" * 100_000)
    assert packed(encoding, data[:7], data[7:]).read_all(1 << 20, "x") == b"x" * 100_000


def test_a_compressed_document_has_the_same_limit() -> None:
    bomb = gzip.compress(bytes(100 << 20))
    with pytest.raises(errors.ResourceExhausted):
        packed("gzip", bomb).read_all(1 << 20, "x")


def test_damaged_compression() -> None:
    with pytest.raises(Transient, match="damaged data"):
        packed("gzip", b"no gzip").read_all(100, "x")


def test_a_slow_transfer_is_left_alone() -> None:
    found, _ = response(*[(1.0, b"x" * 1100)] * 120)
    assert len(found.read_all(1 << 20, "x")) == 120 * 1100


def test_a_stalled_transfer_is_cut() -> None:
    found, _ = response((0.0, b"x" * 100_000), *[(10.0, b"x")] * 20)
    with pytest.raises(Transient, match="stalled"):
        found.read_all(1 << 20, "x")


def test_a_slow_reader_is_no_stalled_transfer() -> None:
    found, daemon = response(*[(0.1, b"x" * 1000)] * 20)
    for _ in range(20):
        assert found.read(1000)
        # the disk took its time
        daemon.clock.now += 100


def test_a_limit() -> None:
    found, _ = response(*[(0.0, b"x" * 60)] * 2)
    with pytest.raises(errors.ResourceExhausted, match="it from h is larger than 100 bytes"):
        found.read_all(100, "it")


def test_shutdown_when_there_is_nothing_left() -> None:
    found, _ = response()
    found.shutdown()
    found.drain()


def test_a_cancelled_job_reads_no_more() -> None:
    found, daemon = response((0.0, b"x"))
    daemon.job.cancel()
    with pytest.raises(errors.Aborted):
        found.read(1)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://h/x", Origin("http", "h")),
        ("HTTPS://H:443/x", Origin("https", "h")),
        ("https://h:80", Origin("https", "h:80")),
        ("http://[::1]:5000/", Origin("http", "[::1]:5000")),
    ],
)
def test_origins(url: str, origin: Origin) -> None:
    assert Origin.of(url) == origin


@pytest.mark.parametrize(
    "url", ["", "/v2/", "ftp://h/", "file:///etc/passwd", "http://", "http://h:x/"]
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        Origin.of(url)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionResetError(104, "Connection reset by peer"), "h was cut: Connection reset"),
        (http_errors.ProtocolError("Connection broken", OSError(5, "I/O")), "h was cut: I/O"),
        (http_errors.ReadTimeoutError(None, "/", "Read timed out."), "h sent nothing for 30 s"),  # type: ignore[arg-type]
        (http_errors.ConnectTimeoutError(None, "timed out"), "cannot connect to h: no answer"),
    ],
)
def test_failures_name_the_host(error: Exception, text: str) -> None:
    found = translate(error, "h")
    assert isinstance(found, Transient)
    assert text in str(found)
    assert found.retryable
