"""Network configurations: one JSON document, parsed into a list of plugins."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.network import versions

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "NATIVE_PREFIX",
    "NetworkConf",
    "capabilities_of",
    "check_name",
    "flag",
    "load_object",
    "parse_conf",
    "parse_list",
    "parse_plugin",
]

NATIVE_PREFIX = "isulacni-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# the name is part of the name of a file in the result cache
_LONGEST_NAME = 150


@dataclass(frozen=True, slots=True)
class NetworkConf:
    """A network: its name and the plugins that are run for it, first to last.

    ``versions`` are the specification versions that it may be used with, oldest first;
    ``document`` is the whole list as JSON values; ``native`` marks networks that
    ``isula network`` made, which pods do not use.
    """

    name: str
    versions: tuple[str, ...]
    plugins: tuple[dict[str, Any], ...]
    document: dict[str, Any] = field(repr=False)
    disable_check: bool = False
    disable_gc: bool = False
    native: bool = False
    path: str = ""

    def capabilities(self) -> set[str]:
        """Capabilities that at least one plugin declares."""
        return {name for plugin in self.plugins for name in capabilities_of(plugin)}

    def pinned(self, version: str) -> dict[str, Any]:
        """The document for exactly ``version``: what a later DEL is to be done with."""
        rest = {key: value for key, value in self.document.items() if key != "cniVersions"}
        return {**rest, "name": self.name, "cniVersion": version, "plugins": list(self.plugins)}


def capabilities_of(plugin: dict[str, Any]) -> list[str]:
    """Capabilities that ``plugin`` declares with true."""
    declared = plugin.get("capabilities")
    if not isinstance(declared, dict):
        return []
    return [name for name, wanted in declared.items() if wanted is True]


def check_name(name: str, what: str) -> None:
    """Raises InvalidArgument when ``name`` is no CNI name: letters, digits, ``_``, ``.``, ``-``."""
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        raise errors.InvalidArgument(f"invalid {what}: {name[:200]!r}", ref=name[:200])


def load_object(data: bytes, what: str) -> dict[str, Any]:
    """``data`` as a JSON object; raises InvalidArgument naming ``what``."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise errors.InvalidArgument(f"{what} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise errors.InvalidArgument(f"{what} is no JSON object")
    return value


def parse_plugin(raw: object) -> dict[str, Any]:
    """``raw`` if it is a plugin's configuration; raises InvalidArgument."""
    if not isinstance(raw, dict):
        raise errors.InvalidArgument("a plugin's configuration is no JSON object")
    kind = raw.get("type")
    if not isinstance(kind, str) or not kind:
        raise errors.InvalidArgument("a plugin's configuration has no type")
    if "/" in kind or "\0" in kind or kind in (".", ".."):
        raise errors.InvalidArgument(f"invalid plugin type: {kind!r}")
    return raw


def parse_conf(raw: dict[str, Any], default_name: str, path: str = "") -> NetworkConf:
    """The network of a single plugin's configuration, the form before lists.

    Raises InvalidArgument.
    """
    plugin = parse_plugin(raw)
    kept = ("name", "cniVersion")
    document = {key: plugin[key] for key in kept if key in plugin} | {"plugins": [plugin]}
    return parse_list(document, default_name, path)


def parse_list(
    raw: dict[str, Any],
    default_name: str,
    path: str = "",
    more: Sequence[dict[str, Any]] = (),
) -> NetworkConf:
    """The network of a list; ``more`` are plugins from elsewhere that follow those inside.

    Raises InvalidArgument.
    """
    name = raw.get("name", default_name)
    if not isinstance(name, str):
        raise errors.InvalidArgument("the network's name is no string")
    check_name(name, "network name")
    inside = raw.get("plugins", [])
    if not isinstance(inside, list):
        raise errors.InvalidArgument("plugins is no list")
    plugins = tuple(parse_plugin(item) for item in [*inside, *more])
    if not plugins:
        raise errors.InvalidArgument("no plugins in the list")
    return NetworkConf(
        name=name,
        versions=_versions(raw),
        plugins=plugins,
        document=raw,
        disable_check=flag(raw, "disableCheck"),
        disable_gc=flag(raw, "disableGC"),
        native=path.rpartition("/")[2].startswith(NATIVE_PREFIX),
        path=path,
    )


def flag(raw: dict[str, Any], key: str) -> bool:
    """A boolean of a list, which older files have as text; raises InvalidArgument."""
    value = raw.get(key, False)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise errors.InvalidArgument(f"{key} is neither true nor false")
    return value


def _versions(raw: dict[str, Any]) -> tuple[str, ...]:
    """Versions that the list allows and this client speaks, oldest first.

    One alone is taken as it is, for the plugins to judge: 1.x is compatible with 1.1.
    """
    single, several = raw.get("cniVersion", ""), raw.get("cniVersions", [])
    if not isinstance(several, list):
        raise errors.InvalidArgument("cniVersions is no list")
    said = set(_texts([single, *several])) - {""} or {versions.OLDEST}
    known = sorted(said, key=versions.parse)
    spoken = [item for item in known if versions.parse(item) <= versions.parse(versions.NEWEST)]
    if not spoken and versions.parse(known[0])[0] > 1:
        raise errors.InvalidArgument(f"CNI version {known[0]} is newer than {versions.NEWEST}")
    return tuple(spoken or known[:1])


def _texts(values: Sequence[object]) -> list[str]:
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) < len(values):
        raise errors.InvalidArgument("a CNI version is no string")
    return texts
