"""The engine: everything below put together, opened, and closed again.

Owns ``<graph>/engine.cbor`` (which storage driver the graph belongs to) and the lock that
keeps a second engine away from a graph.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
from typing import TYPE_CHECKING, Any

from isula_edge import errors, kernel, profile
from isula_edge.cgroup import Host, init_groups, nests
from isula_edge.container.bundle import Bundles
from isula_edge.container.life import Life
from isula_edge.container.table import Table
from isula_edge.image import partial
from isula_edge.image.store import ImageStore
from isula_edge.oci.capabilities import bounding_set
from isula_edge.profile import elf
from isula_edge.profile import seccomp as filters
from isula_edge.runtime.lxc import Lxc
from isula_edge.runtime.supervisor import Supervisor
from isula_edge.service import machine, runtimes
from isula_edge.service.check import Marker, check_after_crash
from isula_edge.service.containers import Containers
from isula_edge.service.emulators import Emulators
from isula_edge.service.events import Events
from isula_edge.service.images import Images
from isula_edge.service.limits import HostLimits
from isula_edge.service.platforms import Platforms
from isula_edge.service.pods import Pods
from isula_edge.service.small import fitted, page_size_trouble
from isula_edge.service.stats import Stats
from isula_edge.snapshot.choose import DRIVERS, choose_driver
from isula_edge.snapshot.layers import LayerStore
from isula_edge.snapshot.overlay import why_not
from isula_edge.store.records import quarantine, read_record, write_record
from isula_edge.store.schema import NewerRecord
from isula_edge.sys import atomic, syscalls
from isula_edge.sys.inotify import Watcher
from isula_edge.sys.process import Reaper
from isula_edge.sys.reserve import Reserve

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from isula_edge.kernel import Feature
    from isula_edge.runtime.base import Runtime
    from isula_edge.service.config import EngineConfig

__all__ = ["Engine"]

_log = logging.getLogger(__name__)
_ALIASES = {"lcr": "lxc"}
_CONMON = ("/usr/bin/conmon", "/usr/local/bin/conmon", "/usr/libexec/podman/conmon")


class Engine:
    """One engine over one graph, in the running event loop.

    Use :meth:`open`; everything public is usable afterwards.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.profile = profile.load()
        self.config = fitted(config, self.profile)
        self.warnings: list[str] = []
        self._damaged: list[str] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._lock = _lock(config.graph)
        self.marker = Marker(config.graph)
        self.platforms = Platforms()
        self.features = kernel.probe()
        self.verdict = machine.tell(self.features)
        self.cgroups = _cgroup_host()
        self.host_limits = HostLimits(self.cgroups)
        self._check_privileges()
        self._check_seccomp()
        if self.features.usable("child-subreaper"):
            syscalls.set_child_subreaper()
        self.reaper = Reaper()
        self.reaper.install()
        self.emulators = Emulators(self.reaper)
        self.events = Events()
        os.makedirs(config.state, 0o711, exist_ok=True)
        self.watcher = Watcher()
        self._open_stores()
        self.runtimes = self._drivers()
        self.default_runtime = self.runtime_name(
            config.default_runtime or self.profile.default_runtime
        )
        self.bundles = Bundles(
            self.table,
            config.state,
            config.cgroup_parent,
            self._seccomp_filter,
            config.default_ulimits,
            config.systemd_cgroup,
            self.cgroups.group,
        )
        self.life = Life(
            self.table,
            self.bundles,
            self.runtimes,
            self.layers,
            self.reaper,
            self.watcher,
            self.cgroups,
            config.state,
            elf.check_executable,
            self.events.container,
        )
        self.containers = Containers(self)
        self.pods = Pods(self)
        self.stats = Stats(self)

    @classmethod
    async def open(cls, config: EngineConfig) -> Engine:
        """Opens the graph and takes over what runs; raises EngineError saying what is wrong."""
        engine = cls(config)
        await engine.life.adopt()
        await engine.pods.adopt()
        if config.image_layer_check and engine.marker.begin():
            engine.background(check_after_crash(engine))
        return engine

    async def close(self) -> None:
        """Ends the engine's own work; containers go on."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.marker.end()
        self.pods.network.close()
        self.watcher.close()
        os.close(self._lock)

    def reconfigure(self, config: EngineConfig) -> None:
        """Takes over what may change while it runs: mirrors, registries, downloads at once."""
        self.config = fitted(config, self.profile)
        self.images.reconfigure(self.config)

    # opening

    def _check_privileges(self) -> None:
        if trouble := page_size_trouble(self.profile):
            self.warn(trouble)
        if "SYS_RESOURCE" not in bounding_set():
            self.warn(
                "without CAP_SYS_RESOURCE hard limits cannot be raised nor oom_score_adj "
                "lowered: containers get what this process has"
            )

    def _check_seccomp(self) -> None:
        feature = self.features.get("seccomp-filter")
        if feature.missing:
            self.warn(f"containers run without a seccomp profile: {feature.why}")
        if self.config.seccomp_profile:
            _filter_of(self.config.seccomp_profile, set())

    def warn(self, text: str) -> None:
        """Says it in the log and in ``isula info``."""
        self.warnings.append(text)
        _log.warning("%s", text)

    def _open_stores(self) -> None:
        config = self.config
        atomic.make_dir(f"{config.graph}/storage", 0o711)
        path = f"{config.graph}/engine.cbor"
        recorded, newer = "", False
        try:
            recorded = str(read_record(path, "engine").get("driver", ""))
        except FileNotFoundError:
            pass
        except NewerRecord as error:
            newer = True
            self.warn(f"{path} is left alone: {error}")
        except errors.DamagedRecord as error:
            self._damaged.append(quarantine(path, f"{config.graph}/quarantine"))
            _log.error("%s; moved to %s", error, self._damaged[0])
        recorded = recorded or _driver_of(config.graph)
        overlay = self.features.overlay_type()
        several = self.features.overlay_several()
        if overlay and not recorded:
            overlay = self._tried(overlay, several)
        driver = choose_driver(
            config.graph,
            config.storage_driver,
            recorded,
            overlay or None,
            several=several,
            options=config.storage_options,
        )
        if not newer and (recorded != driver.name or not os.path.exists(path)):
            write_record(path, "engine", {"driver": driver.name})
        self.layers = LayerStore(config.graph, driver.name, driver)
        self.reserve = reserve = Reserve(f"{config.graph}/spare")
        self.table = Table(config.graph, reserve)
        self.table.load()
        store = ImageStore(config.graph, reserve)
        store.load()
        self._sweep(store)
        self.images = Images(self.config, store, self.layers, self.table, self.reaper, self.events)
        _empty(self.images.tmpdir)
        reserve.refill()

    def _tried(self, overlay: str, several: bool) -> str | None:
        """``overlay`` if it can be mounted over the graph's own file system, else None."""
        reason = why_not(f"{self.config.graph}/storage", overlay, several=several)
        if not reason:
            return overlay
        self.warn(f"{overlay} does not work on {self.config.graph}: {reason}")
        return None

    def _sweep(self, store: ImageStore) -> None:
        """Removes what a crash left; keeps every tree that an image or a container needs."""
        records = self.layers.all()
        needed = store.chains() | self.table.chains()
        newer = store.records.newer | self.layers.records.newer | self.table.newer
        if newer:
            # nobody knows which layers those need
            self.warn(
                f"records of a newer isulad are left alone ({len(newer)}), and so is everything "
                "that they may need: use that version"
            )
            return
        for chain in [chain for chain in records if chain not in needed]:
            self.layers.remove(chain)
            del records[chain]
        count = self.layers.sweep(set(records) | needed)
        home = f"{self.layers.driver.home}/rw"
        known = {container.id for container in self.table}
        # what a container with a damaged record has written is kept with the record
        damaged = self.table.unreadable()
        for name in os.listdir(home):
            if name not in known and name not in damaged:
                self.layers.driver.remove(name.removeprefix("dead-"))
                count += 1
        if count:
            _log.info("removed %d leftovers of interrupted work", count)

    def _drivers(self) -> dict[str, Runtime]:
        config = self.config
        program = shutil.which("conmon") or next(filter(os.path.exists, _CONMON), _CONMON[0])
        supervisor = Supervisor(program, self.reaper)
        found: dict[str, Runtime] = {
            "lxc": Lxc(
                supervisor,
                self.reaper,
                self.watcher,
                self.cgroups,
                filters.to_lxc,
                f"{config.graph}/libexec",
                shutil.which("lxc-start") or "/usr/bin/lxc-start",
                config.start_timeout_s,
            )
        }
        found |= runtimes.command_line_drivers(config, supervisor, self.reaper, self.cgroups)
        used = {container.runtime for container in self.table}
        found |= runtimes.shim_drivers(config, supervisor, self.reaper, self.watcher, used)
        self._supervisor = supervisor
        return found

    def _seccomp_filter(self, text: str, capabilities: set[str]) -> dict[str, Any] | None:
        """The filter of a container; None for none at all."""
        if text == "unconfined" or not self.features.usable("seccomp-filter"):
            return None
        if text:
            return filters.from_json(text, capabilities)
        if self.config.seccomp_profile:
            return _filter_of(self.config.seccomp_profile, capabilities)
        return filters.default_filter(capabilities)

    # asking

    def runtime_name(self, text: str) -> str:
        """The name of a driver for what a user calls it ('' is the default); InvalidArgument."""
        wanted = text.lower() or self.default_runtime
        wanted = _ALIASES.get(wanted, wanted)
        name = next((name for name in self.runtimes if name.lower() == wanted.lower()), wanted)
        shim = None if name in self.runtimes else runtimes.shim_of_type(name)
        if shim is not None:
            self.runtimes[name] = runtimes.shim_driver(
                name, shim, self.config, self._supervisor, self.reaper, self.watcher
            )
        if name not in self.runtimes:
            raise errors.InvalidArgument(
                f"runtime {text} is not supported",
                kind="runtime",
                ref=text,
                hint=f"one of {', '.join(sorted(self.runtimes))}, or add it to runtimes in "
                "daemon.json",
            )
        return name

    def quarantined(self) -> list[str]:
        """Damaged records that were put aside, as paths."""
        found = [
            *self._damaged,
            *self.table.quarantined,
            *self.images.store.records.quarantined,
            *self.layers.records.quarantined,
        ]
        return [path for path in found if os.path.lexists(path)]

    def store_chains(self) -> set[str]:
        """Chain ids of all layers that are there, or that an image or a container needs."""
        recorded = {f"sha256:{key}" for key in self.layers.records.keys()}  # noqa: SIM118
        return recorded | self.images.store.chains() | self.table.chains()

    def degraded(self) -> list[Feature]:
        """Kernel features that are missing, with what the engine does without them."""
        return list(self.features.degraded())

    def background(self, work: Coroutine[Any, Any, Any]) -> None:
        """Runs ``work`` to its end beside everything else; what it raises is logged."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("background work failed", exc_info=task.exception())


def _filter_of(path: str, capabilities: set[str]) -> dict[str, Any]:
    """The filter in the administrator's file ``path``; InvalidArgument names the file."""
    try:
        with open(path, encoding="utf-8") as file:
            return filters.from_json(file.read(), capabilities)
    except OSError as error:
        problem = f"it cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        problem = "it is no UTF-8"
    except errors.InvalidArgument as error:
        problem = error.message
    raise errors.InvalidArgument(f"seccomp-profile {path}: {problem}", kind="file", ref=path)


