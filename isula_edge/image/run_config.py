"""The part of an image's configuration that says how to run it, checked before it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isula_edge import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["check_run_config"]

_TEXTS = ("User", "WorkingDir", "StopSignal")
_LISTS = ("Env", "Entrypoint", "Cmd")


def check_run_config(config: Mapping[str, Any], image: str) -> None:
    """Raises InvalidArgument naming ``image`` and the field that is not what it must be.

    Anybody can have written it: types are those of the OCI image specification
    (config.md, Properties), and no text has a NUL or half a surrogate pair in it.
    """
    for field in _TEXTS:
        _check(config.get(field) or "", str, field, image)
    for field in _LISTS:
        found = config.get(field) or []
        _check(found, list, field, image)
        for item in found:
            _check(item, str, field, image)


def _check(value: object, kind: type, field: str, image: str) -> None:
    right = isinstance(value, kind)
    if right and isinstance(value, str):
        try:
            right = b"\0" not in value.encode()
        except UnicodeEncodeError:
            right = False
    if not right:
        raise errors.InvalidArgument(
            f"{field} in the configuration of image {image} is not what it must be: {value!r:.80}",
            kind="image",
            ref=image,
        )
