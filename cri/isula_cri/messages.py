"""The CRI's messages and enumerations: ``messages.PodSandboxStatus(id="…")``.

They are made at the first import from ``api.binpb``, which ``ci/protos`` compiles from
``api.proto``.  One set serves runtime.v1 and runtime.v1alpha2, whose numbers agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isula_cri.protos import ProtoFile
from isula_edge import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.descriptor import ServiceDescriptor

__all__ = ["PACKAGE", "SERVICES", "enum", "services", "word"]

PACKAGE = "runtime.v1"
SERVICES = ("RuntimeService", "ImageService")
_API = ProtoFile("api")


def __getattr__(name: str) -> Any:
    """The class of the message called ``name``."""
    return _API.message(name)


def enum(name: str) -> dict[str, int]:
    """The values of an enumeration by name."""
    return _API.enum(name)


def word(words: Mapping[int, str], number: int, field: str) -> str:
    """The word for the value ``number`` of an enumeration; InvalidArgument names ``field``.

    Values that a newer caller knows arrive as numbers.
    """
    if number not in words:
        raise errors.InvalidArgument(f"{field} has the unknown value {number}", ref=field)
    return words[number]


def services() -> dict[str, ServiceDescriptor]:
    """The services by name, with their methods."""
    return dict(_API.file.services_by_name)
