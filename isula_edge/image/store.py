"""Images of one graph: records, names and look-up.

A record holds the image's own names, so the index of names is rebuilt from the records and
can never disagree with them.  One name may be that of several images, each for another
platform; without a platform it means the one for this machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.profile import platform as platforms
from isula_edge.store.records import RecordStore
from isula_edge.types import Platform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from isula_edge.sys.reserve import Reserve

__all__ = ["Image", "ImageStore", "familiar"]

_HEX = re.compile(r"[0-9a-f]{3,64}")
_log = logging.getLogger(__name__)


def familiar(ref: str) -> str:
    """The stored name of ``ref``: tag added, ``docker.io/`` and a leading ``library/`` cut."""
    name = ref
    if "@" not in name and ":" not in name.rpartition("/")[2]:
        name += ":latest"
    return name.removeprefix("docker.io/").removeprefix("library/")


@dataclass(slots=True)
class Image:
    """An image.  ``config`` and ``manifest`` are the blobs as they came."""

    id: str
    config: bytes
    manifest: bytes
    names: list[str]
    digests: list[str]
    chain_ids: list[str]
    size: int
    created_ns: int = 0
    loaded_ns: int = 0
    manifest_digest: str = ""
    media_type: str = ""
    pinned: bool = False
    document: dict[str, Any] = field(default_factory=dict)

    @property
    def run_config(self) -> dict[str, Any]:
        """The ``config`` object of the image's configuration."""
        found = self.document.get("config")
        if not isinstance(found, dict):
            return {}
        if not isinstance(found.get("Labels") or {}, dict):
            return {**found, "Labels": {}}
        return found

    @property
    def platform(self) -> tuple[str, str]:
        """Operating system and architecture the image says it is for."""
        return str(self.document.get("os", "")), str(self.document.get("architecture", ""))

    @property
    def target(self) -> Platform | None:
        """The platform it is for, in the words of the image-spec; None when it does not say."""
        system, architecture = self.platform
        if not architecture:
            return None
        variant = str(self.document.get("variant") or "")
        return platforms.normal(Platform(system or "linux", architecture, variant))

    def supersedes(self, other: Image, want: Platform | None = None) -> bool:
        """Whether ``other`` loses a name that this image gets, by a pull for ``want``."""
        ours, theirs = self.target, other.target
        if ours is None or theirs is None:
            return True
        return platforms.supersedes(ours, theirs, ours) or (
            want is not None and platforms.supersedes(ours, theirs, want)
        )


_FIELDS = (
    "id", "config", "manifest", "names", "digests", "chain_ids", "size", "created_ns",
    "loaded_ns", "manifest_digest", "media_type", "pinned",
)  # fmt: skip


