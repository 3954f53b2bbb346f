"""A registry for tests that serves what it is given, as badly as it is told to.

::

    with FakeRegistry() as registry:
        registry.add("library/busybox", "latest", make_image([FakeLayer.of({"a": b"1"})]))
        registry.faults.cut_at = [0.25, 0.5]
        ... registry.host, registry.url, registry.requests, registry.sent_bytes(digest)

It also runs by itself, for tries by hand: ``python -m tests.fakes.registry LAYOUT``
(an OCI layout directory).
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import re
import secrets
import ssl
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tests.fakes.images import OCI_INDEX, FakeImage, sha256
from tests.fakes.serving import HttpServer, Serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.fakes.certificates import Pair

__all__ = ["MISSING", "FakeRegistry", "Faults", "Seen"]

MISSING = object()
_BLOB = re.compile(r"/v2/(?P<name>.+)/blobs/(?P<ref>[^/]+)")
_MANIFEST = re.compile(r"/v2/(?P<name>.+)/manifests/(?P<ref>[^/]+)")
_TAGS = re.compile(r"/v2/(?P<name>.+)/tags/list")
_CHUNK = 64 * 1024


@dataclass
class Faults:
    """What goes wrong; everything is off at first and may be changed at any time."""

    header_case: str = "usual"
    """usual, lower, upper, or mixed: how header names are written."""
    api_version: bool = True
    """Whether Docker-Distribution-Api-Version is sent."""
    content_type: bool = True
    """Whether manifests have their Content-Type (otherwise text/plain)."""
    cut_at: list[float] = field(default_factory=list)
    """The next blob answers end after this part of the whole blob (0 to 1)."""
    hold_at: list[float] = field(default_factory=list)
    """The next blob answers stop after this part of the whole blob until the client leaves."""
    gate: threading.Event | None = None
    """Blob answers stop in their middle until this is set."""
    cut_from_bytes: int = 4096
    """Smaller blobs (configs) are neither cut nor held."""
    ranges: str = "yes"
    """yes; no: a Range is answered by 200; wrong: by 206 from another place; refused: by 416."""
    statuses: dict[str, list[tuple[int, dict[str, str]]]] = field(default_factory=dict)
    """Part of a path: status and headers of the next answers to it."""
    always: dict[str, int] = field(default_factory=dict)
    """Part of a path: status of every answer to it."""
    bytes_per_s: int = 0
    """Blobs are sent this slowly; 0 for no limit."""
    corrupt: set[str] = field(default_factory=set)
    """Digests of blobs and manifests that are sent with a bit turned over."""
    stated_digest: str = ""
    """Docker-Content-Digest of manifests, if not the right one."""
    page: int = 0
    """Tags in one answer, whatever was asked for; 0 for all."""
    redirect_blobs: str = ""
    """Blobs are redirected to this ``http[s]://host:port``."""
    auth: str = ""
    """'' for none, ``basic``, or ``bearer``."""
    users: dict[str, str] = field(default_factory=dict)
    """Names and passwords; with ``bearer`` and no users everybody gets a token."""
    expires_in: object = MISSING
    """``expires_in`` of token answers; MISSING leaves it out."""
    token_life_s: float = 3600.0
    """How long tokens are really accepted, by ``clock``."""
    token_key: str = "token"
    realm: str = ""
    """Token server of the challenge, if it is not the registry itself."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One request: what was asked, by which headers (names lower case), how it was answered."""

    method: str
    path: str
    headers: dict[str, str]
    status: int
    sent: int


