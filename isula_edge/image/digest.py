"""Digests of content and chain ids of layers (OCI image-spec, descriptor and config)."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Protocol

from isula_edge import errors
from isula_edge.types import ChainId, Digest

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Hasher", "chain_ids", "check", "hasher", "of_bytes", "parse_digest", "verify_bytes"]

_FORMS = {
    "sha256": re.compile(r"[0-9a-f]{64}"),
    "sha384": re.compile(r"[0-9a-f]{96}"),
    "sha512": re.compile(r"[0-9a-f]{128}"),
}


class Hasher(Protocol):
    """The part of a hashlib object that is used here."""

    def update(self, data: bytes, /) -> None:
        """Adds ``data``."""

    def hexdigest(self) -> str:
        """The digest of all data so far."""


def parse_digest(text: object, what: str) -> Digest:
    """``text`` as a digest of a known algorithm; ``what`` names it in the InvalidArgument."""
    if isinstance(text, str):
        algorithm, _, value = text.partition(":")
        form = _FORMS.get(algorithm)
        if form is not None and form.fullmatch(value):
            return Digest(text)
    raise errors.InvalidArgument(f"{what} is no digest: {str(text)[:160]!r}", kind="digest")


def hasher(digest: str) -> Hasher:
    """A fresh hash object for the algorithm of ``digest``."""
    return hashlib.new(digest.partition(":")[0], usedforsecurity=False)


def of_bytes(data: bytes) -> Digest:
    """sha256 digest of ``data``."""
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


def verify_bytes(data: bytes, digest: Digest, what: str) -> None:
    """Raises DigestMismatch naming ``what`` unless ``data`` has ``digest``."""
    calculated = hasher(digest)
    calculated.update(data)
    check(calculated, digest, what)


def check(calculated: Hasher, digest: Digest, what: str) -> None:
    """Raises DigestMismatch unless the data given to ``calculated`` has ``digest``."""
    algorithm, _, value = digest.partition(":")
    found = calculated.hexdigest()
    if found != value:
        raise errors.DigestMismatch(
            f"{what} has digest {algorithm}:{found} instead of {digest}",
            kind="digest",
            ref=digest,
        )


def chain_ids(diff_ids: Iterable[Digest]) -> list[ChainId]:
    """Chain ids of layers given bottom-up."""
    found: list[ChainId] = []
    for diff_id in diff_ids:
        if found:
            found.append(ChainId(of_bytes(f"{found[-1]} {diff_id}".encode())))
        else:
            found.append(ChainId(diff_id))
    return found
