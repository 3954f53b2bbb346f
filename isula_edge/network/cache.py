"""Results kept for later: ``<dir>/results/<network>-<container id>-<interface>``.

The files are those of CNI's own library (kind ``cniCacheV1``), with an ``isulaEdge`` object
more, which says whose attachment it is; iSulad's variant is read too.  A file without a result
is an ADD that has begun: what a crash leaves has a file that says how to undo it.  Files that
are damaged or of another kind are as good as missing.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.network import config, result, versions
from isula_edge.sys import atomic

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Cache", "Entry"]

log = logging.getLogger(__name__)

_KIND = "cniCacheV1"
_OURS = "isulaEdge"
_LARGEST = 4 << 20
# what iSulad keeps beside the result instead of in capabilityArgs
_LOOSE = ("portMappings", "aliases", "bandwidth", "ipRanges")


@dataclass(slots=True)
class Entry:
    """An attachment: a container's interface in a network, and what it was made with.

    ``order`` counts the attachments of a container; ``owner`` is '' for other engines' ones;
    ``document`` is the network's list for one version, {} when it is not known.
    """

    network: str
    container_id: str
    ifname: str
    netns: str = ""
    document: dict[str, Any] = field(default_factory=dict)
    args: tuple[tuple[str, str], ...] = ()
    capabilities: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] | None = None
    order: int = 0
    owner: str = ""

    @property
    def file(self) -> str:
        """Name of its file."""
        return f"{self.network}-{self.container_id}-{self.ifname}"


class Cache:
    """The attachments of a host, those of other engines included."""

    def __init__(self, folder: str) -> None:
        self.folder = f"{folder}/results"

    def save(self, entry: Entry, *, durable: bool) -> None:
        """Writes ``entry``; raises Unavailable, or NoSpace."""
        ours = {"owner": entry.owner, "order": entry.order}
        document = json.dumps(entry.document).encode()
        raw: dict[str, Any] = {
            "kind": _KIND,
            "containerId": entry.container_id,
            "config": base64.b64encode(document).decode(),
            "ifName": entry.ifname,
            "networkName": entry.network,
            "netns": entry.netns,
            "cniArgs": entry.args,
            "capabilityArgs": entry.capabilities,
            _OURS: ours,
        }
        if entry.result is not None:
            raw["result"] = entry.result
        path = f"{self.folder}/{entry.file}"
        try:
            if not os.path.isdir(self.folder):
                atomic.make_dir(self.folder)
            atomic.write(path, json.dumps(raw).encode(), durable=durable)
        except OSError as error:
            raise errors.Unavailable(f"cannot keep the CNI result: {error}", ref=path) from error

    def load(self, name: str) -> Entry | None:
        """The entry of a file, None when there is none that can be used."""
        path = f"{self.folder}/{name}"
        try:
            with open(path, "rb") as file:
                data = file.read(_LARGEST)
        except OSError:
            return None
        try:
            return _entry(config.load_object(data, "the file"), name)
        except (errors.InvalidArgument, ValueError) as error:
            log.warning("CNI cache file %s is not used: %s", path, error)
            return None

    def remove(self, entry: Entry) -> None:
        """Forgets ``entry``; missing is fine.  Raises Unavailable."""
        path = f"{self.folder}/{entry.file}"
        try:
            os.unlink(path)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise errors.Unavailable(f"cannot forget a CNI result: {error}", ref=path) from error

    def holds(self, entry: Entry) -> bool:
        """Whether the container has such an attachment."""
        return os.path.lexists(f"{self.folder}/{entry.file}")

    def of(self, container_id: str) -> list[Entry]:
        """Attachments of a container in the order in which they were made."""
        found = self._load(name for name in self._names() if f"-{container_id}-" in name)
        mine = [entry for entry in found if entry.container_id == container_id]
        return sorted(mine, key=lambda entry: entry.order)

    def everything(self) -> list[Entry]:
        """All attachments of all engines."""
        return self._load(self._names())

    def sweep(self) -> None:
        """Removes what a crash left half written."""
        with contextlib.suppress(OSError):
            atomic.sweep(self.folder)

    def _load(self, names: Iterable[str]) -> list[Entry]:
        loaded = (self.load(name) for name in names)
        return [entry for entry in loaded if entry is not None]

    def _names(self) -> list[str]:
        try:
            names = sorted(os.listdir(self.folder))
        except OSError:
            return []
        return [name for name in names if not name.startswith(atomic.TEMP_PREFIX)]


def _entry(raw: dict[str, Any], name: str) -> Entry:
    """What a file says; raises InvalidArgument or ValueError for what is no entry."""
    if raw.get("kind") != _KIND:
        raise errors.InvalidArgument(f"its kind is not {_KIND}")
    texts = [raw.get(key) for key in ("networkName", "containerId", "ifName")]
    if not all(isinstance(text, str) and text for text in texts):
        raise errors.InvalidArgument("it does not name its attachment")
    ours = raw.get(_OURS)
    ours = ours if isinstance(ours, dict) else {}
    entry = Entry(*texts)  # type: ignore[arg-type]
    if entry.file != name:
        raise errors.InvalidArgument("it is about another attachment")
    netns, owner, order = raw.get("netns"), ours.get("owner"), ours.get("order")
    entry.netns = netns if isinstance(netns, str) else ""
    entry.owner = owner if isinstance(owner, str) else ""
    entry.order = order if isinstance(order, int) else 0
    entry.document = _document(raw.get("config"), name)
    entry.args = _args(raw)
    given = raw.get("capabilityArgs")
    loose = {key: raw[key] for key in _LOOSE if raw.get(key)}
    entry.capabilities = given if isinstance(given, dict) else loose
    if raw.get("result") is not None:
        try:
            entry.result = result.validate(raw["result"], versions.OLDEST)
        except errors.InvalidArgument as error:
            log.warning("the result in CNI cache file %s is not used: %s", name, error)
    return entry


def _document(text: object, name: str) -> dict[str, Any]:
    """The list: base64 of it as CNI's library writes, or its text as iSulad does; {} if damaged."""
    if not isinstance(text, str) or not text:
        return {}
    try:
        plain = text.lstrip().startswith("{")
        data = text.encode() if plain else base64.b64decode(text, validate=True)
        network = config.parse_list(config.load_object(data, "it"), "")
    except (errors.InvalidArgument, ValueError) as error:
        log.warning("the configuration in CNI cache file %s is not used: %s", name, error)
        return {}
    return network.pinned(network.versions[-1])


def _args(raw: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Pairs as CNI's library writes, or an object as iSulad does."""
    given = raw.get("cniArgs") or raw.get("cni_args") or []
    pairs = list(given.items()) if isinstance(given, dict) else given
    if not isinstance(pairs, list) or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(t, str) for t in pair)
        for pair in pairs
    ):
        raise errors.InvalidArgument("its arguments are no pairs of text")
    return tuple((pair[0], pair[1]) for pair in pairs)