class FakeRegistry(Serving):
    """Serves on ``address`` in threads of this process; HTTPS with ``tls``."""

    def __init__(
        self,
        tls: Pair | None = None,
        clock: Callable[[], float] = time.monotonic,
        address: str = "127.0.0.1",
    ) -> None:
        self.faults = Faults()
        self._requests: list[Seen] = []
        self.begun: list[str] = []
        """Digests of blobs whose answers have begun."""
        self.tokens_issued = 0
        self._clock = clock
        self._blobs: dict[str, bytes | str] = {}
        self._manifests: dict[tuple[str, str], tuple[bytes, str]] = {}
        self._documents: dict[str, tuple[bytes, dict[str, str]]] = {}
        self._tokens: dict[str, float] = {}
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._active = 0
        self._server = _Server((address, 0), _Handler)
        self._server.registry = self
        if tls is not None:
            self.use(tls)
        self.host = f"{address}:{self._server.server_address[1]}"
        self.url = f"{'https' if tls is not None else 'http'}://{self.host}"
        super().__init__(self._server)

    def use(self, tls: Pair, clients: Path | None = None) -> None:
        """Shows another certificate from now on; asks for one that ``clients`` has signed."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)
        if clients is not None:
            # with 1.3 the refusal comes after the handshake, and may be lost with the connection
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(clients)
        self._server.context = context

    def put_blob(self, data: bytes) -> str:
        """Holds ``data``; its digest."""
        digest = sha256(data)
        self._blobs[digest] = data
        return digest

    def replace_blob(self, digest: str, data: bytes) -> None:
        """Serves ``data`` under a digest that is another's."""
        self._blobs[digest] = data

    def put_blob_file(self, digest: str, path: str) -> None:
        """Holds the content of a file, which is read when it is asked for."""
        self._blobs[digest] = path

    def put_manifest(
        self, repository: str, tag: str, data: bytes, media_type: str, digest: str = ""
    ) -> str:
        """Gives ``data`` a tag and its digest as names in ``repository``; the digest."""
        digest = digest or sha256(data)
        for name in filter(None, (tag, digest)):
            self._manifests[repository, name] = (data, media_type)
        return digest

    def add(self, repository: str, tag: str, image: FakeImage) -> FakeImage:
        """Holds the image with all its blobs."""
        self.put_blob(image.config)
        for layer in image.layers:
            self.put_blob(layer.blob)
        self.put_manifest(repository, tag, image.manifest, image.media_type)
        return image

    def put_document(self, path: str, data: bytes, **headers: str) -> None:
        """Answers GETs of ``path`` (without its query) with ``data``."""
        self._documents[path] = (data, headers)

    def add_layout(self, repository: str, layout: str) -> list[str]:
        """Holds the images of an OCI layout directory; their tags."""
        with open(f"{layout}/index.json", "rb") as file:
            entries = json.load(file)["manifests"]
        for name in os.listdir(f"{layout}/blobs/sha256"):
            self.put_blob_file(f"sha256:{name}", f"{layout}/blobs/sha256/{name}")
        tags = []
        for entry in entries:
            with open(f"{layout}/blobs/{entry['digest'].replace(':', '/')}", "rb") as file:
                data = file.read()
            notes = entry.get("annotations", {})
            tags.append(notes.get("org.opencontainers.image.ref.name", "latest"))
            self.put_manifest(repository, tags[-1], data, entry["mediaType"])
        return tags

    def add_index(self, repository: str, tag: str, data: bytes, *images: FakeImage) -> str:
        """Holds an index and the images it names; the digest of the index."""
        for image in images:
            self.add(repository, "", image)
        return self.put_manifest(repository, tag, data, OCI_INDEX)

    @property
    def requests(self) -> list[Seen]:
        """All requests, as :meth:`seen` has them."""
        return self.seen("")

    def forget(self) -> None:
        """Forgets the requests so far, those too that are just being answered."""
        self.seen("")
        with self._lock:
            self._requests.clear()

    def seen(self, part: str) -> list[Seen]:
        """Requests whose path contains ``part``, in the order of their ends.

        Waits for those that are still being answered, but not for long.
        """
        with self._idle:
            self._idle.wait_for(lambda: self._active == 0, 2)
            return [request for request in self._requests if part in request.path]

    def sent_bytes(self, part: str) -> int:
        """Bytes of bodies sent with status 200 or 206 for paths that contain ``part``."""
        return sum(item.sent for item in self.seen(part) if item.status in (200, 206))

    # used by the handler

    def begin(self) -> None:
        """A request is being answered."""
        with self._lock:
            self._active += 1

    def note(self, seen: Seen) -> None:
        """Remembers a request that has been answered."""
        with self._idle:
            self._active -= 1
            self._requests.append(seen)
            self._idle.notify_all()

    def blob(self, digest: str) -> bytes | str | None:
        """Content, or the path of a file with it."""
        return self._blobs.get(digest)

    def document(self, path: str) -> tuple[bytes, dict[str, str]] | None:
        """Body and headers."""
        return self._documents.get(path)

    def tags(self, repository: str) -> list[str]:
        """Tags in order."""
        return sorted(
            name for repo, name in self._manifests if repo == repository and ":" not in name
        )

    def manifest(self, repository: str, name: str) -> tuple[bytes, str] | None:
        """Bytes and media type."""
        return self._manifests.get((repository, name))

    def fault(self, path: str) -> tuple[int, dict[str, str]] | None:
        """Status and headers to answer with instead of the truth."""
        with self._lock:
            for part, status in self.faults.always.items():
                if part in path:
                    return status, {}
            for part, answers in self.faults.statuses.items():
                if part in path and answers:
                    return answers.pop(0)
        return None

    def next_cut(self, size: int) -> float | None:
        """Where the next answer with a blob of ``size`` bytes ends, if it is to be cut."""
        with self._lock:
            cuts = self.faults.cut_at if size >= self.faults.cut_from_bytes else []
            return cuts.pop(0) if cuts else None

    def next_hold(self, size: int) -> float | None:
        """Where the next answer with a blob of ``size`` bytes stops, if it is to be held."""
        with self._lock:
            holds = self.faults.hold_at if size >= self.faults.cut_from_bytes else []
            return holds.pop(0) if holds else None

    def issue_token(self) -> dict[str, Any]:
        """A new token, as its server answers."""
        token = secrets.token_hex(8)
        with self._lock:
            self.tokens_issued += 1
            self._tokens[token] = self._clock() + self.faults.token_life_s
        answer: dict[str, Any] = {self.faults.token_key: token}
        if self.faults.expires_in is not MISSING:
            answer["expires_in"] = self.faults.expires_in
        return answer

    def revoke_tokens(self) -> None:
        """No token issued so far is accepted any more."""
        with self._lock:
            self._tokens.clear()

    def token_is_good(self, token: str) -> bool:
        """Whether it was issued and is still alive."""
        return self._clock() < self._tokens.get(token, float("-inf"))


