"""Names of images: what a user types, what is stored, what a registry is asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from isula_edge import errors

__all__ = [
    "DEFAULT_HOST",
    "DEFAULT_TAG",
    "Reference",
    "is_tag",
    "parse",
    "parse_tag",
    "split_term",
]

DEFAULT_HOST = "docker.io"
DEFAULT_TAG = "latest"
_OFFICIAL = "library/"
_ALIASES = {"index.docker.io": DEFAULT_HOST, "registry-1.docker.io": DEFAULT_HOST}
_CONTACT = {DEFAULT_HOST: "registry-1.docker.io"}
_MAX_NAME = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{{1,5}})?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[0-9a-f]{32,}")
_IMAGE_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed image name.

    ``host`` is empty when the user gave none; ``repository`` then is what the user typed,
    without ``library/`` put in front.  ``tag`` is ``latest`` when neither tag nor digest
    was given, and empty when only a digest was.
    """

    host: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def path(self) -> str:
        """Repository as a registry knows it: single words of Docker Hub get ``library/``."""
        if self.host in ("", DEFAULT_HOST) and "/" not in self.repository:
            return _OFFICIAL + self.repository
        return self.repository

    @property
    def contact(self) -> str:
        """Host to talk to, empty when the user gave none."""
        return _CONTACT.get(self.host, self.host)

    @property
    def wanted(self) -> str:
        """What the registry is asked for: the digest if there is one, else the tag."""
        return self.digest or self.tag

    @property
    def familiar_repository(self) -> str:
        """Stored repository: without ``docker.io/`` and a leading ``library/``."""
        if self.host not in ("", DEFAULT_HOST):
            return f"{self.host}/{self.repository}"
        return self.repository.removeprefix(_OFFICIAL)

    @property
    def familiar(self) -> str:
        """Stored name, as the command line shows it: ``busybox:latest``, ``name@sha256:…``."""
        return self.familiar_repository + self._tail()

    @property
    def full(self) -> str:
        """Whole name, as CRI shows it: ``docker.io/library/busybox:latest``."""
        return f"{self.host or DEFAULT_HOST}/{self.path}{self._tail()}"

    def with_digest(self, digest: str) -> str:
        """Stored digest reference ``repository@digest``."""
        return f"{self.familiar_repository}@{digest}"

    def _tail(self) -> str:
        return f"@{self.digest}" if self.digest else f":{self.tag}"


def parse(text: str) -> Reference:
    """The parts of an image name; a missing tag becomes ``latest``.

    Raises InvalidArgument (``Invalid image name``) for anything that is no image name,
    including 64 hexadecimal digits, which are an image id.
    """
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise _invalid(text)
    head, slash, last = rest.rpartition("/")
    last, colon, tag = last.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise _invalid(text)
    name = head + slash + last
    host, repository = _split_host(name)
    if host and not _HOST.fullmatch(host):
        raise _invalid(text)
    if len(name) > _MAX_NAME or not _REPOSITORY.fullmatch(repository):
        raise _invalid(text)
    if not host and _IMAGE_ID.fullmatch(repository):
        raise _invalid(text)
    if not tag and not digest:
        tag = DEFAULT_TAG
    return Reference(_ALIASES.get(host, host), repository, tag, digest)


def parse_tag(text: str) -> Reference:
    """Like :func:`parse`, for a name to be given to an image: a digest is refused."""
    found = parse(text)
    if found.digest:
        raise errors.InvalidArgument(
            f"Invalid image name:{text}",
            kind="image",
            ref=text,
            hint="a name to give cannot have a digest",
        )
    return found


def split_term(text: str) -> tuple[str, str]:
    """The host (or '') and the words of a term to search for, ``[HOST/]TERM``.

    Raises InvalidArgument when there is nothing to search for.
    """
    host, term = _split_host(text.strip())
    host = _ALIASES.get(host, host)
    if host == DEFAULT_HOST:
        term = term.removeprefix(_OFFICIAL)
    if not term or len(term) > _MAX_NAME or (host and not _HOST.fullmatch(host)):
        raise errors.InvalidArgument(
            f"Invalid search term: {text}", kind="term", ref=text, hint="[HOST[:PORT]/]TERM"
        )
    return host, term


def is_tag(text: str) -> bool:
    """Whether ``text`` can be a tag."""
    return _TAG.fullmatch(text) is not None


def _split_host(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first, rest
    return "", name


def _invalid(text: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(
        f"Invalid image name:{text}",
        kind="image",
        ref=text,
        hint="[HOST[:PORT]/]NAME[:TAG][@DIGEST], NAME in lower case",
    )
