"""Documents made wrong: by their bytes, and by their structure; the same seed, the same wrongs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence

__all__ = ["mutations"]

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**63, -(2**70), 1.5, 1e308, float("nan"), float("inf"), "", "x",
    "x" * 300, "\x00", "\ud800", "../../etc/passwd", "sha256:" + "a" * 64, "sha256:../..",
    "sha512:" + "b" * 128, "md5:" + "c" * 32, [], {}, [[]], [{}], [None], {"": ""},
    {"a": {"b": []}}, "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "linux", "unknown", "http://127.0.0.1:1/", "{}", "0001-01-01T00:00:00Z",
)  # fmt: skip


def mutations(chance: random.Random, whole: Sequence[bytes], count: int) -> Iterator[bytes]:
    """``count`` damaged copies of members of ``whole``."""
    for _ in range(count):
        data = chance.choice(whole)
        yield _bytes(chance, data) if chance.random() < 0.4 else _structure(chance, data)


def _bytes(chance: random.Random, whole: bytes) -> bytes:
    data = bytearray(whole)
    for _ in range(chance.randint(1, 4)):
        at = chance.randint(0, len(data))
        until = min(len(data), at + chance.choice((0, 0, 1, 1, 2, 8, 200)))
        data[at:until] = chance.randbytes(chance.choice((0, 1, 1, 2, 8)))
    return bytes(data)


def _structure(chance: random.Random, whole: bytes) -> bytes:
    document = json.loads(whole)
    for _ in range(chance.randint(1, 3)):
        document = _changed(chance, document)
    return json.dumps(document).encode("utf-8", "surrogatepass")


def _changed(chance: random.Random, value: Any) -> Any:
    """``value`` with one thing in it, at any depth, replaced, removed or repeated."""
    if not isinstance(value, dict | list) or not value or chance.random() < 0.05:
        return chance.choice(ODD)
    copy: Any = value.copy()
    key = chance.choice(list(copy) if isinstance(copy, dict) else range(len(copy)))
    how = chance.random()
    if how < 0.15:
        del copy[key]
    elif how < 0.25 and isinstance(copy, list):
        copy += [copy[key]] * chance.choice((1, 3, 600))
    elif how < 0.3 and isinstance(copy, dict):
        copy[chance.choice((*copy, "manifests", "fsLayers", "layers", "urls"))] = copy[key]
    elif isinstance(copy[key], str) and copy[key][:1] == "{" and how < 0.8:
        copy[key] = _structure(chance, copy[key].encode()).decode("utf-8", "replace")
    else:
        copy[key] = _changed(chance, copy[key])
    return copy
