"""Client of one repository at one registry: manifests and blobs of the v2 API.

Every request is one try; :class:`Retry` decides whether and when there is another, so
that a blob's cut connections and a manifest's ``500`` follow the same rules.
"""

from __future__ import annotations

import email.utils
import json
import random
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urljoin

from isula_edge import errors
from isula_edge.image.auth import Authorizer
from isula_edge.image.foreign import open_elsewhere
from isula_edge.image.proxies import split_port
from isula_edge.image.transport import CannotConnect, Origin, TlsFailed, Transient

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from isula_edge.image.auth import Credentials
    from isula_edge.image.job import Job
    from isula_edge.image.transport import Response, Transport

__all__ = ["Endpoint", "Registry", "Retry", "next_page"]

RETRIES = 5
_FIRST_WAIT_S = 0.3
_MAX_RETRY_AFTER_S = 60.0
_MAX_REDIRECTS = 10
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_ERROR_BODY = 64 * 1024
_MAX_TOKEN_BODY = 1 << 20
_MAX_LINK = 8192
_LINK = re.compile(r"<([^<>]*)>([^<>,]*)")
_NEXT = re.compile(r";\s*rel\s*=\s*(?:\"[^\"]*\bnext\b|next\b)", re.IGNORECASE)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a repository is asked for: schemes in the order to try, host, path before /v2/."""

    schemes: tuple[str, ...]
    host: str
    prefix: str = ""

    @property
    def insecure(self) -> bool:
        """Whether plain HTTP is allowed."""
        return "http" in self.schemes


class Retry:
    """Counts failures without progress in between and waits before the next of ``tries``."""

    def __init__(self, job: Job, tries: int = RETRIES) -> None:
        self._job = job
        self._tries = tries
        self._failures = 0

    def progress(self) -> None:
        """Something was achieved: the count starts again."""
        self._failures = 0

    def failed(self, error: Transient) -> None:
        """Waits until another try makes sense, or raises ``error`` when all have failed."""
        self._failures += 1
        if self._failures > self._tries:
            raise error
        spread = random.uniform(0.8, 1.2)  # noqa: S311  # no secret: tries must not meet
        wait_s = _FIRST_WAIT_S * 2 ** (self._failures - 1) * spread
        if error.wait_s is not None:
            wait_s = min(max(error.wait_s, wait_s), _MAX_RETRY_AFTER_S)
        self._job.sleep(wait_s)


class Registry:
    """One repository at ``endpoint``.  ``name`` is the image's, for messages.

    ``patient`` False asks for manifests and configs twice at most: there is another place.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        repository: str,
        name: str,
        transport: Transport,
        job: Job,
        credentials: Credentials | None = None,
        *,
        offline: bool = False,
        patient: bool = True,
    ) -> None:
        self.endpoint = endpoint
        self._tries = RETRIES if patient else 1
        self._elsewhere: dict[str, Sequence[str]] = {}
        self._repository = repository
        self._name = name
        self._transport = transport
        self._job = job
        self._base = ""
        self._reached = False
        self._authorizer = Authorizer(
            endpoint.host,
            repository,
            credentials,
            self._fetch_token,
            job.now,
            post=self._post_token,
            offline=offline,
        )

    def connect(self) -> None:
        """Finds the scheme that the registry speaks and whether it wants authorization.

        Raises Unavailable naming the host when it cannot be reached.
        """
        self._find_scheme(self._ping)

    def _find_scheme(self, action: Callable[[], _T]) -> _T:
        """What ``action`` returns by the first scheme that the registry speaks."""
        *first, last = self.endpoint.schemes
        for scheme in first:
            self._speak(scheme)
            try:
                return action()
            except (TlsFailed, Transient) as error:
                if self._same_elsewhere(error):
                    raise
                if not (isinstance(error, Transient) and error.status):
                    continue
                # it answered with an error status, so this is its scheme
                return self._retrying(action)
        self._speak(last)
        return self._retrying(action)

    def _speak(self, scheme: str) -> None:
        self._base = f"{scheme}://{self.endpoint.host}{self.endpoint.prefix}/v2/"

    def _same_elsewhere(self, error: errors.EngineError) -> bool:
        """Whether no other scheme can help: the port is given and nobody listens there."""
        return isinstance(error, CannotConnect) and bool(split_port(self.endpoint.host)[1])

    def manifest(self, wanted: str, accept: str, limit: int) -> tuple[bytes, str, str]:
        """Manifest by tag or digest: the bytes, Content-Type, and Docker-Content-Digest or ''."""

        def get() -> tuple[bytes, str, str]:
            response = self._get(f"{self._repository}/manifests/{wanted}", {"Accept": accept})
            try:
                body = response.read_all(limit, f"the manifest {wanted}")
            finally:
                response.close()
            media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
            return body, media_type, response.headers.get("Docker-Content-Digest", "").strip()

        return self._retrying(get)

    def blob_bytes(self, digest: str, limit: int, what: str) -> bytes:
        """A small blob, whole; not verified."""

        def get() -> bytes:
            response = self.open_blob(digest, 0)
            try:
                return response.read_all(limit, what)
            finally:
                response.close()

        return self._retrying(get)

    def open_blob(self, digest: str, offset: int) -> Response:
        """The answer to one request for a blob from ``offset`` on: status 200 or 206.

        Raises Transient where the caller may try again.
        """
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            return self._get(f"{self._repository}/blobs/{digest}", headers)
        except (errors.NotFound, errors.PermissionDenied, errors.Unavailable) as error:
            urls = self._elsewhere.get(digest)
            if isinstance(error, Transient) or not urls:
                raise
            return open_elsewhere(partial(self._follow, checked=True), urls, headers, error)

    def also_at(self, digest: str, urls: Sequence[str]) -> None:
        """Lets :meth:`open_blob` ask ``urls`` for a blob that the registry refuses."""
        self._elsewhere[digest] = urls

    def blob_size(self, digest: str) -> int:
        """Size in bytes of a blob that no descriptor describes, without bringing it."""

        def get() -> int:
            # no HEAD: some registries, and the storages they redirect to, have none
            response = self._get(f"{self._repository}/blobs/{digest}", {"Range": "bytes=0-0"})
            try:
                text = response.headers.get("Content-Length", "")
                if response.status == 206:
                    text = response.headers.get("Content-Range", "").rpartition("/")[2]
                if text.isascii() and text.isdigit() and len(text) < 16:
                    return int(text)
                raise self._untrusted(f"does not tell the size of blob {digest}")
            finally:
                response.close()

        return self._retrying(get)

    def page(self, path: str, limit: int, what: str) -> tuple[bytes, str]:
        """A JSON answer below ``/v2/NAME/`` and the URL of the page after it, or ''."""
        whole = path if "://" in path else f"{self._base}{self._repository}/{path}"

        def get() -> tuple[bytes, str]:
            response = self._get(whole, {})
            try:
                return response.read_all(limit, what), response.headers.get("Link", "")
            finally:
                response.close()

        data, link = self._retrying(get)
        target = next_page(link)
        if not target:
            return data, ""
        url = self._join(whole, target)
        # our authorization would go there
        if Origin.of(url) != Origin.of(self._base):
            raise self._untrusted(f"continues its list at {Origin.of(url).host}")
        return data, url

    def search(self, query: str, limit: int) -> bytes:
        """The answer to a search by the v1 API; needs no :meth:`connect`."""

        def get() -> bytes:
            response = self._get(f"{self._base.removesuffix('v2/')}v1/search?{query}", {})
            try:
                return response.read_all(limit, "the result of the search")
            finally:
                response.close()

        return self._find_scheme(get)

    def _retrying(self, action: Callable[[], _T]) -> _T:
        retry = Retry(self._job, self._tries)
        while True:
            try:
                return action()
            except CannotConnect as error:
                # a host that never answered is down or does not exist: say so at once
                if not self._reached:
                    raise
                retry.failed(error)
            except Transient as error:
                retry.failed(error)

    def _ping(self) -> None:
        response = self._follow(self._base, {})
        try:
            self._reached = True
            if response.status == 401 and not response.elsewhere:
                self._authorizer.challenged(response.headers, "", probe=True)
            elif response.status == 429 or response.status >= 500:
                raise self._refused(response, self._base)
            response.drain()
        finally:
            response.close()

    def _get(self, path: str, headers: Mapping[str, str]) -> Response:
        """One authorized GET; a 401 leads to one more with new authorization."""
        by_digest = "://" not in path and ":" in path
        url = path if "://" in path else self._base + path
        for last in (False, True):
            authorization = self._authorizer.header()
            extra = {"Authorization": authorization} if authorization else {}
            response = self._follow(url, {**headers, **extra}, checked=by_digest)
            self._reached = True
            if response.status in (200, 206):
                return response
            try:
                # whoever a redirect led to has no say in where our credentials go
                refused = response.status == 401 and not last and not response.elsewhere
                if refused and self._authorizer.challenged(response.headers, authorization):
                    response.drain()
                    continue
                raise self._refused(response, path)
            finally:
                response.close()
        raise errors.Internal("unreachable")

    def _follow(self, url: str, headers: Mapping[str, str], *, checked: bool = False) -> Response:
        """GET with redirects; Authorization goes to no other origin than that of ``url``.

        Only what is ``checked`` by its digest may come over plain HTTP instead of HTTPS.
        """
        origin = Origin.of(url)
        sent = dict(headers)
        for _ in range(_MAX_REDIRECTS):
            response = self._transport.send("GET", url, sent)
            location = response.headers.get("Location", "")
            if response.status not in _REDIRECTS or not location:
                response.elsewhere = Origin.of(url) != origin
                return response
            response.drain()
            response.close()
            url = self._join(url, location)
            target = Origin.of(url)
            if target != origin:
                sent.pop("Authorization", None)
            if target.scheme != origin.scheme == "https" and not checked:
                raise self._untrusted(f"redirects from HTTPS to plain HTTP at {target.host}")
        raise self._untrusted("redirects in a loop")

    def _join(self, url: str, target: str) -> str:
        try:
            return urljoin(url, target)
        except ValueError as error:
            raise self._untrusted(f"leads to {target[:200]!r}, which is no URL") from error

    def _untrusted(self, what: str) -> errors.Unavailable:
        host = self.endpoint.host
        return errors.Unavailable(f"{host} {what}", kind="registry", ref=host)

    def _fetch_token(self, url: str, authorization: str) -> bytes:
        if authorization:
            self._check_secret(url)
        headers = {"Authorization": authorization} if authorization else {}
        return self._token_body(self._follow(url, headers))

    def _post_token(self, url: str, form: bytes) -> bytes | None:
        """Answer to a form with a secret, which no redirect takes elsewhere; None for no POST."""
        self._check_secret(url)
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        response = self._transport.send("POST", url, headers, form)
        if response.status in (404, 405):
            response.drain()
            response.close()
            return None
        return self._token_body(response)

    def _check_secret(self, url: str) -> None:
        target = Origin.of(url)
        if target.scheme == "http" and not self.endpoint.insecure:
            raise self._untrusted(f"asks for a password over plain HTTP at {target.host}")

    def _token_body(self, response: Response) -> bytes:
        try:
            if response.status != 200:
                raise self._refused(response, "token")
            return response.read_all(_MAX_TOKEN_BODY, "the token")
        finally:
            response.close()

    def _refused(self, response: Response, path: str) -> errors.EngineError:
        """The error that an answer other than success stands for."""
        host, status = self.endpoint.host, response.status
        if status in (401, 403):
            return errors.PermissionDenied(
                f"authentication failed: {host} denies access to {self._name}{_detail(response)}",
                kind="image",
                ref=self._name,
                hint=f"check the name, or log in with `isula login {host}`",
            )
        if status == 404 and "/blobs/" in path:
            digest = path.rpartition("/")[2]
            text = f"{host} does not have blob {digest} of {self._name}"
            return errors.NotFound(text, kind="blob", ref=digest)
        if status == 404:
            return errors.NotFound(
                f"Image not found in registry: {self._name} at {host}",
                kind="image",
                ref=self._name,
                hint="check the name and the tag",
            )
        wait_s = _retry_after(response.headers)
        if status == 429:
            return Transient(
                f"{host} allows no more requests now (status 429){_detail(response)}",
                host,
                hint="try again later, or use a mirror",
                status=status,
                wait_s=wait_s,
            )
        text = f"registry response invalid status code {status} from {host} for {self._name}"
        if status >= 500 or status in (408, 416):
            return Transient(text + _detail(response), host, status=status, wait_s=wait_s)
        return errors.Unavailable(text + _detail(response), kind="registry", ref=host)


def next_page(header: str) -> str:
    """Target of ``rel=next`` in a Link header (RFC 8288), or ''."""
    for target, parameters in _LINK.findall(header[:_MAX_LINK]):
        if _NEXT.search(parameters):
            return str(target).strip()
    return ""


def _detail(response: Response) -> str:
    """The first message of a registry's error answer, made fit for one line, or ''."""
    try:
        body = json.loads(response.read_all(_MAX_ERROR_BODY, "the error"))
        message = str(body["errors"][0]["message"])
    except (errors.EngineError, ValueError, LookupError, TypeError, RecursionError):
        return ""
    text = "".join(char for char in message[:200] if char.isprintable())
    return f": {text}" if text else ""


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that Retry-After asks for; a date counts from the server's own Date."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    if not text:
        return None
    try:
        until = email.utils.parsedate_to_datetime(text)
        now = email.utils.parsedate_to_datetime(headers.get("Date", ""))
        return max(0.0, (until - now).total_seconds())
    except (TypeError, ValueError):
        return None
