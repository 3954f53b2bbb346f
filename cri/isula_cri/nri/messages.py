"""The messages and enumerations of NRI: ``messages.PodSandbox(id="…")``."""

from __future__ import annotations

from typing import Any

from isula_cri.protos import ProtoFile

__all__ = ["EVENTS", "FIELDS", "PLUGIN", "RUNTIME", "VALID_EVENTS"]

_NRI = ProtoFile("nri")
PLUGIN = "nri.pkg.api.v1alpha1.Plugin"
RUNTIME = "nri.pkg.api.v1alpha1.Runtime"
EVENTS = _NRI.enum("Event")
VALID_EVENTS = (1 << EVENTS["LAST"] - 1) - 1
"""The subscription to every event."""
FIELDS = _NRI.enum("Field")


def __getattr__(name: str) -> Any:
    """The class of the message called ``name``."""
    return _NRI.message(name)
