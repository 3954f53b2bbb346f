"""Images as the CRI names and counts them.

An image's id is ``sha256:`` and the digest of its config in hexadecimal, whatever it was
pulled as: ``Image.id``, ``PullImageResponse.image_ref`` and ``ContainerStatus.image_id``.
Names are whole (``docker.io/library/busybox:latest``), where the store has short ones.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.image import reference
from isula_edge.sys.usage import TreeUsage, tree_usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from isula_edge.image.store import Image, ImageStore
    from isula_edge.service.engine import Engine
    from isula_edge.types import ImageId

__all__ = [
    "FilesystemUse",
    "ImageUsage",
    "find",
    "image_id",
    "image_ref",
    "repo_digests",
    "repo_tags",
    "repository",
    "resolve_image",
    "user_of",
]

_ALGORITHM = "sha256:"
_ID = re.compile(r"[0-9a-f]{64}")
_ID_DIGITS = 10


def image_id(image: Image | ImageId | str) -> str:
    """The id that the CRI shows, of an image or of the store's id; '' of ''."""
    plain = image if isinstance(image, str) else image.id
    return f"{_ALGORITHM}{plain}" if plain else ""


def find(store: ImageStore, ref: str) -> Image | None:
    """The image that ``ref`` names: an id or the unique beginning of one, a tag, a digest."""
    plain = ref.removeprefix(_ALGORITHM)
    if _ID.fullmatch(plain):
        # an id before a repository that is called sha256
        return store.find(plain)
    try:
        found = store.find(reference.parse(ref).familiar)
    except errors.InvalidArgument:
        found = None
    return found or store.find(ref)


def resolve_image(engine: Engine, ref: str) -> Image:
    """The image that ``ref`` names; NotFound, since a container's image is not pulled for it."""
    found = find(engine.images.store, ref)
    if found is None:
        raise errors.NotFound(
            f"image {ref!r} is not present", kind="image", ref=ref, hint="PullImage brings it"
        )
    return found


def repo_tags(image: Image) -> list[str]:
    """Whole names with a tag, in the order they were given."""
    return [_full(name) for name in image.names if "@" not in name]


def repo_digests(image: Image) -> list[str]:
    """Whole names with a digest."""
    names = [*image.digests, *(name for name in image.names if "@" in name)]
    return list(dict.fromkeys(map(_full, names)))


def image_ref(image: Image) -> str:
    """What ``ContainerStatus.image_ref`` says: a name with a digest, or the id without one."""
    return next(iter(repo_digests(image)), image_id(image))


def repository(name: str) -> str:
    """The whole name without tag and digest; '' of what is no name."""
    try:
        found = reference.parse(name)
    except errors.InvalidArgument:
        return ""
    return f"{found.host or reference.DEFAULT_HOST}/{found.path}"


def user_of(image: Image) -> tuple[int | None, str]:
    """Number and name of the image's user; one at most is set, and a group is left out."""
    user = str(image.run_config.get("User") or "").partition(":")[0]
    if len(user) <= _ID_DIGITS and user.isascii() and user.isdigit():
        return int(user), ""
    # a config is anybody's: not all that JSON can say is a text of a message
    return None, user.encode("utf-8", "replace").decode()


def _full(name: str) -> str:
    try:
        return reference.parse(name).full
    except errors.InvalidArgument:
        return name


@dataclass(frozen=True, slots=True)
class FilesystemUse:
    """What the engine has on a file system: where that is mounted, when it was counted (ns)."""

    mountpoint: str
    taken: TreeUsage
    timestamp_ns: int


class ImageUsage:
    """Space of images and of containers, as ``ImageFsInfo`` tells it.

    Layers do not change: each is counted once.  What containers have written is counted
    again after ``every_s``.
    """

    def __init__(self, engine: Engine, every_s: float = 30.0) -> None:
        self._engine = engine
        self._every_s = every_s
        self._lock = asyncio.Lock()
        self._layers: dict[str, TreeUsage] | None = None
        self._images = self._containers = FilesystemUse("", TreeUsage(), 0)
        self._next = 0.0

    async def measure(self) -> tuple[FilesystemUse, FilesystemUse]:
        """The use by images, and by containers."""
        async with self._lock:
            driver, table = self._engine.layers.driver, self._engine.table
            known = self._layers
            listed = await asyncio.to_thread(_listed, driver.home)
            if known is None or listed != list(known):
                # layers that are merged into each other share files
                shared = driver.style == "merge"
                count = _together if shared else _each
                self._layers = await asyncio.to_thread(count, listed, known or {})
                self._images = _use(driver.home, self._layers.values())
            if not self._containers.timestamp_ns or time.monotonic() >= self._next:
                folders = [f"{driver.home}/rw", *(table.dir(container) for container in table)]
                found = await asyncio.to_thread(tree_usage, *folders)
                self._containers = _use(driver.home, [found])
                self._next = time.monotonic() + self._every_s
            return self._images, self._containers


def _each(paths: list[str], known: Mapping[str, TreeUsage]) -> dict[str, TreeUsage]:
    return {path: known.get(path) or tree_usage(path) for path in paths}


def _together(paths: list[str], _known: Mapping[str, TreeUsage]) -> dict[str, TreeUsage]:
    found = dict.fromkeys(paths, TreeUsage())
    if paths:
        found[paths[0]] = tree_usage(*paths)
    return found


def _listed(home: str) -> list[str]:
    """What there is of layers; not those that are being unpacked."""
    names = sorted(os.listdir(home))
    return [f"{home}/{name}" for name in names if name != "rw" and not name.startswith("ingest-")]


def _use(home: str, parts: Iterable[TreeUsage]) -> FilesystemUse:
    usages = list(parts)
    taken = TreeUsage(sum(item.bytes for item in usages), sum(item.inodes for item in usages))
    return FilesystemUse(_mountpoint(home), taken, time.time_ns())


def _mountpoint(path: str) -> str:
    """Where the file system of ``path`` is mounted."""
    path = os.path.realpath(path)
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path
