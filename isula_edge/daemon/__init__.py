"""Level 7: the ``isulad`` program: configuration, log, sockets, signals.

Owns the listening sockets, the pid file and the engine's log file.
"""

from __future__ import annotations

__all__: list[str] = []
