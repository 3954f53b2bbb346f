"""Connections to registries: TLS, certificates, proxies, and what their failures mean.

urllib3 (2.3 or later) is imported here and in no other module; its exceptions do not
leave this one.
"""

from __future__ import annotations

import base64
import datetime
import ssl
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

import urllib3
from urllib3 import exceptions as http_errors

from isula_edge import errors
from isula_edge.image import certificates, proxies

if TYPE_CHECKING:
    from collections.abc import Mapping

    from urllib3 import BaseHTTPResponse

    from isula_edge.image.job import Job

__all__ = [
    "CERTS_DIR",
    "CannotConnect",
    "NotYetValid",
    "Origin",
    "Response",
    "Settings",
    "TlsFailed",
    "Transient",
    "Transport",
]

CERTS_DIR = "/etc/isulad/certs.d"
CONNECT_S = 30.0
SHORT_CONNECT_S = 10.0
"""Enough for four tries of TCP; where another place follows, nobody waits longer."""
STALLED_S = 30.0
STALLED_BYTES = 30 * 1024
"""Fewer bytes than this in :data:`STALLED_S` seconds (1 KB/s) are a stalled transfer."""
_TOTAL_CONNECTIONS = 16
_ANY_ZLIB = 47
# whoever lists a registry as insecure has been told
urllib3.disable_warnings(http_errors.InsecureRequestWarning)

# codes of X509_verify_cert_error_string(3)
_NOT_YET_VALID, _EXPIRED = 9, 10
# reasons of SSL_R_…; the third one is that of OpenSSL 3.5
_SPEAKS_HTTP = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")
_WANTS_CERTIFICATE = ("CERTIFICATE_REQUIRED", "ALERT_HANDSHAKE_FAILURE", "ALERT_BAD_CERTIFICATE")


class Transient(errors.Unavailable):
    """The request may succeed when sent again, after ``wait_s`` seconds if the server said so.

    ``status`` is that of the answer, 0 when there was none.
    """

    def __init__(
        self,
        message: str,
        host: str,
        *,
        hint: str = "",
        status: int = 0,
        wait_s: float | None = None,
    ) -> None:
        super().__init__(message, kind="registry", ref=host, hint=hint, retryable=True)
        self.status = status
        self.wait_s = wait_s


class CannotConnect(Transient):
    """No connection to the host could be made."""


class TlsFailed(errors.Unavailable):
    """The host was reached and no TLS session came to be."""


class NotYetValid(TlsFailed):
    """By the local clock the host's certificate is of the future."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port: who is meant by a URL."""

    scheme: str
    host: str

    @classmethod
    def of(cls, url: str) -> Origin:
        """The origin of an absolute URL; InvalidArgument if it has none."""
        try:
            parts = urllib3.util.parse_url(url)
        except http_errors.LocationParseError:
            parts = urllib3.util.Url()
        if parts.scheme not in ("http", "https") or not parts.host:
            raise errors.InvalidArgument(f"no http or https URL: {url[:200]!r}", ref=url[:200])
        default = 443 if parts.scheme == "https" else 80
        port = "" if parts.port in (None, default) else f":{parts.port}"
        return cls(parts.scheme, parts.host + port)


@dataclass(frozen=True, slots=True)
class Settings:
    """How to connect: ``insecure`` hosts and networks, no verification at all, certs.d."""

    insecure: tuple[str, ...] = ()
    skip_verify: bool = False
    certs_dir: str = CERTS_DIR

    def is_insecure(self, host: str) -> bool:
        """Whether ``host[:port]`` may be spoken to without verification, and in plain HTTP."""
        # Docker, too, takes a scheme that people write there as if it were not
        listed = [item.rpartition("://")[2].removesuffix("/") for item in self.insecure]
        networks = [item for item in listed if "/" in item]
        return host in listed or proxies.in_networks(host, (*proxies.LOOPBACK, *networks))