class ImageStore:
    """All images of ``graph``.

    What changes one is done by one caller at a time.  A change is on disk before anybody
    can see it here, so that one that fails has changed nothing.
    """

    def __init__(self, graph: str, reserve: Reserve | None = None) -> None:
        self.records = RecordStore(f"{graph}/images", "image", f"{graph}/quarantine", reserve)
        self._images: dict[str, Image] = {}
        # the ids of the images of a name, the latest last
        self._names: dict[str, list[str]] = {}
        self._ending: dict[str, Image] = {}

    def load(self) -> None:
        """Reads every record; damaged ones are quarantined."""
        found = []
        for key, record in self.records.load():
            try:
                image = Image(**{name: record[name] for name in _FIELDS})
            except KeyError:
                self.records.put_aside(key, "it lacks a key")
                continue
            image.document = _document(image.config)
            found.append(image)
        for image in sorted(found, key=lambda item: item.loaded_ns):
            self._images[image.id] = image
            for name in image.names:
                holders = self._names.get(name, [])
                left = [key for key in holders if not image.supersedes(self._images[key])]
                self._names[name] = [*left, image.id]
        for image in found:
            # a crash while a name moved leaves it with both: the later one has it
            names = [name for name in image.names if image.id in self._names[name]]
            if names != image.names:
                image.names = names
                with contextlib.suppress(errors.EngineError, OSError):
                    self.write(image, urgent=True)

    def __iter__(self) -> Iterator[Image]:
        return iter(list(self._images.values()))

    def __len__(self) -> int:
        return len(self._images)

    def find(self, ref: str, want: Platform | None = None) -> Image | None:
        """By stored name, exact id, digest reference or unique prefix of the id.

        Of several images of that name the best for ``want``, or without it the best for this
        machine; the latest where none is for this machine.
        """
        found = self.candidates(ref)
        if want is None and len(found) < 2:
            return found[0] if found else None
        targets = [image.target for image in found]
        chosen = platforms.choose(targets, want or platforms.host_platform())
        if chosen is not None:
            return found[chosen]
        return found[0] if want is None else None

    def candidates(self, ref: str) -> list[Image]:
        """All images that ``ref`` may mean, for whatever platform; the latest first."""
        name = familiar(ref)
        if name in self._names:
            return [self._images[key] for key in reversed(self._names[name])]
        plain = ref.removeprefix("sha256:")
        if plain in self._images:
            return [self._images[plain]]
        if "@" in ref:
            repository, _, digest = name.partition("@")
            wanted = {f"{repository.partition(':')[0]}@{digest}", name}
            found = [image for image in self._images.values() if wanted & {*image.digests}]
            if found:
                return sorted(found, key=lambda image: image.loaded_ns, reverse=True)
        if _HEX.fullmatch(plain):
            matches = [key for key in self._images if key.startswith(plain)]
            if len(matches) == 1:
                return [self._images[matches[0]]]
        return []

    def get(self, ref: str, want: Platform | None = None) -> Image:
        """As :meth:`find`; NotFound when there is none, naming the platforms there are."""
        image = self.find(ref, want)
        if image is not None:
            return image
        there = sorted({str(image.target) for image in self.candidates(ref)})
        if not there:
            raise errors.NotFound(f"No such image:{familiar(ref)}", kind="image", ref=ref)
        raise errors.NotFound(
            f"No such image:{familiar(ref)} for {want}",
            kind="image",
            ref=ref,
            hint=f"what is there is for {', '.join(there)}; pull it with --platform {want}",
        )

    def put(self, event: dict[str, Any], want: Platform | None = None) -> Image:
        """Stores what a worker brought (its ``image`` event), for ``want`` if that was asked.

        Its names move to it from the images that it supersedes; images for other platforms
        keep them.
        """
        image = self._images.get(event["id"])
        if image is None:
            document = _document(event["config"])
            image = Image(
                event["id"],
                event["config"],
                event.get("manifest", b""),
                [],
                [],
                list(event["chain_ids"]),
                int(event.get("size", 0)),
                _created(document),
                time.time_ns(),
                event.get("manifest_digest", ""),
                event.get("manifest_media_type", ""),
                document=document,
            )
        digests = [item for item in event.get("digest_refs", ()) if item not in image.digests]
        names = [familiar(name) for name in event.get("names", ())]
        added = [name for name in names if name not in image.names]
        self._change(image, [*image.names, *added], [*image.digests, *digests])
        self._images[image.id] = image
        for name in names:
            self._take_name([image], name, lambda other: image.supersedes(other, want))
        return image

    def tag(self, source: str, target: str) -> None:
        """Gives another name to all images of a name; a name in use moves."""
        images = self.candidates(source) or [self.get(source)]
        name = familiar(target)
        for image in images:
            if name not in image.names:
                self._change(image, [*image.names, name], image.digests)
        self._take_name(images[::-1], name, lambda _: True)

    def _take_name(
        self, images: list[Image], name: str, replaces: Callable[[Image], bool]
    ) -> None:
        """``images``, the latest last, have ``name`` now, and who is replaced has it no more."""
        ids = [image.id for image in images]
        others = [key for key in self._names.get(name, []) if key not in ids]
        lost = [key for key in others if replaces(self._images[key])]
        self._names[name] = [*(key for key in others if key not in lost), *ids]
        for other in map(self._images.__getitem__, lost):
            left = [item for item in other.names if item != name]
            try:
                self._change(other, left, other.digests, urgent=True)
            except (errors.EngineError, OSError) as error:
                # both records have it now: the next start decides as after a crash
                other.names = left
                _log.error("cannot record that %s has moved: %s", name, error)

    def _lose_name(self, image: Image, name: str) -> None:
        left = [key for key in self._names.get(name, ()) if key != image.id]
        if left:
            self._names[name] = left
        else:
            self._names.pop(name, None)

    def untag(self, image: Image, name: str) -> None:
        """Takes one name away; works on a full disk."""
        names = [item for item in image.names if item != name]
        self._change(image, names, image.digests, urgent=True)
        self._lose_name(image, name)

    def undigest(self, image: Image, digest: str) -> None:
        """Takes one name with a digest away; works on a full disk."""
        digests = [item for item in image.digests if item != digest]
        self._change(image, image.names, digests, urgent=True)

    def strip(self, image: Image) -> None:
        """Takes every name away, those with a digest too; works on a full disk."""
        names = image.names
        self._change(image, [], [], urgent=True)
        for name in names:
            self._lose_name(image, name)

    def forget(self, image: Image) -> None:
        """Hides an image that :meth:`delete` or :meth:`restore` is called for next.

        Its layers are needed as long as its record is there.
        """
        self._images.pop(image.id, None)
        self._ending[image.id] = image
        for name in image.names:
            self._lose_name(image, name)

    def restore(self, image: Image) -> None:
        """Undoes :meth:`forget`."""
        self._ending.pop(image.id, None)
        self._images[image.id] = image
        for name in image.names:
            holders = self._names.setdefault(name, [])
            # who has got it meanwhile keeps it
            if not any(self._images[key].supersedes(image) for key in holders):
                holders.insert(0, image.id)

    def delete(self, image: Image) -> None:
        """Deletes the record; works on a full disk."""
        self.records.remove(image.id)
        self._ending.pop(image.id, None)

    def remove(self, image: Image) -> None:
        """:meth:`forget` and :meth:`delete`; what cannot be deleted stays."""
        self.forget(image)
        try:
            self.delete(image)
        except OSError:
            self.restore(image)
            raise

    def chains(self) -> set[str]:
        """Chain ids of every layer that an image needs."""
        found = (*self._images.values(), *self._ending.values())
        return {chain for image in found for chain in image.chain_ids}

    def _change(
        self, image: Image, names: list[str], digests: list[str], *, urgent: bool = False
    ) -> None:
        """Writes ``image`` with these names, and gives it them when that has succeeded."""
        self.write(dataclasses.replace(image, names=names, digests=digests), urgent=urgent)
        image.names, image.digests = names, digests

    def write(self, image: Image, *, urgent: bool = False) -> None:
        """Writes the record as ``image`` is."""
        record = {name: getattr(image, name) for name in _FIELDS}
        self.records.write(image.id, record, urgent=urgent)


def _document(config: bytes) -> dict[str, Any]:
    try:
        found = json.loads(config)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _created(document: dict[str, Any]) -> int:
    """``created`` in ns since 1970 UTC; 0 when absent or unreadable."""
    import datetime

    text = str(document.get("created") or "")
    try:
        head, _, rest = text.partition(".")
        moment = datetime.datetime.fromisoformat(head.rstrip("Z")[:19])
        digits = "".join(char for char in rest if char.isdigit())[:9]
        seconds = int(moment.replace(tzinfo=datetime.UTC).timestamp())
        return max(0, seconds * 10**9 + int((digits + "0" * 9)[:9]))
    except (ValueError, OverflowError):
        return 0
