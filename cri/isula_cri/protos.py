"""Descriptor sets of this package, loaded without generated code; ``ci/protos`` makes them."""

from __future__ import annotations

from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["ProtoFile"]


class ProtoFile:
    """The messages, enumerations and services of ``NAME.proto``, from ``NAME.binpb``."""

    def __init__(self, name: str) -> None:
        data = resources.files("isula_cri").joinpath(f"{name}.binpb").read_bytes()
        described = descriptor_pb2.FileDescriptorSet.FromString(data).file[0]
        # a pool of its own: another package of the process may have the same names
        pool = descriptor_pool.DescriptorPool()
        pool.Add(described)
        self.file = pool.FindFileByName(described.name)
        self._classes: dict[str, Any] = {}

    def message(self, name: str) -> Any:
        """The class of the message called ``name``; AttributeError without one."""
        found = self._classes.get(name)
        if found is None:
            described = self.file.message_types_by_name.get(name)
            if described is None:
                raise AttributeError(f"{self.file.name} has no message {name}")
            found = self._classes[name] = message_factory.GetMessageClass(described)
        return found

    def enum(self, name: str) -> dict[str, int]:
        """The values of an enumeration by name."""
        return {value.name: value.number for value in self.file.enum_types_by_name[name].values}
