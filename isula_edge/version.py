"""Version of the engine and of the interfaces it serves."""

from __future__ import annotations

__all__ = ["API_VERSION", "BUILT_S", "COMMIT", "OCI_RUNTIME_SPEC", "VERSION"]

VERSION = "0.1.0"
"""Version of this package, SemVer."""

COMMIT = "unreleased"
"""Commit the package was built from; the release build rewrites it."""

BUILT_S = 1767225600
"""A time before which this package did not exist, in seconds since 1970 (2026-01-01 UTC); the
release build rewrites it.  A clock that shows less has not been set."""

API_VERSION = 1
"""Version of the wire protocol between ``isula`` and ``isulad`` (see :mod:`isula_edge.wire`)."""

OCI_RUNTIME_SPEC = "1.0.2"
"""OCI runtime-spec version written into ``config.json``."""
