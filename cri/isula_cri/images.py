"""The CRI's ImageService: one method for each call."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
from typing import TYPE_CHECKING, Any

from isula_cri import messages
from isula_cri.pages import pages
from isula_cri.stats import filesystem_usage
from isula_edge import errors
from isula_edge.image import reference
from isula_edge.service import cri_images
from isula_edge.service.worker import ignored

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from isula_edge.image.store import Image
    from isula_edge.service.cri_images import FilesystemUse
    from isula_edge.service.engine import Engine

__all__ = ["ImageService"]


class ImageService:
    """Answers from memory, but for ``PullImage`` and ``ImageFsInfo``; raises EngineError."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._usage = cri_images.ImageUsage(engine)

    async def ListImages(self, request: Any, context: Any) -> Any:  # noqa: N802
        """All images, or the one that the filter names, or all of a repository's."""
        del context
        return messages.ListImagesResponse(images=self._listed(request.filter.image.image))

    async def StreamImages(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """The same in pages."""
        del context
        for page in pages(self._listed(request.filter.image.image)):
            yield messages.StreamImagesResponse(images=page)

    async def ImageStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        """One image, unset where there is none."""
        del context
        image = cri_images.find(self._engine.images.store, _asked(request))
        if image is None:
            return messages.ImageStatusResponse()
        info = {"info": _details(image)} if request.verbose else {}
        described = _described(image, pinned=self._is_pinned(image, self._pod_image()))
        return messages.ImageStatusResponse(image=described, info=info)

    async def PullImage(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Brings an image; a caller that goes away ends it, unless others wait for it too."""
        del context
        ref = _asked(request)
        parsed = reference.parse(ref)
        if not parsed.host and not self._engine.config.registry_mirrors:
            ref = parsed.full
        auth = _credentials(request.auth)
        result = await self._engine.images.pull(ref, "", ignored, auth)
        return messages.PullImageResponse(image_ref=cri_images.image_id(result["id"]))

    async def RemoveImage(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Removes an image with all its names; none is fine.

        One that a container uses loses its names, and goes when it is removed after that.
        """
        del context
        image = cri_images.find(self._engine.images.store, _asked(request))
        if image is not None:
            # somebody else may be quicker
            with contextlib.suppress(errors.NotFound):
                await self._engine.images.remove(image.id, force=True)
        return messages.RemoveImageResponse()

    async def ImageFsInfo(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Space of images and of containers; both are on one file system."""
        del request, context
        images, containers = await self._usage.measure()
        return messages.ImageFsInfoResponse(
            image_filesystems=[_usage(images)], container_filesystems=[_usage(containers)]
        )

    def _listed(self, ref: str) -> list[Any]:
        store, pod_image = self._engine.images.store, self._pod_image()
        chosen = list(store)
        if ref:
            one = cri_images.find(store, ref)
            chosen = [one] if one else [image for image in chosen if _in_repository(image, ref)]
        return [
            _described(image, pinned=self._is_pinned(image, pod_image)) for image in chosen
        ]

    def _pod_image(self) -> Image | None:
        """The image of pods, if one is set and there."""
        name = self._engine.config.cri.pod_sandbox_image
        return cri_images.find(self._engine.images.store, name) if name else None

    @staticmethod
    def _is_pinned(image: Image, pod_image: Image | None) -> bool:
        """Whether a kubelet must not remove it to make room."""
        return image.pinned or image is pod_image


def _asked(request: Any) -> str:
    ref = str(request.image.image)
    if not ref:
        raise errors.InvalidArgument("the request names no image", kind="param", ref="image")
    return ref


def _in_repository(image: Image, ref: str) -> bool:
    """Whether ``ref`` has neither tag nor digest and ``image`` is of that repository."""
    if "@" in ref or ":" in ref.rpartition("/")[2]:
        return False
    wanted = cri_images.repository(ref)
    names = (*image.names, *image.digests)
    return bool(wanted) and any(cri_images.repository(name) == wanted for name in names)


def _described(image: Image, *, pinned: bool) -> Any:
    tags, digests = cri_images.repo_tags(image), cri_images.repo_digests(image)
    uid, username = cri_images.user_of(image)
    name = next(iter((*tags, *digests)), cri_images.image_id(image))
    return messages.Image(
        id=cri_images.image_id(image),
        repo_tags=tags,
        repo_digests=digests,
        # one without layers takes what its config does
        size=image.size or len(image.config),
        uid=None if uid is None else messages.Int64Value(value=uid),
        username=username,
        spec=messages.ImageSpec(image=name),
        pinned=pinned,
    )


def _details(image: Image) -> str:
    """What ``crictl inspecti`` shows as info."""
    return json.dumps(
        {
            "chainID": image.chain_ids[-1] if image.chain_ids else "",
            "chainIDs": image.chain_ids,
            "manifestDigest": image.manifest_digest,
            "mediaType": image.media_type,
            "labels": image.run_config.get("Labels") or {},
            "imageSpec": image.document,
        }
    )


def _credentials(auth: Any) -> dict[str, str]:
    """The caller's credentials as a pull takes them; {} without any.

    Raises InvalidArgument for an ``auth`` that is not base64 of ``USER:PASSWORD``.
    """
    found = {
        "username": auth.username,
        "password": auth.password,
        "identity_token": auth.identity_token,
        "registry_token": auth.registry_token,
    }
    if auth.auth and not any(found.values()):
        try:
            pair = base64.b64decode(auth.auth, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            pair = ""
        username, colon, password = pair.partition(":")
        if not colon:
            raise errors.InvalidArgument(
                "auth is not base64 of USER:PASSWORD", kind="param", ref="auth"
            )
        # some clients fill it up with zeros
        found.update(username=username, password=password.rstrip("\0"))
    found = {name: value for name, value in found.items() if value}
    if found and auth.server_address:
        found["server_address"] = auth.server_address
    return found


def _usage(use: FilesystemUse) -> Any:
    return filesystem_usage(use.timestamp_ns, use.mountpoint, use.taken)
