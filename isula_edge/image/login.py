"""Login: whether a registry accepts credentials, asked before they are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.image import hosts
from isula_edge.image.auth import Credentials
from isula_edge.image.registry import Endpoint, Registry
from isula_edge.image.transport import CERTS_DIR, Settings, Transient, Transport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isula_edge.image.job import Job
    from isula_edge.image.transport import Response

__all__ = ["login", "verify"]


class _Login(Registry):
    """A registry that is asked for nothing but whether it knows the user."""

    def verify(self) -> str:
        """The identity token that the registry gave for the password, or ''."""
        self.connect()
        self._retrying(lambda: self._get("", {}).close())
        return self._authorizer.identity_token

    def _refused(self, response: Response, path: str) -> errors.EngineError:
        if response.status == 401:
            return errors.PermissionDenied(
                f"login to registry for {self._name} failed: invalid username/password",
                kind="registry",
                ref=self._name,
            )
        error = super()._refused(response, path)
        return error if isinstance(error, Transient) else self._answered(response.status)

    def _answered(self, status: int) -> errors.Unavailable:
        return errors.Unavailable(
            f"login to registry for {self._name} failed: server response code {status}",
            kind="registry",
            ref=self._name,
            hint="is it a registry of the v2 API?" if status == 404 else "",
        )

    def checked(self) -> str:
        """Like :meth:`verify`, with a login's words for errors of the server."""
        try:
            return self.verify()
        except Transient as error:
            if not error.status:
                raise
            raise self._answered(error.status) from error


def verify(
    host: str, credentials: Credentials, settings: Settings, job: Job, *, plain: bool = False
) -> str:
    """Returns what is to be kept instead of the password, an identity token, or ''.

    ``host`` is canonical; ``plain`` asks by plain HTTP alone.  Raises PermissionDenied for
    wrong credentials, Unavailable for anything else that the registry answers.
    """
    address = hosts.contact(host)
    schemes = ("https", "http") if settings.is_insecure(address) else ("https",)
    endpoint = Endpoint(("http",) if plain else schemes, address)
    transport = Transport(settings, job)
    try:
        return _Login(endpoint, "", host, transport, job, credentials, offline=True).checked()
    finally:
        transport.close()


def login(request: dict[str, Any], job: Job) -> dict[str, Any]:
    """Does a worker's request ``login``: ``{"identity_token": token or ''}``."""
    host = hosts.checked(str(request.get("server") or ""))
    settings = Settings(
        insecure=tuple(request.get("insecure") or ()),
        skip_verify=bool(request.get("insecure_skip_verify")),
        certs_dir=str(request.get("certs_dir") or CERTS_DIR),
    )
    credentials = Credentials.of(request.get("auth") or {})
    plain = _is_plain(host, request.get("mirrors") or ())
    return {"identity_token": verify(host, credentials, settings, job, plain=plain)}


def _is_plain(host: str, mirrors: Sequence[str]) -> bool:
    """Whether ``host`` is a mirror that is written with ``http://``."""
    return any(text.startswith("http://") and hosts.canonical(text) == host for text in mirrors)
