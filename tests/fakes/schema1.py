"""Manifests of schema 1 as Docker before 1.10 pushed them, signed or not."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.fakes.images import FakeLayer, sha256, tar_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["EMPTY", "MEDIA_TYPE", "FakeOld", "encode", "make_old", "sign"]

MEDIA_TYPE = "application/vnd.docker.distribution.manifest.v1+prettyjws"
EMPTY = FakeLayer.of({})
assert EMPTY.tar == tar_of({})


@dataclass(frozen=True, slots=True)
class FakeOld:
    """A manifest: as it is sent, what is signed of it, and the digest that it has by that."""

    data: bytes
    payload: bytes

    @property
    def digest(self) -> str:
        """Name of the manifest."""
        return sha256(self.payload)


def encode(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def make_old(
    layers: Sequence[FakeLayer],
    extra: Mapping[int, Mapping[str, Any]] | None = None,
    *,
    signed: bool = True,
    document: Mapping[str, Any] | None = None,
) -> FakeOld:
    """A manifest of ``layers`` (bottom-up), those that are EMPTY marked as thrown away.

    ``extra`` are more keys of a layer's v1Compatibility, ``document`` of the manifest.
    """
    past: list[dict[str, Any]] = []
    for number, layer in enumerate(layers):
        entry: dict[str, Any] = {"id": f"{number + 1:064x}"}
        if number:
            entry["parent"] = f"{number:064x}"
        entry["created"] = f"2015-01-0{number + 1}T00:00:00.1234500Z"
        entry["container_config"] = {"Cmd": ["/bin/sh", "-c", f"step {number}"]}
        entry |= {"throwaway": True} if layer is EMPTY else {"Size": len(layer.tar)}
        past.append(entry | dict((extra or {}).get(number, {})))
    past[-1] |= {"os": "linux", "architecture": "amd64", "docker_version": "1.9.1"}
    past[-1].setdefault("config", {"Cmd": ["/bin/sh"]})
    whole = {
        "schemaVersion": 1,
        "name": "a/b",
        "tag": "latest",
        "architecture": "amd64",
        "fsLayers": [{"blobSum": layer.digest} for layer in reversed(layers)],
        "history": [{"v1Compatibility": json.dumps(entry)} for entry in reversed(past)],
        **(document or {}),
    }
    payload = json.dumps(whole, indent=3).encode()
    return FakeOld(sign(payload) if signed else payload, payload)


def sign(payload: bytes, tail: bytes = b"\n}", count: int = 1, **header: Any) -> bytes:
    """``payload`` with signatures put in before its ``tail``."""
    head = payload[: -len(tail)]
    protected = {"formatLength": len(head), "formatTail": encode(tail), "time": "2015-01-01"}
    one = {"header": {"alg": "ES256"}, "signature": "AAAA"}
    one["protected"] = encode(json.dumps({**protected, **header}).encode())
    return head + b',\n   "signatures": ' + json.dumps([one] * count).encode() + tail
