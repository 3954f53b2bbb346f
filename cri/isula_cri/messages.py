"""The CRI's messages and enumerations: ``messages.PodSandboxStatus(id="…")``.

They are made at the first import from ``api.binpb``, which ``ci/protos`` compiles from
``api.proto``.  One set serves runtime.v1 and runtime.v1alpha2, whose numbers agree.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

if TYPE_CHECKING:
    from google.protobuf.descriptor import ServiceDescriptor

__all__ = ["PACKAGE", "SERVICES", "enum", "services"]

PACKAGE = "runtime.v1"
SERVICES = ("RuntimeService", "ImageService")


def _load() -> Any:
    data = resources.files(__package__).joinpath("api.binpb").read_bytes()
    file = descriptor_pb2.FileDescriptorSet.FromString(data).file[0]
    # a pool of its own: another package of the process may have the same names
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool.FindFileByName(file.name)


_FILE = _load()
_CLASSES: dict[str, Any] = {}


def __getattr__(name: str) -> Any:
    """The class of the message called ``name``."""
    found = _CLASSES.get(name)
    if found is None:
        described = _FILE.message_types_by_name.get(name)
        if described is None:
            raise AttributeError(f"the CRI has no message {name}")
        found = _CLASSES[name] = message_factory.GetMessageClass(described)
    return found


def enum(name: str) -> dict[str, int]:
    """The values of an enumeration by name."""
    return {value.name: value.number for value in _FILE.enum_types_by_name[name].values}


def services() -> dict[str, ServiceDescriptor]:
    """The services by name, with their methods."""
    return dict(_FILE.services_by_name)
