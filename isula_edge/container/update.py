"""New limits for a container, whether or not it runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.cgroup import update
from isula_edge.container.record import Status
from isula_edge.oci.resources import limits, swap_limit
from isula_edge.sys import atomic

if TYPE_CHECKING:
    from isula_edge.cgroup import CgroupFile, Host
    from isula_edge.container.bundle import Bundles
    from isula_edge.container.record import Container
    from isula_edge.container.table import Table
    from isula_edge.oci.options import Settings
    from isula_edge.runtime.base import Guest

__all__ = ["take_limits", "take_limits_inside"]


def take_limits(
    container: Container, settings: Settings, table: Table, bundles: Bundles, cgroups: Host
) -> None:
    """Gives ``container`` the limits of ``settings`` and records them; all or nothing.

    The files of a running one are written whatever its runtime: it keeps no limits of its
    own in mind.  Blocking; the caller holds the container's lock.
    """
    state = container.state
    # one that has just ended has no group any more
    running = state.status in (Status.RUNNING, Status.PAUSED) and state.init().alive()
    former, group = container.settings, bundles.cgroup(container)
    before: list[CgroupFile] = []
    if running:
        before = update.apply(cgroups, group, _files(former, settings, cgroups.version))
    container.settings = settings
    try:
        table.save(container)
    except (errors.EngineError, OSError):
        container.settings = former
        update.restore(cgroups, group, before)
        raise
    if running:
        # a start writes it anew: it is there for whoever reads it meanwhile
        with contextlib.suppress(errors.EngineError, OSError):
            _rewrite(bundles, container)


async def take_limits_inside(
    container: Container, settings: Settings, table: Table, bundles: Bundles, guest: Guest
) -> None:
    """:func:`take_limits` for a running container that only its runtime can reach."""
    former = container.settings
    bundle = bundles.load(container)
    await guest.update(bundle, _resources(former, settings))
    container.settings = settings
    try:
        await asyncio.to_thread(table.save, container)
    except (errors.EngineError, OSError):
        container.settings = former
        with contextlib.suppress(errors.EngineError, OSError):
            await guest.update(bundle, _resources(settings, former))
        raise
    with contextlib.suppress(errors.EngineError, OSError):
        await asyncio.to_thread(_rewrite, bundles, container)


def _resources(former: Settings, settings: Settings) -> dict[str, Any]:
    new = limits(settings)
    if swap_limit(former) > 0 > swap_limit(settings):
        # no limit is said only where there was one
        new["memory"]["swap"] = -1
    return new


def _files(former: Settings, settings: Settings, version: str) -> list[CgroupFile]:
    return update.changes(limits(former), _resources(former, settings), version)


def _rewrite(bundles: Bundles, container: Container) -> None:
    bundle = bundles.load(container)
    linux = bundle.spec.get("linux")
    if linux is None:
        return
    devices = (linux.get("resources") or {}).get("devices") or []
    linux["resources"] = {**limits(container.settings), "devices": devices}
    text = json.dumps(bundle.spec, indent=2).encode("utf-8", "surrogateescape")
    atomic.write(f"{bundle.dir}/config.json", text, durable=False)