class Response:
    """An answer whose body is read piece by piece; closing it is the caller's duty."""

    def __init__(self, raw: BaseHTTPResponse, host: str, job: Job) -> None:
        self._raw = raw
        self._host = host
        self._job = job
        self._since = self._paused = job.now()
        self._bytes = 0
        self.elsewhere = False
        """Whether a redirect led to another origin than the one that was asked."""
        self.status = raw.status
        self.headers: Mapping[str, str] = raw.headers

    def read(self, size: int) -> bytes:
        """What is there, at most ``size`` bytes, waiting for at least one; empty at the end.

        Raises Transient when the connection is cut or transfers less than 1 KB/s.
        """
        self._job.check()
        started = self._job.now()
        try:
            data = self._raw.read1(size, decode_content=False) or b""
        except (http_errors.HTTPError, OSError) as error:
            self._job.check()
            raise translate(error, self._host) from error
        # time between two reads is the reader's own (a slow disk), not the link's
        self._since += max(0.0, started - self._paused)
        now = self._paused = self._job.now()
        self._bytes += len(data)
        if now - self._since >= STALLED_S:
            if self._bytes < STALLED_BYTES:
                raise Transient(f"transfer from {self._host} has stalled", self._host)
            self._since, self._bytes = now, 0
        return data

    def read_all(self, limit: int, what: str) -> bytes:
        """The whole body; ResourceExhausted naming ``what`` when above ``limit`` bytes."""
        parts: list[bytes] = []
        length = 0
        # some proxies compress documents though the request says not to
        packed = self.headers.get("Content-Encoding", "").lower() in ("gzip", "x-gzip", "deflate")
        inflate = zlib.decompressobj(_ANY_ZLIB) if packed else None
        while data := self.read(65536):
            plain = data if inflate is None else self._inflated(inflate, data, limit)
            parts.append(plain)
            length += len(plain)
            if length > limit:
                raise errors.ResourceExhausted(
                    f"{what} from {self._host} is larger than {limit} bytes",
                    kind="registry",
                    ref=self._host,
                )
        return b"".join(parts)

    def _inflated(self, inflate: zlib._Decompress, data: bytes, limit: int) -> bytes:
        try:
            return inflate.decompress(data, limit + 1)
        except zlib.error as error:
            raise Transient(f"{self._host} sent damaged data: {error}", self._host) from error

    def drain(self) -> None:
        """Throws a small rest of the body away, so that the connection can be used again."""
        try:
            for _ in range(16):
                if not self.read(65536):
                    return
        except errors.Unavailable:
            pass
        self._raw.close()

    def close(self) -> None:
        """Ends the answer; a connection whose body was read to its end is kept for others."""
        self._raw.close()

    def shutdown(self) -> None:
        """Wakes a thread that is blocked in :meth:`read`; it gets an error."""
        try:
            self._raw.shutdown()
        except (ValueError, RuntimeError, OSError):
            # the body was read to its end, or the connection is gone
            return


class Transport:
    """Sends single requests; keeps connections open between them.

    ``patient`` False gives up sooner on a host that does not answer.
    """

    def __init__(self, settings: Settings, job: Job, *, patient: bool = True) -> None:
        self.settings = settings
        self._job = job
        self._connect_s = CONNECT_S if patient else SHORT_CONNECT_S
        self._pools: dict[Origin, urllib3.PoolManager] = {}

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Response:
        """The answer to one request; redirects and error statuses are answers too."""
        self._job.check()
        origin = Origin.of(url)
        try:
            raw = self._pool(origin).urlopen(
                method,
                url,
                body=body,
                headers={"Accept-Encoding": "identity", "User-Agent": "isula-edge", **headers},
                redirect=False,
                retries=False,
                preload_content=False,
                timeout=urllib3.Timeout(connect=self._connect_s, read=STALLED_S),
            )
        except (http_errors.HTTPError, OSError) as error:
            raise translate(error, origin.host) from error
        return Response(raw, origin.host, self._job)

    def close(self) -> None:
        """Closes all connections."""
        for pool in self._pools.values():
            pool.clear()

    def _pool(self, origin: Origin) -> urllib3.PoolManager:
        pool = self._pools.get(origin)
        if pool is None:
            context = self._context(origin.host) if origin.scheme == "https" else None
            proxy = proxies.for_url(origin.scheme, origin.host)
            if proxy:
                pool = _proxy_pool(proxy, context)
            else:
                pool = urllib3.PoolManager(4, maxsize=_TOTAL_CONNECTIONS, ssl_context=context)
            self._pools[origin] = pool
        return pool

    def _context(self, host: str) -> ssl.SSLContext:
        # an origin does not show the default port; directories and lists may
        names = (host,) if proxies.split_port(host)[1] else (host, f"{host}:443")
        if self.settings.skip_verify or any(map(self.settings.is_insecure, names)):
            # to read all authorities of the machine takes longer than a small pull
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        else:
            context = ssl.create_default_context()
            # Python 3.13 asks more of an authority than other engines do, and than many a
            # device's own has: the extension keyUsage
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        for name in names:
            certificates.load(context, self.settings.certs_dir, name)
        return context


