"""Version of the engine and of the interfaces it serves."""

from __future__ import annotations

__all__ = ["API_VERSION", "COMMIT", "OCI_RUNTIME_SPEC", "VERSION"]

VERSION = "0.1.0"
"""Version of this package, SemVer."""

COMMIT = "unreleased"
"""Commit the package was built from; the release build rewrites it."""

API_VERSION = 1
"""Version of the wire protocol between ``isula`` and ``isulad`` (see :mod:`isula_edge.wire`)."""

OCI_RUNTIME_SPEC = "1.0.2"
"""OCI runtime-spec version written into ``config.json``."""
