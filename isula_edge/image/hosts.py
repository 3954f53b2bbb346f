"""Names of registries: how users and config.json write them, and which of them are one.

Docker Hub has four names and one key in config.json; every other registry is its
``host[:port]``.  A port that is left out is not the same as 443, as with Docker.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.image.reference import DEFAULT_HOST, parse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["canonical", "checked", "contact", "home", "key_of", "of_pull"]

_HUB_KEY = "https://index.docker.io/v1/"
_HUB_CONTACT = "registry-1.docker.io"
_HUB = (DEFAULT_HOST, "index.docker.io", _HUB_CONTACT)
_LABEL = r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]+\])(?::[0-9]{{1,5}})?")


def canonical(text: str) -> str:
    """``host[:port]`` in lower case of a name or URL; all names of Docker Hub become one."""
    scheme, separator, rest = text.strip().partition("://")
    host = (rest if separator else scheme).partition("/")[0].lower()
    return DEFAULT_HOST if host in _HUB else host


def checked(server: str) -> str:
    """:func:`canonical` of what a user typed; InvalidArgument when that is no registry."""
    scheme, separator, _ = server.strip().partition("://")
    host = canonical(server)
    if (separator and scheme not in ("http", "https")) or not _HOST.fullmatch(host):
        raise errors.InvalidArgument(
            f"Invalid registry server: {server}",
            kind="registry",
            ref=server,
            hint="[http[s]://]HOST[:PORT]",
        )
    return host


def key_of(host: str) -> str:
    """The key under which config.json and helpers know a canonical ``host``."""
    return _HUB_KEY if host == DEFAULT_HOST else host


def contact(host: str) -> str:
    """Host to talk to for a canonical ``host``."""
    return _HUB_CONTACT if host == DEFAULT_HOST else host


def home(ref: str) -> str:
    """The registry that an image's name belongs to: Docker Hub if it has no host."""
    return canonical(parse(ref).host or DEFAULT_HOST)


def of_pull(
    ref: str, mirrors: Sequence[str], host_mirrors: Mapping[str, Sequence[str]]
) -> list[str]:
    """The registries, canonical, that a pull of ``ref`` may ask."""
    reference = parse(ref)
    if reference.host:
        texts = [*host_mirrors.get(reference.host, ()), reference.host]
    else:
        texts = list(mirrors)
    return list(dict.fromkeys(canonical(text) for text in texts))
