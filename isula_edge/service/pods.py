"""Pod sandboxes: made, stopped, removed, and taken over after a restart.

A pod is durable as one record in ``<graph>/pods``; what a reboot ends anyway (its
namespaces, files, shared memory and state) is in ``<state>/pods/<id>`` on tmpfs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.cgroup import container_dir
from isula_edge.cgroup.pods import group_dir, make_group, remove_groups
from isula_edge.network import Attach, Dns, Network, end_plugins
from isula_edge.pod import files, namespaces
from isula_edge.pod.record import Pod, PodSpec
from isula_edge.service.attempts import Attempts
from isula_edge.service.sandboxes import Sandboxes
from isula_edge.snapshot.base import remove_tree
from isula_edge.store.records import RecordStore, read_record, write_record
from isula_edge.sys import process, syscalls
from isula_edge.sys.boot import boot_id
from isula_edge.sys.tasks import to_its_end

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from isula_edge.container.record import Container
    from isula_edge.service.engine import Engine

__all__ = ["Pods"]

_log = logging.getLogger(__name__)
_SHM_SIZE = 64 << 20
_LONGEST_HOSTNAME = 64
"""sethostname(2)."""


class Pods:
    """Everything that can be done with pods."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        config = engine.config
        cri = config.cri
        self.network = Network(
            cri.cni_conf_dir,
            cri.cni_bin_dirs,
            cri.cni_cache_dir,
            engine.reaper,
            engine.watcher,
            # engines may share the cache directory: each collects its own
            owner=config.graph,
        )
        self._folder = f"{config.state}/pods"
        self._records = RecordStore(
            f"{config.graph}/pods", "pod", f"{config.graph}/quarantine", engine.reserve
        )
        self._by_id: dict[str, Pod] = {}
        self._names: dict[str, str] = {}
        self._attempts: Attempts[Pod] = Attempts()
        self.sandboxes = Sandboxes(engine, self._folder)
        # a failed pod's network could not be taken away: tried again with the next pod
        self._leftover = False
        os.makedirs(self._folder, 0o711, exist_ok=True)

    def __iter__(self) -> Iterator[Pod]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, ref: str) -> Pod:
        """By id, name or unique prefix of the id; NotFound, InvalidArgument when ambiguous."""
        found = self._by_id.get(ref) or self._by_id.get(self._names.get(ref, ""))
        if found is not None:
            return found
        matches = [pod for key, pod in self._by_id.items() if ref and key.startswith(ref)]
        if len(matches) > 1:
            raise errors.InvalidArgument(f"pod id prefix {ref} is ambiguous", kind="pod", ref=ref)
        if not matches:
            raise errors.NotFound(f"No such pod sandbox: {ref}", kind="pod", ref=ref)
        return matches[0]

    def find(self, ref: str) -> Pod | None:
        """As :meth:`get`; None when there is none."""
        try:
            return self.get(ref)
        except errors.NotFound:
            return None

    def containers(self, pod: Pod) -> list[Container]:
        """The containers of a pod."""
        return [container for container in self._engine.table if container.pod == pod.id]

    def folder(self, pod: Pod) -> str:
        """The directory of the pod's files, on tmpfs."""
        return f"{self._folder}/{pod.id}"

    def files(self, pod: Pod) -> dict[str, str]:
        """hosts, hostname and resolv.conf: path inside to the host's path."""
        folder = self.folder(pod)
        return {f"/etc/{name}": f"{folder}/{name}" for name in ("hosts", "hostname", "resolv.conf")}

    def shm(self, pod: Pod) -> str:
        """The host's directory that is /dev/shm of the pod's containers."""
        return "/dev/shm" if pod.spec.modes.get("ipc") == "node" else f"{self.folder(pod)}/shm"

    def hostname(self, pod: Pod) -> str:
        """The pod's host name."""
        return files.hostname(pod.spec.hostname, pod.id, node=_on_node(pod.spec))

    # making

    async def run(
        self, spec: PodSpec, admit: Callable[[Pod], Awaitable[None]] | None = None
    ) -> Pod:
        """Makes a pod, ready for containers.

        ``admit`` is asked last and may refuse it by raising; nobody else sees the pod before.
        Nothing is left behind when it fails.  Raises AlreadyExists for a name that is taken,
        and what the network or the kernel says.
        """
        _check(spec)
        return await self._attempts.run(spec.key, spec, lambda: self._run(spec, admit))

    async def _run(self, spec: PodSpec, admit: Callable[[Pod], Awaitable[None]] | None) -> Pod:
        holder = self._names.get(spec.key)
        if holder is not None:
            raise errors.AlreadyExists(
                f"pod name {spec.key} is taken by {holder}", kind="pod", ref=spec.key
            )
        pod = Pod(secrets.token_hex(32), time.time_ns(), boot_id(), spec)
        self._names[spec.key] = pod.id
        if self._leftover:
            self._leftover = False
            self._engine.background(self._collect())
        try:
            await self._make(pod)
            pod.ready = True
            if admit is not None:
                await admit(pod)
            self._save_state(pod)
        except BaseException:
            await to_its_end(self._undo(pod))
            raise
        self._by_id[pod.id] = pod
        self._watch(pod)
        self._engine.events.pod("create", pod.id, {"name": spec.key})
        self._engine.events.pod("start", pod.id, {"name": spec.key})
        return pod

    async def _make(self, pod: Pod) -> None:
        # the record tells a restart of what may be there, so it is written first
        await to_its_end(asyncio.to_thread(self._prepare, pod))
        await to_its_end(asyncio.to_thread(self._make_namespaces, pod))
        if not _on_node(pod.spec):
            self._save_state(pod)
            pod.network = True
            found = await self.network.attach(self._attachment(pod))
            pod.ips = found.ips
            files.write_hosts(self.folder(pod), self.hostname(pod), pod.ips, node=False)
        await self.sandboxes.make(pod)

    def _prepare(self, pod: Pod) -> None:
        self._records.write(pod.id, pod.to_record())
        folder = self.folder(pod)
        os.makedirs(folder, 0o711)
        if pod.cgroup_parent:
            # a kubelet has made it; where nobody has, it goes with the pod
            parent = group_dir(pod.cgroup_parent, systemd=self._engine.config.systemd_cgroup)
            pod.groups = make_group(self._engine.cgroups, parent)
        files.write_files(folder, self.hostname(pod), pod.spec.dns, node=_on_node(pod.spec))
        if pod.spec.modes.get("ipc") != "node":
            os.mkdir(f"{folder}/shm")
            flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
            options = f"mode=1777,size={_SHM_SIZE}"
            if pod.spec.uid_maps:
                options += f",uid={pod.spec.uid_maps[0][1]},gid={pod.spec.gid_maps[0][1]}"
            syscalls.mount("shm", f"{folder}/shm", "tmpfs", flags, options)

    def _make_namespaces(self, pod: Pod) -> None:
        spec = pod.spec
        kinds = [] if _on_node(spec) else ["network", "uts"]
        if spec.modes.get("ipc") != "node":
            kinds.append("ipc")
        share_pid = spec.modes.get("pid", "pod") == "pod"
        request = namespaces.Request(
            pod.id,
            self.folder(pod),
            tuple(kinds),
            self.hostname(pod),
            spec.sysctls,
            share_pid,
            spec.uid_maps,
            spec.gid_maps,
        )
        made = namespaces.make(request)
        pod.pause = made.pause
        pod.namespaces = dict.fromkeys(("network", "uts", "ipc", "user"))
        pod.namespaces.update(made.paths)
        if made.pause is not None:
            pod.namespaces["pid"] = f"/proc/{made.pause.pid}/ns/pid"
            self._confine(pod, made.pause)
        elif spec.modes.get("pid") == "node":
            pod.namespaces["pid"] = None

    def _confine(self, pod: Pod, holder: process.Identity) -> None:
        """Puts the pause process into a cgroup below the pod's."""
        group = self._group(pod)
        pod.groups += make_group(self._engine.cgroups, group)
        for mount in set(self._engine.cgroups.mounts.values()):
            with (
                contextlib.suppress(OSError),
                open(f"{mount}/{group}/cgroup.procs", "w", encoding="ascii") as file,
            ):
                file.write(str(holder.pid))

    def _group(self, pod: Pod) -> str:
        config = self._engine.config
        parent = pod.cgroup_parent or config.cgroup_parent
        group = container_dir(parent, f"pod-{pod.id}", systemd=config.systemd_cgroup)
        return self._engine.cgroups.group(group)

    def _attachment(self, pod: Pod) -> Attach:
        spec = pod.spec
        path = pod.namespaces.get("network")
        return Attach(
            pod.id,
            path if path and namespaces.pinned(path) else "",
            spec.namespace,
            spec.name,
            spec.uid,
            spec.annotations,
            port_mappings=spec.port_mappings,
            dns=spec.dns or Dns(),
            hostname=self.hostname(pod),
            cgroup_parent=pod.cgroup_parent,
        )

    def _save_state(self, pod: Pod) -> None:
        path = f"{self.folder(pod)}/state.cbor"
        write_record(path, "pod-state", pod.to_state(), durable=False)

    async def _undo(self, pod: Pod) -> None:
        try:
            await self._disconnect(pod)
        except (errors.EngineError, OSError):
            self._leftover = True
        try:
            await asyncio.to_thread(self._release, pod)
            await asyncio.to_thread(self._forget, pod)
        except (OSError, ValueError) as error:
            _log.warning("files of pod %s, which has failed, are left: %s", pod.id[:12], error)
        finally:
            self._names.pop(pod.spec.key, None)

    async def _disconnect(self, pod: Pod) -> None:
        # a virtual machine uses the addresses as long as it is there
        await self.sandboxes.end(pod)
        if pod.network:
            await self.network.detach(self._attachment(pod))
            pod.network, pod.ips = False, []

    def _release(self, pod: Pod) -> None:
        """Ends namespaces, pause process and shared memory."""
        namespaces.release(
            {kind: path for kind, path in pod.namespaces.items() if kind != "pid"}, pod.pause
        )
        with contextlib.suppress(OSError):
            syscalls.umount(f"{self.folder(pod)}/shm", syscalls.MNT_DETACH)

    def _forget(self, pod: Pod) -> None:
        """Deletes cgroups, which only the record names, the record, then everything else."""
        mounts = {*self._engine.cgroups.mounts.values()}
        remove_groups({*pod.groups, *(f"{mount}/{self._group(pod)}" for mount in mounts)})
        self._records.remove(pod.id)
        with contextlib.suppress(FileNotFoundError):
            remove_tree(self.folder(pod))

    # the end

    async def stop(self, pod: Pod) -> None:
        """Kills the pod's containers and takes its network away; stopped already is fine.

        Raises what the network's plugins say; another call tries the rest again.
        """
        await to_its_end(self._stop(pod))

    async def _stop(self, pod: Pod) -> None:
        async with pod.lock:
            was_ready, pod.ready = pod.ready, False
            if was_ready:
                pod.exited_ns = time.time_ns()
                self._note(pod)
            try:
                await self._end_containers(pod)
                await self._disconnect(pod)
                await asyncio.to_thread(self._release, pod)
                self._note(pod)
            finally:
                if was_ready:
                    self._engine.events.pod("stop", pod.id, {"name": pod.spec.key})

    async def _end_containers(self, pod: Pod) -> None:
        """Kills all containers; the first error is raised when all have been tried."""
        stops = [
            self._engine.containers.stop(container, 0, force=True)
            for container in self.containers(pod)
        ]
        for answer in await asyncio.gather(*stops, return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer

    def _note(self, pod: Pod) -> None:
        """Writes the state down; a pod of an earlier boot has none."""
        with contextlib.suppress(FileNotFoundError):
            self._save_state(pod)

    async def remove(self, pod: Pod) -> None:
        """Stops and removes the pod with all its containers."""
        await to_its_end(self._remove(pod))

    async def _remove(self, pod: Pod) -> None:
        await self._stop(pod)
        async with pod.lock:
            if self._by_id.get(pod.id) is not pod:
                return
            for container in self.containers(pod):
                with contextlib.suppress(errors.NotFound):
                    await self._engine.containers.remove(container, force=True)
            await asyncio.to_thread(self._forget, pod)
            self._by_id.pop(pod.id, None)
            self._names.pop(pod.spec.key, None)
        self._engine.events.pod("remove", pod.id, {"name": pod.spec.key})

    async def update(
        self, pod: Pod, overhead: dict[str, Any] | None, resources: dict[str, Any] | None
    ) -> None:
        """Remembers what has been set for the pod's cgroup by its owner; None: as it was."""
        async with pod.lock:
            spec = pod.spec
            pod.spec = replace(
                spec,
                overhead=spec.overhead if overhead is None else overhead,
                resources=spec.resources if resources is None else resources,
            )
            await asyncio.to_thread(self._records.write, pod.id, pod.to_record())

    # after a restart

    async def adopt(self) -> None:
        """Takes over pods; what a crash left unfinished is undone."""
        for key, data in self._records.load():
            try:
                pod = Pod.from_record(data)
            except (KeyError, TypeError, ValueError) as error:
                self._records.put_aside(key, str(error))
                continue
            try:
                adopted = await self._adopt(pod)
            except Exception as error:  # noqa: BLE001
                # one pod must not keep the engine from starting
                _log.exception("pod %s cannot be taken over", pod.id[:12])
                self._records.put_aside(key, str(error))
                continue
            if adopted:
                self._by_id[pod.id] = pod
                self._names[pod.spec.key] = pod.id
                self._watch(pod)
        await asyncio.to_thread(self._sweep)
        self._engine.background(self._collect())

    async def _adopt(self, pod: Pod) -> bool:
        """Whether the pod is one that somebody was told of."""
        try:
            path = f"{self.folder(pod)}/state.cbor"
            pod.take_state(read_record(path, "pod-state"))
        except (OSError, errors.EngineError, KeyError, TypeError, ValueError):
            if pod.boot == boot_id():
                # a crash before it was ready, or its state is lost: nothing can be done with it
                pod.namespaces = dict(namespaces.paths(pod.id, self.folder(pod)))
                pod.network = not _on_node(pod.spec)
                namespaces.end_pause(pod.id)
                end_plugins(pod.id)
                await self._undo(pod)
                return False
            pod.exited_ns = pod.created_ns
            return True
        held = [path for kind, path in pod.namespaces.items() if path and kind != "pid"]
        alive = pod.pause is None or pod.pause.alive()
        alive = alive and await self.sandboxes.alive(pod)
        if pod.ready and not (alive and all(map(namespaces.pinned, held))):
            pod.ready, pod.exited_ns = False, time.time_ns()
            self._note(pod)
        if not pod.ready and not pod.exited_ns:
            # it was not ready yet when the engine ended
            end_plugins(pod.id)
            await self._undo(pod)
            return False
        return True

    def _sweep(self) -> None:
        """Removes what is on tmpfs of pods that have no record."""
        for name in os.listdir(self._folder):
            if name in self._by_id or name in self._records.newer:
                continue
            folder = f"{self._folder}/{name}"
            with contextlib.suppress(OSError):
                namespaces.end_pause(name)
                namespaces.release(namespaces.paths(name, folder), None)
                syscalls.umount(f"{folder}/shm", syscalls.MNT_DETACH)
            with contextlib.suppress(OSError):
                remove_tree(folder)

    async def _collect(self) -> None:
        """Gives back addresses of pods that are no more (case A31c)."""
        # pods that are being made are in _names alone
        making = set(self._names.values()) - self._by_id.keys()
        held = making | {
            pod.id
            for pod in self
            if pod.ready or any(container.running for container in self.containers(pod))
        }
        failures = await self.network.collect(held)
        self._leftover = self._leftover or bool(failures)
        for error in failures:
            _log.warning("a network attachment of a pod that is gone: %s", error)

    def _watch(self, pod: Pod) -> None:
        if not pod.ready:
            return
        if pod.pause is not None:
            gone = process.gone(pod.pause)
            self._engine.background(self._wait_for(pod, gone, "pause process"))
        sandbox = self.sandboxes.gone(pod)
        if sandbox is not None:
            self._engine.background(self._wait_for(pod, sandbox, "sandbox"))

    async def _wait_for(self, pod: Pod, gone: asyncio.Future[None], what: str) -> None:
        """The pod is over when the first process of its pid namespace ends."""
        await gone
        if pod.ready:
            _log.warning("the %s of pod %s has ended", what, pod.id[:12])
            pod.ready, pod.exited_ns = False, time.time_ns()
            self._note(pod)
            self._engine.events.pod("stop", pod.id, {"name": pod.spec.key})


def _on_node(spec: PodSpec) -> bool:
    return spec.modes.get("network") == "node"


def _check(spec: PodSpec) -> None:
    """Raises InvalidArgument for what cannot be."""
    if not spec.name or not spec.namespace or not spec.uid:
        raise errors.InvalidArgument(
            "the metadata of a pod needs name, namespace and uid", kind="pod", ref=spec.key
        )
    _check_words(spec)
    _check_group(spec.cgroup_parent)
    for key in spec.sysctls:
        if not key.isprintable() or ".." in key.split("/"):
            raise errors.InvalidArgument(f"sysctl {key!r:.200} is no name", kind="sysctl", ref=key)
        if key.startswith("net.") and _on_node(spec):
            where = "network"
        elif _is_ipc(key) and spec.modes.get("ipc") == "node":
            where = "ipc"
        elif key.startswith("net.") or _is_ipc(key):
            continue
        else:
            raise errors.InvalidArgument(
                f"sysctl {key} belongs to no namespace of a pod", kind="sysctl", ref=key
            )
        raise errors.InvalidArgument(
            f"sysctl {key} cannot be set in the host's {where} namespace", kind="sysctl", ref=key
        )
    if any(len(maps) > 1 for maps in (spec.uid_maps, spec.gid_maps)):
        raise errors.InvalidArgument("a pod has one mapping of ids at most", kind="pod")


def _check_words(spec: PodSpec) -> None:
    """Nothing that ends up in hosts or resolv.conf may hold white space."""
    dns = spec.dns or Dns()
    words = [spec.hostname, *dns.servers, *dns.searches]
    # an option may have a value: "timeout: 1" is what resolvers take as two words
    words += [option.replace(" ", "") for option in dns.options]
    for word in words:
        if not word.isprintable() or " " in word:
            raise errors.InvalidArgument(
                f"{word!r} can be no part of a pod's hosts or resolv.conf", kind="pod", ref=spec.key
            )
    if len(spec.hostname.encode()) > _LONGEST_HOSTNAME:
        raise errors.InvalidArgument(
            f"host name {spec.hostname} is longer than {_LONGEST_HOSTNAME} bytes",
            kind="pod",
            ref=spec.key,
        )


def _check_group(parent: str) -> None:
    if not parent.isprintable() or ".." in parent.split("/"):
        raise errors.InvalidArgument(
            f"cgroup_parent {parent!r:.200} is no place for cgroups", kind="cgroup", ref=parent
        )


def _is_ipc(key: str) -> bool:
    return key.startswith("fs.mqueue.") or key in {
        f"kernel.{name}"
        for name in "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced".split()
    }
