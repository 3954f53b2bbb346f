"""Search for repositories by the v1 API, which Docker Hub and some registries still have."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from isula_edge import errors
from isula_edge.image.clock import ClockWait, earliest
from isula_edge.image.credentials import Credentials
from isula_edge.image.hosts import canonical
from isula_edge.image.places import mirror, registry, try_each
from isula_edge.image.reference import DEFAULT_HOST, split_term
from isula_edge.image.registry import Endpoint, Registry
from isula_edge.image.transport import CERTS_DIR, Settings, Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from isula_edge.image.job import Job

__all__ = ["search"]

LIMIT = 25
MAX_LIMIT = 100
_INDEX = "index.docker.io"
_MAX_BODY = 4 << 20
_MAX_TEXT = 4096
_FLAGS = {"is-official": "official", "is-automated": "automated"}

Found = dict[str, Any]


def search(request: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """Does a worker's request ``search``: ``{"results": [{"name", "description", "stars",
    "official", "automated"}, …]}`` in the registry's order.

    The host in the term is asked, or else the mirrors, until one answers.
    """
    host, term = split_term(str(request.get("term") or ""))
    limit = int(request.get("limit", LIMIT))
    if not 1 <= limit <= MAX_LIMIT:
        raise errors.InvalidArgument(
            f"Limit {limit} is outside the range of [1, {MAX_LIMIT}]", kind="flag", ref="limit"
        )
    wanted = _filter(request.get("filters") or {})
    settings = Settings(
        insecure=tuple(request.get("insecure") or ()),
        skip_verify=bool(request.get("insecure_skip_verify")),
        certs_dir=str(request.get("certs_dir") or CERTS_DIR),
    )
    auths = request.get("auths") or {}
    query = urlencode({"q": term, "n": limit})

    def attempt(endpoint: Endpoint, *, patient: bool) -> list[Found]:
        auth = auths.get(canonical(endpoint.host))
        with contextlib.closing(Transport(settings, job, patient=patient)) as sender:
            place = Registry(
                endpoint,
                "",
                term,
                sender,
                job,
                Credentials.of(auth) if auth else None,
                patient=patient,
            )
            try:
                return _parse(place.search(query, _MAX_BODY), endpoint.host)
            except errors.NotFound as error:
                raise errors.Unimplemented(
                    f"{endpoint.host} offers no search",
                    kind="registry",
                    ref=endpoint.host,
                    hint="search needs the v1 API: give another host, HOST/TERM",
                ) from error

    places = _places(host, request.get("mirrors") or (), settings)
    with contextlib.closing(
        ClockWait(job, float(request.get("clock_timeout") or 0), earliest())
    ) as clock:
        found = try_each(places, attempt, job, clock, request.get("unreachable") or ())
    return {"results": [item for item in found[:limit] if wanted(item)]}


def _places(host: str, mirrors: Sequence[str], settings: Settings) -> list[Endpoint]:
    if host:
        return [registry(_INDEX if host == DEFAULT_HOST else host, settings)]
    if not mirrors:
        raise errors.InvalidArgument(
            "there is no registry to search",
            kind="registry",
            hint='set "registry-mirrors" in daemon.json, or give a host: HOST/TERM',
        )
    places = [mirror(text, settings) for text in mirrors]
    # the host of Docker Hub's images has no index
    return [
        registry(_INDEX, settings) if canonical(place.host) == DEFAULT_HOST else place
        for place in places
    ]


def _filter(filters: Mapping[str, Sequence[str]]) -> Callable[[Found], bool]:
    """Whether a result has everything that is wanted; InvalidArgument names a bad filter."""
    least, flags = 0, []
    for key, values in filters.items():
        for value in values:
            if key == "stars" and value.isascii() and value.isdigit() and len(value) < 10:
                least = max(least, int(value))
            elif key in _FLAGS and value.lower() in ("true", "false", "1", "0"):
                flags.append((_FLAGS[key], value.lower() in ("true", "1")))
            else:
                known = key == "stars" or key in _FLAGS
                text = f"{key}={value}" if known else key
                raise errors.InvalidArgument(
                    f"Invalid filter '{text}'",
                    kind="filter",
                    ref=key,
                    hint="stars=NUMBER, is-official=true|false, is-automated=true|false",
                )
    return lambda item: item["stars"] >= least and all(item[k] is v for k, v in flags)


def _parse(data: bytes, host: str) -> list[Found]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    results = document.get("results") if isinstance(document, dict) else None
    if not isinstance(results, list):
        raise errors.Unavailable(
            f"{host} answers a search with something else than results", kind="registry", ref=host
        )
    return [_result(item) for item in results if isinstance(item, dict) and _text(item, "name")]


def _result(item: Mapping[str, Any]) -> Found:
    stars = item.get("star_count")
    return {
        "name": _text(item, "name"),
        "description": _text(item, "description"),
        "stars": stars if type(stars) is int and 0 <= stars < 1 << 62 else 0,
        "official": item.get("is_official") is True,
        "automated": item.get("is_automated") is True,
    }


def _text(item: Mapping[str, Any], key: str) -> str:
    """One line that a terminal can show."""
    value = item.get(key)
    words = value[:_MAX_TEXT] if isinstance(value, str) else ""
    return " ".join("".join(c if c.isprintable() else " " for c in words).split())
