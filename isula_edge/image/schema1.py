"""Docker's manifests of schema 1, which registries from before 2016 serve, read as images.

Such a manifest has no configuration: it is made of the history in the manifest, by Docker's
rules, once the layers are there and their diff_ids known.  The same manifest always gives
the same image id.  A manifest may be signed (JWS); what is signed, the *payload*, has the
digest that names the manifest, and nothing outside the payload is looked at.  The signature
itself is not verified: its key is the sender's own and comes with it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.image.digest import parse_digest
from isula_edge.image.manifest import MAX_LAYERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isula_edge.types import Digest

__all__ = ["MEDIA_TYPE", "Schema1", "parse", "payload"]

MEDIA_TYPE = "application/vnd.docker.distribution.manifest.v1+prettyjws"
_MAX_SIGNATURES = 16
_MAX_HISTORY = 1000
_ID = re.compile(r"[0-9a-f]{64}")
_CREATED = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_NO_TIME = "0001-01-01T00:00:00Z"
_DROPPED = ("id", "parent", "Size", "parent_id", "layer_id", "throwaway", "rootfs", "history")
# as Go writes JSON, so that the id is the one that Docker gives
_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Schema1:
    """An image by a manifest of schema 1.

    ``layers`` are digests of blobs, bottom-up, without those the history calls empty;
    ``history`` is that of the configuration to be made, ``top`` its other keys.
    """

    layers: tuple[Digest, ...]
    history: tuple[dict[str, Any], ...]
    top: dict[str, Any]

    def config(self, diff_ids: Sequence[Digest]) -> bytes:
        """The configuration of the image whose ``layers`` turned out to have ``diff_ids``."""
        document = {key: value for key, value in self.top.items() if key not in _DROPPED}
        document["rootfs"] = {"type": "layers", "diff_ids": list(diff_ids)}
        document["history"] = list(self.history)
        ordered = {key: document[key] for key in sorted(document)}
        try:
            text = json.dumps(
                ordered, ensure_ascii=False, separators=(",", ":"), allow_nan=False
            ).translate(_ESCAPES)
        except (ValueError, RecursionError) as error:
            raise _bad("the image", f"its history cannot be written: {error}") from error
        return _SURROGATE.sub("\ufffd", text).encode()


def payload(data: bytes, what: str) -> bytes | None:
    """The bytes whose digest names a manifest of schema 1; None if ``data`` is none.

    Raises InvalidArgument for signatures that do not say what they sign.
    """
    # cheap first: the manifests of today have no such key
    if b'"fsLayers"' not in data:
        return None
    document = _object(data, what)
    if document.get("schemaVersion") != 1:
        return None
    if "signatures" not in document:
        return data
    signatures = document["signatures"]
    if not isinstance(signatures, list) or not 1 <= len(signatures) <= _MAX_SIGNATURES:
        raise _bad(what, "it has no list of signatures")
    found = {_signed(data, item, what) for item in signatures}
    if len(found) != 1:
        raise _bad(what, "its signatures are for different texts")
    return found.pop()


def _signed(data: bytes, signature: object, what: str) -> bytes:
    """What one signature covers: the beginning of ``data``, and a tail."""
    protected = signature.get("protected") if isinstance(signature, dict) else None
    header = _object(_base64(protected, what), f"signature of {what}")
    length, tail = header.get("formatLength"), header.get("formatTail")
    if isinstance(length, bool) or not isinstance(length, int) or not 0 < length <= len(data):
        raise _bad(what, "its signature has no formatLength")
    return data[:length] + _base64(tail, what)


def _base64(value: object, what: str) -> bytes:
    try:
        if isinstance(value, str):
            return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
    except (binascii.Error, ValueError):
        pass
    raise _bad(what, "its signature cannot be decoded")


def parse(data: bytes, what: str) -> Schema1:
    """The image that ``data``, a payload, describes; InvalidArgument when it makes no sense."""
    document = _object(data, what)
    blobs, past = document.get("fsLayers"), document.get("history")
    if document.get("schemaVersion") != 1 or "layers" in document or "manifests" in document:
        raise _bad(what, "its parts belong to different schemas")
    if not isinstance(blobs, list) or not 1 <= len(blobs) <= _MAX_HISTORY:
        raise _bad(what, f"it does not have 1 to {_MAX_HISTORY} layers")
    if not isinstance(past, list) or len(past) != len(blobs):
        raise _bad(what, "the length of its history is not that of its layers")
    described = [_compatibility(item, what) for item in past]
    sums = [_blob(blob, what) for blob in blobs]
    entries = _chain(list(zip(sums, described, strict=True)), what)
    entries.reverse()
    layers = tuple(digest for digest, entry in entries if entry.get("throwaway") is not True)
    if not 1 <= len(layers) <= MAX_LAYERS:
        raise _bad(what, f"it has {len(layers)} layers, 1 to {MAX_LAYERS} are possible")
    return Schema1(layers, tuple(_history(entry) for _, entry in entries), entries[-1][1])


def _blob(value: object, what: str) -> Digest:
    return parse_digest(
        value.get("blobSum") if isinstance(value, dict) else None, f"layer of {what}"
    )


def _compatibility(value: object, what: str) -> dict[str, Any]:
    text = value.get("v1Compatibility") if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise _bad(what, "its history has an entry without v1Compatibility")
    entry = _object(text.encode("utf-8", "replace"), f"history of {what}")
    if not isinstance(entry.get("id"), str) or not _ID.fullmatch(entry["id"]):
        raise _bad(what, "its history has an entry without id")
    return entry


def _chain(
    entries: list[tuple[Digest, dict[str, Any]]], what: str
) -> list[tuple[Digest, dict[str, Any]]]:
    """``entries`` (topmost first) without repetitions; each must be the child of the next."""
    kept = [
        entry
        for number, entry in enumerate(entries)
        if number + 1 == len(entries) or entry[1]["id"] != entries[number + 1][1]["id"]
    ]
    ids = [entry["id"] for _, entry in kept]
    if len(set(ids)) != len(ids):
        raise _bad(what, "its history has the same entry twice")
    for (_, entry), parent in zip(kept, [*ids[1:], ""], strict=True):
        if (entry.get("parent") or "") != parent:
            raise _bad(what, "its history is no chain of parents")
    return kept


def _history(entry: dict[str, Any]) -> dict[str, Any]:
    """One entry of the configuration's history, keys in Docker's order."""
    command = entry.get("container_config")
    words = command.get("Cmd") if isinstance(command, dict) else None
    text = " ".join(str(word) for word in words) if isinstance(words, list) else ""
    found: dict[str, Any] = {"created": _time(entry.get("created"))}
    for key, value in (
        ("author", entry.get("author")),
        ("created_by", text),
        ("comment", entry.get("comment")),
    ):
        if value and isinstance(value, str):
            found[key] = value
    if entry.get("throwaway") is True:
        found["empty_layer"] = True
    return found


def _time(value: object) -> str:
    found = _CREATED.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return _NO_TIME
    seconds, part, zone = found.groups()
    part = (part or "").rstrip("0")
    return f"{seconds}.{part}{zone}" if part else seconds + zone


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        document = json.loads(data, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise _bad(what, f"it is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise _bad(what, "it is no JSON object")
    return document


def _no_number(text: str) -> object:
    raise ValueError(f"{text} is no number of JSON")


def _bad(what: str, why: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(
        f"manifest of {what} (schema 1) cannot be used: {why}", kind="image", ref=what
    )
