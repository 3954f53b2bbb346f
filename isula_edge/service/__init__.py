"""Level 6: what a user can ask for, one function per verb.

The server of the client's socket and the CRI call nothing below this package.  Owns no
paths of its own; :mod:`isula_edge.service.engine` puts together everything below it.
"""

from __future__ import annotations

__all__: list[str] = []
