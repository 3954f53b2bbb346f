"""What the engine knows of registries: its settings for workers, and which were down."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from isula_edge.service.config import EngineConfig

__all__ = ["Registries"]

_FORGET_S = 300.0


class Registries:
    """Settings of registries, and a memory of those that could not be reached lately.

    A worker lives for one pull; without the memory each of them would wait for the time-out
    of a mirror that is down.  Hosts in it are not left out, they are asked last.
    """

    def __init__(
        self, config: EngineConfig, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._config = config
        self._now = monotonic
        self._down: dict[str, float] = {}

    def reconfigure(self, config: EngineConfig) -> None:
        """Takes over new settings (SIGHUP); what was down may be another machine now."""
        self._config = config
        self._down.clear()

    def settings(self) -> dict[str, Any]:
        """The part of a worker's request that says how registries are asked."""
        config = self._config
        return {
            "mirrors": list(config.registry_mirrors),
            "host_mirrors": {k: list(v) for k, v in config.registry_host_mirrors.items()},
            "insecure": list(config.insecure_registries),
            "insecure_skip_verify": config.insecure_skip_verify,
            "certs_dir": config.certs_dir,
            "clock_timeout": config.clock_timeout_s,
            "unreachable": self.unreachable(),
        }

    def unreachable(self) -> list[str]:
        """Hosts that a worker could not reach in the last five minutes."""
        now = self._now()
        self._down = {host: until for host, until in self._down.items() if until > now}
        return list(self._down)

    def learn(self, event: Mapping[str, Any]) -> None:
        """Takes over what a worker's event says of a host."""
        if "unreachable" in event:
            self._down[str(event["unreachable"])] = self._now() + _FORGET_S
        self._down.pop(str(event.get("reachable")), None)
