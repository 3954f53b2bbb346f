"""Level 2: what differs between architectures, and programs of other architectures.

The data lie in ``profiles/`` (``profiles/<arch>/profile.toml`` and ``profiles/seccomp.toml``);
nothing else in the engine names an architecture.  Owns no paths.
"""

from __future__ import annotations

from isula_edge.profile.profile import Profile, load

__all__ = ["Profile", "load"]