class _Server(HttpServer):
    registry: FakeRegistry


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""

    def send_header(self, keyword: str, value: str) -> None:
        how = self.server.registry.faults.header_case
        if how == "lower":
            keyword = keyword.lower()
        elif how == "upper":
            keyword = keyword.upper()
        elif how == "mixed":
            pairs = zip(keyword, itertools.cycle((str.lower, str.upper)), strict=False)
            keyword = "".join(change(char) for char, change in pairs)
        super().send_header(keyword, value)

    def do_GET(self) -> None:
        """Any request."""
        registry = self.server.registry
        self._sent = 0
        self._status = 0
        registry.begin()
        try:
            self._route(registry)
        finally:
            headers = {name.lower(): value for name, value in self.headers.items()}
            registry.note(Seen(self.command, self.path, headers, self._status, self._sent))

    def do_HEAD(self) -> None:
        """The same without a body."""
        self.do_GET()

    def _route(self, registry: FakeRegistry) -> None:
        fault = registry.fault(self.path)
        if fault is not None:
            status, headers = fault
            self._answer(status, _error_body("FAULT"), headers)
            return
        path = urlsplit(self.path).path
        if path == "/token":
            self._token(registry)
        elif not self._authorized(registry):
            return
        elif path == "/v2/":
            self._answer(200, b"{}")
        elif document := registry.document(path):
            self._answer(200, *document)
        elif found := _TAGS.fullmatch(path):
            self._tags(registry, found["name"])
        elif found := _MANIFEST.fullmatch(path):
            self._manifest(registry, found["name"], found["ref"])
        elif found := _BLOB.fullmatch(path):
            self._blob(registry, found["ref"])
        else:
            self._answer(404, _error_body("NAME_UNKNOWN"))

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self._head(status, len(body), headers)
        if self.command != "HEAD":
            self.wfile.write(body)
            self._sent += len(body)

    def _head(self, status: int, length: int, headers: Mapping[str, str] | None = None) -> None:
        self._status = status
        self.send_response(status)
        if self.server.registry.faults.api_version:
            self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        self.send_header("Content-Length", str(length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()

    def _authorized(self, registry: FakeRegistry) -> bool:
        faults = registry.faults
        given = self.headers.get("Authorization", "")
        if not faults.auth:
            return True
        if faults.auth == "basic":
            if self._user(registry):
                return True
            challenge = 'Basic realm="fake registry"'
        else:
            if given.startswith("Bearer ") and registry.token_is_good(given[7:]):
                return True
            realm = faults.realm or f"{registry.url}/token"
            challenge = f'Bearer realm="{realm}",service="fake"'
            if found := re.match(r"/v2/(.+)/(?:manifests|blobs)/", self.path):
                challenge += f',scope="repository:{found[1]}:pull"'
        headers = {"WWW-Authenticate": challenge}
        self._answer(401, _error_body("UNAUTHORIZED"), headers)
        return False

    def _user(self, registry: FakeRegistry) -> bool:
        given = self.headers.get("Authorization", "")
        if not given.startswith("Basic "):
            return False
        name, _, password = base64.b64decode(given[6:]).decode().partition(":")
        return registry.faults.users.get(name) == password

    def _token(self, registry: FakeRegistry) -> None:
        if registry.faults.users and not self._user(registry):
            self._answer(401, _error_body("UNAUTHORIZED"))
            return
        query = parse_qs(urlsplit(self.path).query)
        if "scope" not in query or query.get("service") != ["fake"]:
            self._answer(400, _error_body("SCOPE"))
            return
        self._answer(200, json.dumps(registry.issue_token()).encode())

    def _manifest(self, registry: FakeRegistry, name: str, ref: str) -> None:
        found = registry.manifest(name, ref)
        if found is None:
            self._answer(404, _error_body("MANIFEST_UNKNOWN"))
            return
        data, media_type = found
        digest = sha256(data)
        if digest in registry.faults.corrupt:
            data = _turn_bit(data)
        headers = {
            "Content-Type": media_type if registry.faults.content_type else "text/plain",
            "Docker-Content-Digest": registry.faults.stated_digest or digest,
        }
        self._answer(200, data, headers)

    def _tags(self, registry: FakeRegistry, name: str) -> None:
        query = parse_qs(urlsplit(self.path).query)
        tags = [tag for tag in registry.tags(name) if tag > query.get("last", [""])[0]]
        page = registry.faults.page
        body = json.dumps({"name": name, "tags": tags[:page] if page else tags}).encode()
        headers = {}
        if page and len(tags) > page:
            headers["Link"] = f'</v2/{name}/tags/list?last={tags[page - 1]}&n={page}>; rel="next"'
        self._answer(200, body, headers)

    def _blob(self, registry: FakeRegistry, digest: str) -> None:
        faults = registry.faults
        content = registry.blob(digest)
        if content is None:
            self._answer(404, _error_body("BLOB_UNKNOWN"))
            return
        if faults.redirect_blobs:
            self._answer(307, b"", {"Location": faults.redirect_blobs + self.path})
            return
        size = len(content) if isinstance(content, bytes) else os.path.getsize(content)
        start = self._start()
        if self._is_odd_range(faults, content, size, start):
            return
        if start and faults.ranges == "wrong":
            start += 1
        partial = start > 0 and faults.ranges != "no"
        start = start if partial else 0
        cut, hold = registry.next_cut(size), registry.next_hold(size)
        end = size if cut is None else int(size * cut)
        end = end if hold is None else int(size * hold)
        headers = {"Content-Type": "application/octet-stream"}
        if partial:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        self._head(206 if partial else 200, size - start, headers)
        if self.command == "HEAD":
            return
        registry.begun.append(digest)
        for piece in _pieces(content, start, end):
            if faults.gate is not None and size >= faults.cut_from_bytes and 2 * self._sent >= size:
                faults.gate.wait(60)
            data = _turn_bit(piece) if digest in faults.corrupt else piece
            self.wfile.write(data)
            self._sent += len(data)
            if faults.bytes_per_s:
                time.sleep(len(data) / faults.bytes_per_s)
        if hold is not None:
            with contextlib.suppress(OSError):
                self.connection.recv(1)
        if end < size:
            self.close_connection = True

    def _is_odd_range(
        self, faults: Faults, content: bytes | str, size: int, start: int
    ) -> bool:
        """Whether it was a probe of one byte, or a range that is refused: both answered."""
        if self.headers.get("Range") == "bytes=0-0" and faults.ranges != "no":
            first = next(_pieces(content, 0, 1), b"")
            self._answer(206, first, {"Content-Range": f"bytes 0-0/{size}"})
            return True
        if start and faults.ranges == "refused":
            self._answer(416, b"")
            return True
        return False

    def _start(self) -> int:
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(found[1]) if found else 0


def _pieces(content: bytes | str, start: int, end: int) -> Iterator[bytes]:
    if isinstance(content, bytes):
        for at in range(start, end, _CHUNK):
            yield content[at : min(at + _CHUNK, end)]
        return
    with open(content, "rb") as file:
        file.seek(start)
        left = end - start
        while left > 0 and (data := file.read(min(_CHUNK, left))):
            left -= len(data)
            yield data


def _turn_bit(data: bytes) -> bytes:
    return data[:-1] + bytes((data[-1] ^ 1,)) if data else data


def _error_body(code: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": f"fake {code.lower()}"}]}).encode()


def _main(layout: str) -> None:
    """Serves the images of an OCI layout directory until interrupted."""
    with FakeRegistry() as registry:
        for tag in registry.add_layout("library/image", layout):
            sys.stdout.write(f"{registry.url}/library/image:{tag}\n")
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    _main(sys.argv[1])
