"""Ten thousand wrong answers of registries: each ends in an error of the engine, or in none.

Nothing else is raised, nothing is written outside of the graph.  Each example is a seed for
many answers, so that the time goes into them.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
from typing import TYPE_CHECKING, Any, NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isula_edge import errors
from isula_edge.image import manifest as manifests
from isula_edge.image import schema1
from isula_edge.image import search as searching
from isula_edge.image.auth import Authorizer, parse_challenges
from isula_edge.image.credentials import Credentials
from isula_edge.image.digest import of_bytes
from isula_edge.image.pull import PullRequest, pull
from isula_edge.image.registry import Endpoint, Registry
from isula_edge.image.tags import list_tags
from isula_edge.image.transport import Origin, Response, Settings
from isula_edge.snapshot import LayerStore
from tests.fakes.images import FakeLayer, index, make_image, sha256
from tests.fakes.jobs import FakeDaemon
from tests.fakes.mutations import mutations
from tests.fakes.schema1 import EMPTY, make_old

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import pytest

LAYERS = [FakeLayer.of({"a": b"1"}), EMPTY, FakeLayer.of({"b": b"2"})]
HERE = {"os": "linux", "architecture": "amd64"}
OCI, DOCKER = make_image(LAYERS, platform=HERE), make_image(LAYERS, platform=HERE, docker=True)
SIGNED, PLAIN = make_old(LAYERS), make_old(LAYERS, signed=False)
INDEX = index([OCI, DOCKER])
DOCUMENTS = [OCI.manifest, DOCKER.manifest, INDEX, SIGNED.data, PLAIN.data, OCI.config]
TOKEN = b'{"token": "abc", "access_token": "def", "expires_in": 300, "issued_at": "2020-01-01"}'
TAGS = b'{"name": "a/b", "tags": ["v1", "v2"]}'
RESULTS = b'{"results": [{"name": "a", "description": "b", "star_count": 3, "is_official": true}]}'
TYPES = ("", manifests.OCI_INDEX, manifests.DOCKER_MANIFEST, schema1.MEDIA_TYPE, "x" * 5000)

EACH = 50
seeds = st.integers(0, 2**32 - 1)


def rounds(answers: int) -> settings:
    """Examples that make up this many answers."""
    return settings(
        max_examples=answers // EACH,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )


@rounds(6000)
@given(seeds)
def test_documents(seed: int) -> None:
    chance = random.Random(seed)
    for data in mutations(chance, DOCUMENTS, EACH):
        with contextlib.suppress(errors.EngineError):
            manifests.parse(data, chance.choice(TYPES), "x")
        with contextlib.suppress(errors.EngineError):
            manifests.parse_config(data, 3, "x")
        with contextlib.suppress(errors.EngineError):
            payload = schema1.payload(data, "x")
            if payload is not None:
                image = schema1.parse(payload, "x")
                config = image.config([of_bytes(b"")] * len(image.layers))
                # what it makes can be read again
                manifests.parse_config(config, len(image.layers), "x")
                json.loads(config, parse_constant=lambda text: 1 / 0)


@rounds(1500)
@given(seeds)
def test_token_answers(seed: int) -> None:
    chance = random.Random(seed)
    now = 1000.0
    for body in mutations(chance, [TOKEN], EACH):
        asked: list[str] = []

        def fetch(url: str, _authorization: str, body: bytes = body) -> bytes:
            asked.append(url)  # noqa: B023 - called in this round
            return body

        found = Authorizer("h", "a/b", Credentials("u", "p"), fetch, lambda: now)
        with contextlib.suppress(errors.EngineError):
            if found.challenged({"WWW-Authenticate": challenge(chance)}, ""):
                header = found.header()
                assert "\n" not in header
                assert header.isascii()
        assert len(asked) <= 1


CHALLENGES = (
    'Bearer realm="https://t/x?y=1",service="s",scope="repository:a/b:pull"',
    'Basic realm="r", Bearer realm="http://t",error="x"',
    "Negotiate, Digest qop=auth, Bearer realm=https://t",
)


def challenge(chance: random.Random) -> str:
    """A WWW-Authenticate header, often damaged."""
    text = list(chance.choice(CHALLENGES))
    for _ in range(chance.choice((0, 1, 3))):
        text[chance.randrange(len(text))] = chance.choice('",=\\ \x00\xff;a:/\n')
    found = "".join(text) * chance.choice((1, 1, 1, 50))
    assert len(parse_challenges(found)) <= 8
    return found


class Answer(NamedTuple):
    """What a server sends."""

    status: int
    headers: dict[str, str]
    body: bytes


class Raw:
    """A urllib3 response."""

    def __init__(self, answer: Answer) -> None:
        self.status, self.headers, self._body = answer

    def read1(self, size: int, decode_content: bool) -> bytes:
        assert not decode_content
        data, self._body = self._body[:size], self._body[size:]
        return data

    def shutdown(self) -> None:
        """Nothing blocks."""

    def close(self) -> None:
        """Nothing is open."""


class Liar:
    """A transport to a server that answers as it likes: rightly for ``true``, else by chance."""

    def __init__(
        self, daemon: FakeDaemon, chance: random.Random, true: Mapping[str, bytes]
    ) -> None:
        self._daemon, self._chance, self._true = daemon, chance, true
        self.urls: list[str] = []

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Response:
        assert method in ("GET", "POST")
        assert body is None or isinstance(body, bytes)
        assert all("\n" not in value for value in headers.values())
        # the real one refuses what is no URL
        Origin.of(url)
        self.urls.append(url)
        raw: Any = Raw(self._answer(url))
        return Response(raw, "h", self._daemon.job)

    def close(self) -> None:
        """Nothing is open."""

    def _answer(self, url: str) -> Answer:
        chance = self._chance
        right = next((data for part, data in self._true.items() if part in url), b"{}")
        if chance.random() < 0.3:
            return Answer(200, {"Content-Type": chance.choice(TYPES)}, right)
        status = chance.choice((200, 200, 206, 301, 307, 401, 404, 416, 429, 500, 204, 999))
        odd = next(mutations(chance, [*DOCUMENTS, TOKEN, TAGS, RESULTS], 1))
        return Answer(status, self._headers(), chance.choice((right, odd, b"")))

    def _headers(self) -> dict[str, str]:
        chance = self._chance
        words = (
            "", "0", "5", "-1", "9" * 30, "x", "\u0660", "bytes 0-0/5", "bytes 0-0/*", "soon",
            "bytes 7-9/9", "gzip", "deflate",
            "Sat, 01 Jan 2000 00:00:09 GMT", "Sat, 01 Jan 99999 00:00:09",
            "Sat, 01 Jan 2000 00:00:09 -0000", f"sha256:{'a' * 64}", "sha256:", "http://h/v2/x",
            "//other/x", "http://[", "http://h:99999/", "file:///etc/passwd", "ftp://h/", "\x00",
            "https://u:p@h/", "/v2/a/b/tags/list?n=1", "?", "http://" + "a" * 70 + ".b/",
            "<http://h/x>; rel=next", "<>; rel=next", "</v2/>; rel=next", "<x>;rel=" + '"' * 20,
            challenge(chance),
        )  # fmt: skip
        names = (
            "Location", "Link", "WWW-Authenticate", "Content-Length", "Content-Range",
            "Retry-After", "Date", "Docker-Content-Digest", "Content-Encoding", "Content-Type",
        )  # fmt: skip
        return {name: chance.choice(words) for name in names if chance.random() < 0.6}


ACTIONS: tuple[Callable[[Registry], object], ...] = (
    lambda found: found.manifest("latest", manifests.ACCEPT, manifests.MAX_MANIFEST),
    lambda found: found.blob_bytes(OCI.digest, 1 << 20, "x"),
    lambda found: found.blob_size(OCI.digest),
    lambda found: list_tags(found, "a/b"),
    lambda found: searching._parse(found.search("q=x", 1 << 20), "h"),
)


@rounds(2500)
@given(seeds)
def test_headers_statuses_and_bodies(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(EACH):
        daemon = FakeDaemon()
        true = {"/manifests/": OCI.manifest, "/tags/": TAGS, "/search": RESULTS, "/token": TOKEN}
        sender: Any = Liar(daemon, chance, true)
        found = Registry(
            Endpoint(
                chance.choice((("https",), ("https", "http"))), "h", chance.choice(("", "/p"))
            ),
            "a/b",
            "a/b:latest",
            sender,
            daemon.job,
            chance.choice((None, Credentials("u", "p"))),
            patient=False,
        )
        with contextlib.suppress(errors.EngineError):
            found.connect()
        for action in chance.sample(ACTIONS, 2):
            with contextlib.suppress(errors.EngineError):
                action(found)
        assert all(wait <= 72 for wait in daemon.clock.slept)


PULLS = 200


def test_whole_pulls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a pull of a wrong image leaves is layers in the graph, whole ones."""
    chance = random.Random(20240101)
    graph = tmp_path / "graph"
    for name in ("layers", "quarantine", "storage/vfs", "tmp"):
        os.makedirs(graph / name)
    blobs = {layer.digest: layer.blob for layer in LAYERS}
    store = LayerStore(str(graph), "vfs")
    brought = 0
    for round_ in range(PULLS):
        data = next(mutations(chance, [OCI.manifest, SIGNED.data, PLAIN.data, INDEX], 1))
        config = next(mutations(chance, [OCI.config], 1)) if round_ % 4 == 0 else OCI.config
        true = {f"/manifests/{sha256(DOCKER.manifest)}": DOCKER.manifest, **blobs}
        true |= {sha256(OCI.config): config, sha256(DOCKER.config): DOCKER.config}
        true |= {"/manifests/latest": data, "/manifests/": OCI.manifest}
        daemon = FakeDaemon()
        monkeypatch.setattr("isula_edge.image.pull.Transport", _honest(daemon, true))
        wanted = PullRequest(ref="h.io/a/b", tmpdir=str(graph / "tmp"), platform="linux/amd64")
        with contextlib.suppress(errors.EngineError):
            pull(wanted, store, daemon.job)
            brought += 1
        names = os.listdir(graph / "storage/vfs")
        assert not [name for name in names if "ingest" in name]
    assert os.listdir(tmp_path) == ["graph"]
    assert 0 < brought < PULLS


def _honest(daemon: FakeDaemon, true: Mapping[str, bytes]) -> Any:
    """A class of transports to a server that has exactly ``true``."""

    class Honest(Liar):
        def __init__(self, _settings: Settings, _job: object, *, patient: bool) -> None:
            assert patient
            super().__init__(daemon, random.Random(0), true)

        def _answer(self, url: str) -> Answer:
            if url.endswith("/v2/"):
                return Answer(200, {}, b"{}")
            data = next((data for part, data in true.items() if part in url), None)
            if data is None:
                return Answer(404, {}, b"")
            return Answer(200, {"Content-Length": str(len(data))}, data)

    return Honest