def _proxy_pool(proxy: str, context: ssl.SSLContext | None) -> urllib3.PoolManager:
    shown = proxy.rpartition("@")[2]
    try:
        parts = urllib3.util.parse_url(proxy)
        # urllib3 quotes what is not, and sends it so
        user = unquote(parts.auth or "").encode()
        basic = f"Basic {base64.b64encode(user).decode('ascii')}"
        return urllib3.ProxyManager(
            proxy,
            4,
            proxy_headers={"Proxy-Authorization": basic} if user else None,
            maxsize=_TOTAL_CONNECTIONS,
            ssl_context=context,
        )
    except http_errors.LocationParseError as error:
        # the text of this one has a part of the password
        raise errors.InvalidArgument(
            f"the proxy {shown!r} of the environment is no URL",
            ref=shown,
            hint="special characters of its user name and password are written as %XX",
        ) from error
    except (http_errors.HTTPError, ValueError) as error:
        raise errors.InvalidArgument(
            f"the proxy {shown!r} of the environment cannot be used: {error}", ref=shown
        ) from error


def translate(error: Exception, host: str) -> errors.EngineError:
    """What a failed connection means to a user, naming ``host``."""
    cause = _root(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _bad_certificate(cause, host)
    if isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return Transient(f"connection to {host} was cut", host)
    if isinstance(cause, ssl.SSLError):
        return TlsFailed(
            f"TLS with {host} failed: {cause.reason or cause}",
            kind="registry",
            ref=host,
            hint=_tls_hint(str(cause), host),
        )
    if isinstance(error, http_errors.ProxyError):
        text = _text(cause)
        hint = "give the proxy's URL a user name and password" if " 407 " in f"{text} " else ""
        return CannotConnect(f"cannot connect to {host} through the proxy: {text}", host, hint=hint)
    if isinstance(error, http_errors.ConnectTimeoutError):
        return CannotConnect(
            f"cannot connect to {host}: {_connect_text(error, cause)}",
            host,
            hint="check the network and the name of the registry",
        )
    if isinstance(error, http_errors.ReadTimeoutError):
        return Transient(f"{host} sent nothing for {STALLED_S:.0f} s", host)
    return Transient(f"connection to {host} was cut: {_text(cause)}", host)


def _tls_hint(reason: str, host: str) -> str:
    """What may help against OpenSSL's ``reason``."""
    if any(word in reason for word in _SPEAKS_HTTP):
        return f"{host} speaks plain HTTP; list it under insecure-registries in daemon.json"
    if any(word in reason for word in _WANTS_CERTIFICATE):
        return f"it may want a client certificate: certs.d/{host}/client.cert and client.key"
    return ""


def _bad_certificate(cause: ssl.SSLCertVerificationError, host: str) -> errors.EngineError:
    if cause.verify_code in (_NOT_YET_VALID, _EXPIRED):
        local = datetime.datetime.fromtimestamp(time.time(), datetime.UTC).isoformat()[:19]
        early = cause.verify_code == _NOT_YET_VALID
        state = "is not yet valid" if early else "has expired"
        return (NotYetValid if early else TlsFailed)(
            f"TLS with {host} failed: its certificate {state}; the local time is {local}Z",
            kind="registry",
            ref=host,
            hint="if the local time is wrong, set the clock and try again",
            retryable=True,
        )
    return TlsFailed(
        f"TLS with {host} failed: {cause.verify_message}",
        kind="registry",
        ref=host,
        hint=f"put its CA into certs.d/{host}/ca.crt or list {host} under insecure-registries",
    )


def _connect_text(error: Exception, cause: BaseException) -> str:
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    if isinstance(error, http_errors.NewConnectionError):
        return _text(cause)
    return "no answer in time"


def _root(error: BaseException) -> BaseException:
    """The innermost exception that ``error`` was raised from."""
    seen = error
    for _ in range(8):
        inner: object = seen.__cause__
        if inner is None and seen.args and isinstance(seen.args[-1], BaseException):
            inner = seen.args[-1]
        if not isinstance(inner, BaseException):
            break
        seen = inner
    return seen


def _text(cause: BaseException) -> str:
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(cause)[:200] or type(cause).__name__
