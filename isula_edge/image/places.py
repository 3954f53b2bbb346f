"""Where to ask: registries and mirrors, in an order, until one has what is wanted."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol, TypeVar

from isula_edge import errors
from isula_edge.image.registry import Endpoint
from isula_edge.image.transport import NotYetValid, Transient

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from isula_edge.image.clock import ClockWait
    from isula_edge.image.job import Job
    from isula_edge.image.transport import Settings

__all__ = ["Attempt", "mirror", "registry", "try_each"]

_log = logging.getLogger(__name__)
_MAX_TEXT = 300
_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)


class Attempt(Protocol[_T_co]):
    """Asks one place; ``patient`` False when another one follows."""

    def __call__(self, endpoint: Endpoint, /, *, patient: bool) -> _T_co:
        """What was wanted; raises EngineError."""


def mirror(text: str, settings: Settings) -> Endpoint:
    """The place that ``text``, ``[http://|https://]HOST[:PORT][/PATH]``, stands for."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    host, slash, path = rest.partition("/")
    if scheme not in ("", "http", "https") or not host or "@" in host:
        raise errors.InvalidArgument(
            f"registry mirror {text!r} is no [http://|https://]HOST[:PORT][/PATH]", ref=text
        )
    if scheme == "http":
        return Endpoint(("http",), host, (slash + path).rstrip("/"))
    return registry(host, settings, (slash + path).rstrip("/"))


def registry(host: str, settings: Settings, prefix: str = "") -> Endpoint:
    """The registry at ``host``, over HTTPS, or plain HTTP too where that is allowed."""
    schemes = ("https", "http") if settings.is_insecure(host) else ("https",)
    return Endpoint(schemes, host, prefix)


def try_each(
    places: Sequence[Endpoint],
    attempt: Attempt[_T],
    job: Job,
    clock: ClockWait,
    unreachable: Collection[str] = (),
) -> _T:
    """What the first place returns that does not fail; those in ``unreachable`` come last.

    Tells the daemon which hosts could not be reached, and which can be again.  Raises the
    error of the last of ``places``; its message has those of the others too.
    """
    order = sorted(dict.fromkeys(places), key=lambda place: place.host in unreachable)
    while True:
        failures: dict[Endpoint, errors.EngineError] = {}
        for endpoint in order:
            try:
                found = attempt(endpoint, patient=endpoint is order[-1])
            except (errors.NoSpace, errors.Aborted):
                raise
            except errors.EngineError as error:
                if len(order) > 1:
                    _log.warning("%s: %s", endpoint.host, error)
                    if isinstance(error, Transient) and not error.status:
                        job.emit({"unreachable": endpoint.host})
                failures[endpoint] = error
                continue
            if endpoint.host in unreachable:
                job.emit({"reachable": endpoint.host})
            return found
        # only when no place is of use, the clock is waited for: it may be all that is wrong
        late = [place for place in order if isinstance(failures[place], NotYetValid)]
        if not late or not clock.again(late[0].host):
            raise _joined(failures, failures[places[-1]])


def _joined(
    failures: dict[Endpoint, errors.EngineError], last: errors.EngineError
) -> errors.EngineError:
    """``last``, with what the other places said."""
    others = [
        f"{place.host}{place.prefix}: {error.message[:_MAX_TEXT]}"
        for place, error in failures.items()
        if error is not last
    ]
    if others:
        last.message = f"{last.message}; asked before: {'; '.join(others)}"
        last.args = (last.message,)
    return last