def _lock(graph: str) -> int:
    """Makes the graph's directory and takes its lock; FailedPrecondition when it is taken."""
    atomic.make_dir(graph, 0o711)
    fd = os.open(f"{graph}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise errors.FailedPrecondition(
            f"{graph} is in use by another isulad",
            kind="graph",
            ref=graph,
            hint="stop it, or give this one another --graph, --state and --host",
        ) from None
    return fd


def _cgroup_host() -> Host:
    source = kernel.Live()
    layout = kernel.cgroup_layout(source)
    version = {"v1": "1", "hybrid": "hybrid", "v2": "2"}.get(layout.version, "")
    mounts = dict(layout.mounts)
    if layout.unified:
        mounts[""] = layout.unified
    groups = init_groups(source.read("/proc/1/cgroup") or "")
    return Host(version, mounts, groups, flat=not nests(mounts))


def _driver_of(graph: str) -> str:
    """The storage driver whose layers a graph without engine record holds, or ''."""
    for name in DRIVERS:
        home = f"{graph}/storage/{name}"
        if os.path.isdir(home) and any(entry != "rw" for entry in os.listdir(home)):
            return name
    return ""


def _empty(folder: str) -> None:
    """Deletes spools of workers that a crash ended; downloads can go on where they ended."""
    for name in os.listdir(folder):
        path = f"{folder}/{name}"
        if name == partial.FOLDER:
            continue
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)
