"""Foreign (non-distributable) layers: blobs that a manifest says are elsewhere too.

The registry is asked first; these places are for what it does not have.  They get no
credentials, and what they send counts only by its digest, as everything else does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.image.transport import Transient

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from isula_edge.image.transport import Response

__all__ = ["open_elsewhere"]


def open_elsewhere(
    follow: Callable[[str, Mapping[str, str]], Response],
    urls: Sequence[str],
    headers: Mapping[str, str],
    refused: errors.EngineError,
) -> Response:
    """The first answer (200 or 206) to a GET of one of ``urls``, in their order.

    ``follow`` sends one, redirects included.  When there is none: Transient if one of them
    may have it later; else the class of ``refused``, which is what the registry said, with
    all that was tried in its message.
    """
    said = []
    later: Transient | None = None
    for url in urls:
        try:
            response = follow(url, headers)
        except Transient as error:
            later = later or error
            continue
        except (errors.Unavailable, errors.InvalidArgument) as error:
            said.append(f"{url[:200]}: {error.message}")
            continue
        if response.status in (200, 206):
            return response
        response.close()
        status, host = response.status, url[:200]
        if status >= 500 or status in (408, 416, 429):
            later = later or Transient(f"{host} answers with status {status}", host, status=status)
        said.append(f"{host}: status {status}")
    if later is not None:
        raise later
    raise type(refused)(
        f"{refused.message}; nor is it where the manifest says: {', '.join(said)}",
        kind=refused.kind,
        ref=refused.ref,
        hint=refused.hint,
    ) from refused
