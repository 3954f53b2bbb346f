"""What happened: a ring of the last events, and streams of new ones."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from isula_edge import errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

__all__ = ["Event", "Events"]

_log = logging.getLogger(__name__)
_KEPT = 64
_QUEUE = 1024


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a container, a pod or an image, ``time_ns`` since 1970 UTC."""

    time_ns: int
    kind: str
    action: str
    id: str
    attributes: dict[str, str] = field(default_factory=dict)

    def to_wire(self) -> dict[str, Any]:
        """As the client gets it."""
        return {
            "time_ns": self.time_ns,
            "kind": self.kind,
            "action": self.action,
            "id": self.id,
            "attributes": self.attributes,
        }


class Events:
    """Events of one engine; the last 64 are kept for ``--since``."""

    def __init__(self) -> None:
        self._ring: deque[Event] = deque(maxlen=_KEPT)
        self._streams: set[asyncio.Queue[Event]] = set()
        self._listeners: list[Callable[[Event], None]] = []

    def container(self, action: str, container_id: str, attributes: dict[str, str]) -> None:
        """Something happened to a container."""
        self._add(Event(time.time_ns(), "container", action, container_id, attributes))

    def pod(self, action: str, pod_id: str, attributes: dict[str, str]) -> None:
        """Something happened to a pod sandbox."""
        self._add(Event(time.time_ns(), "pod", action, pod_id, attributes))

    def listen(self, callback: Callable[[Event], None]) -> None:
        """Has ``callback`` called with every event, at once; it must not block."""
        self._listeners.append(callback)

    def unlisten(self, callback: Callable[[Event], None]) -> None:
        """Ends what :meth:`listen` began; not begun is fine."""
        if callback in self._listeners:
            self._listeners.remove(callback)

    def image(self, action: str, name: str) -> None:
        """Something happened to an image."""
        self._add(Event(time.time_ns(), "image", action, name))

    def _add(self, event: Event) -> None:
        self._ring.append(event)
        for callback in list(self._listeners):
            try:
                callback(event)
            except Exception:  # noqa: BLE001
                # who reports must not fail because of who listens
                _log.exception("a listener of events")
        for stream in self._streams:
            if stream.full():
                stream.get_nowait()  # a reader that does not read loses the oldest
            stream.put_nowait(event)

    async def read(
        self, since_ns: int | None, until_ns: int | None, wanted: str = ""
    ) -> AsyncIterator[Event]:
        """Events from ``since_ns`` on (None: from now) until ``until_ns`` (None: for ever).

        ``wanted`` limits them to one id.
        """
        if since_ns is not None and until_ns is not None and until_ns < since_ns:
            raise errors.InvalidArgument("the time of --until lies before that of --since")
        queue: asyncio.Queue[Event] = asyncio.Queue(_QUEUE)
        if since_ns is not None:
            for past in self._ring:
                queue.put_nowait(past)
        self._streams.add(queue)
        try:
            while True:
                event: Event | None = await self._next(queue, until_ns)
                if event is None or (until_ns is not None and event.time_ns > until_ns):
                    return
                if since_ns is not None and event.time_ns < since_ns:
                    continue
                if not wanted or event.id == wanted:
                    yield event
        finally:
            self._streams.discard(queue)

    @staticmethod
    async def _next(queue: asyncio.Queue[Event], until_ns: int | None) -> Event | None:
        if until_ns is None or not queue.empty():
            return await queue.get()
        try:
            left = (until_ns - time.time_ns()) / 1e9
            return await asyncio.wait_for(queue.get(), max(left, 0))
        except TimeoutError:
            return None
