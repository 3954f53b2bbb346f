"""kata-runtime 1.x: an OCI command line whose containers are in virtual machines.

The pid it reports is a process of the host (kata-shim) that passes signals and the exit code
on; namespaces, cgroups and /proc of that pid say nothing of the container.  Its ``kill``
blocks until the container ends and kills it by itself after 10 s, so it is not waited for.
The virtual machine outlives the container until ``delete``, and where it died first only
``delete --force`` works.  Later releases of kata have no command line, only a shim.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import time
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.cgroup.stats import Details, Device, GroupStats
from isula_edge.runtime import supervisor
from isula_edge.runtime.oci_cli import Limits, OciCli
from isula_edge.sys import process

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from isula_edge.runtime.base import Bundle, Guest, Started
    from isula_edge.sys.process import Identity

__all__ = ["VM_LIMITS", "OciVm"]

_log = logging.getLogger(__name__)
VM_LIMITS = Limits(create=60.0, start=60.0, exec=60.0, kill=30.0, delete=30.0, force=120.0)
"""What kata 1.12 was seen to need, emulated, and more."""
_UNLIMITED = 1 << 62
_TOLD_S = 5.0
_ALIVE = ("created", "running", "paused")


class OciVm(OciCli):
    """An OCI command line with one virtual machine for each container."""

    vm = True
    _logs = False
    _umask = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.guest: Guest | None = self
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, bundle: Bundle) -> Started:
        """``start``; the process is that of the host which stands for the container."""
        started = await super().start(bundle)
        process.note(f"{bundle.run_dir}/guest", started.init)
        return started

    async def exit_code(self, bundle: Bundle) -> int | None:
        """What conmon saw of the process that stands for the container, once it has told it."""
        watching = supervisor.identity(bundle)
        if watching is not None and not os.path.exists(supervisor.exit_file(bundle.run_dir)):
            future = process.gone(watching)
            await asyncio.wait({future}, timeout=_TOLD_S)
            future.cancel()
        return await super().exit_code(bundle)

    async def _forget(self, bundle: Bundle) -> None:
        try:
            await self._call(bundle, "delete", bundle.id, limit_s=self._limits.delete)
        except errors.EngineError as error:
            _log.info("container %s: %s; deleting it by force", bundle.name, error)
            await super()._forget(bundle)

    # what only the runtime can do

    async def create_sandbox(self, bundle: Bundle) -> None:
        """``create`` and ``start`` under a supervisor of its own."""
        os.makedirs(os.path.dirname(supervisor.exit_file(bundle.run_dir)), 0o700, exist_ok=True)
        await self.create(bundle)
        await self.start(bundle)

    @staticmethod
    def _shim(bundle: Bundle) -> Identity | None:
        """The process of the host that stands for the container, alive or not."""
        return next(iter(process.noted(f"{bundle.run_dir}/guest")), None)

    def gone(self, bundle: Bundle) -> asyncio.Future[None]:
        """A future that ends with the process that stands for the container."""
        found = self._shim(bundle)
        if found is not None:
            return process.gone(found)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    async def alive(self, bundle: Bundle) -> bool:
        """Whether it runs, by its process on the host and by what the runtime says."""
        found = self._shim(bundle)
        if found is None or not found.alive():
            return False
        state = await self._json(bundle, "state", bundle.id)
        return isinstance(state, dict) and state.get("status") in _ALIVE

    async def kill(self, bundle: Bundle, number: int) -> bool:
        """Has the signal sent, without waiting for the end that it may be; False if it is over.

        Where ``kill`` of SIGKILL fails the process that stands for the container is killed.
        """
        found = self._shim(bundle)
        if found is None or not found.alive():
            return False
        if number:
            self._background(self._kill(bundle, found, number))
        return True

    async def _kill(self, bundle: Bundle, shim: Identity, number: int) -> None:
        everyone = ["--all"] if number == signal.SIGKILL else []
        words = ["kill", *everyone, bundle.id, str(int(number))]
        try:
            await self._call(bundle, *words, limit_s=self._limits.kill)
        except errors.EngineError as error:
            if shim.alive():
                _log.warning("container %s: %s", bundle.name, error)
            if number == signal.SIGKILL:
                process.signal_process(shim, signal.SIGKILL)

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def freeze(self, bundle: Bundle, frozen: bool) -> None:
        """``pause`` or ``resume``."""
        word = "pause" if frozen else "resume"
        await self._call(bundle, word, bundle.id, limit_s=self._limits.kill)

    async def update(self, bundle: Bundle, resources: Mapping[str, Any]) -> None:
        """``update`` with ``linux.resources`` on its standard input."""
        data = json.dumps(resources).encode()
        words = ("update", "--resources", "-", bundle.id)
        await self._call(bundle, *words, limit_s=self._limits.kill, data=data)

    async def stats(self, bundle: Bundle) -> GroupStats | None:
        """``events --stats``: the numbers inside the virtual machine."""
        found = self._shim(bundle)
        if found is None or not found.alive():
            return None
        answer = await self._json(bundle, "events", "--stats", bundle.id)
        data = answer.get("data") if isinstance(answer, dict) else None
        return _stats(data) if isinstance(data, dict) else None

    async def pids(self, bundle: Bundle) -> list[int]:
        """``ps``: processes as the virtual machine numbers them."""
        answer = await self._json(bundle, "ps", "--format", "json", bundle.id)
        found = answer if isinstance(answer, list) else []
        numbers = [item.get("pid") if isinstance(item, dict) else item for item in found]
        return sorted({number for number in numbers if type(number) is int and number > 0})

    def resize(self, bundle: Bundle, rows: int, columns: int) -> None:
        """By the supervisor, which has the terminal."""
        supervisor.resize(bundle, rows, columns)

    async def _json(self, bundle: Bundle, *words: str) -> Any:
        out = await self._call(bundle, *words, limit_s=self._limits.kill)
        try:
            return json.loads(out)
        except (ValueError, RecursionError) as error:
            raise errors.Internal(
                f"runtime {self.name}: {words[0]} answered what is no JSON",
                kind="container",
                ref=bundle.id,
                hint=self._advice(),
            ) from error


def _stats(data: dict[str, Any]) -> GroupStats:
    """The numbers of ``events --stats`` (runc's form); what is absent or no number is 0."""

    def number(*keys: str) -> int:
        place: Any = data
        for key in keys:
            place = place.get(key) if isinstance(place, dict) else None
        return place if type(place) is int and place >= 0 else 0

    limit = number("memory", "usage", "limit")
    usage = number("memory", "usage", "usage")
    inactive = number("memory", "raw", "total_inactive_file")
    return GroupStats(
        taken_ns=time.time_ns(),
        cpu_ns=number("cpu", "usage", "total"),
        memory_usage=usage,
        memory_working_set=max(usage - inactive, 0),
        memory_limit=limit if 0 < limit < _UNLIMITED else None,
        memory_rss=number("memory", "raw", "total_rss"),
        memory_cache=number("memory", "cache"),
        memory_mapped_file=number("memory", "raw", "total_mapped_file"),
        page_faults=number("memory", "raw", "total_pgfault"),
        major_page_faults=number("memory", "raw", "total_pgmajfault"),
        swap_usage=max(number("memory", "swap", "usage") - usage, 0),
        pids=number("pids", "current"),
        details=Details(
            cpu_user_ns=number("cpu", "usage", "user"),
            cpu_system_ns=number("cpu", "usage", "kernel"),
            memory_max_usage=number("memory", "usage", "max"),
            memory_failures=number("memory", "usage", "failcnt"),
            memory_kernel=number("memory", "kernel", "usage"),
            pids_max=number("pids", "limit") or None,
            devices=_devices(data),
        ),
    )


def _devices(data: dict[str, Any]) -> tuple[Device, ...]:
    blkio = data.get("blkio")
    listed = blkio.get("ioServiceBytesRecursive") if isinstance(blkio, dict) else None
    sums: dict[tuple[int, int], dict[str, int]] = {}
    for item in listed if isinstance(listed, list) else ():
        if isinstance(item, dict) and all(
            type(item.get(key)) is int for key in ("major", "minor", "value")
        ):
            device = sums.setdefault((item["major"], item["minor"]), {})
            device[str(item.get("op", "")).lower()] = item["value"]
    return tuple(
        Device(major, minor, f"{major}:{minor}", ops.get("read", 0), ops.get("write", 0))
        for (major, minor), ops in sorted(sums.items())
    )
