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


def refuse_nul(message: Any, path: str = "") -> None:
    """Raises InvalidArgument naming the field of ``message`` that has a NUL in its text.

    What becomes a path, an argument or a variable can have none; bytes are not looked at.
    """
    for field, value in message.ListFields():
        where = f"{path}.{field.name}" if path else field.name
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            items = [*value, *(item for item in value.values() if isinstance(item, str))]
        else:
            items = list(value) if hasattr(value, "append") or hasattr(value, "add") else [value]
        for item in items:
            if isinstance(item, str):
                if "\0" in item:
                    raise errors.InvalidArgument(f"{where} has a NUL in it", ref=where)
            elif field.message_type is not None:
                refuse_nul(item, where)


def services() -> dict[str, ServiceDescriptor]:
    """The services by name, with their methods."""
    return dict(_API.file.services_by_name)
