"""Level 4: images on their way into the store.

Everything that meets the network or somebody else's bytes runs in a child process, the
*worker* (:mod:`isula_edge.image.worker`), which unpacks into
:class:`isula_edge.snapshot.LayerStore` and tells the daemon what it did.  The daemon
itself imports :mod:`isula_edge.image.reference` and nothing else of this package, so it
never loads ssl, urllib3 or a decompressor.

It is given a graph to unpack into and a directory for temporary files.  There it owns
``blobs`` (unfinished downloads, which the next pull goes on with) and ``slots``; other files
have no name, so that a crash leaves nothing behind.

Invariants: nothing is committed before its digest and its diff_id were verified; no blob
is ever held in memory as a whole; a layer type that cannot be unpacked is refused before
any layer is downloaded.
"""

from __future__ import annotations

__all__: list[str] = []
