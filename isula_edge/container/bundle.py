"""The bundle of a container: its files, its mount points and ``config.json``."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.cgroup.pods import container_dir, systemd_path
from isula_edge.container import logs, staging
from isula_edge.oci import spec as oci_spec
from isula_edge.oci.user import User, resolve_user
from isula_edge.runtime.base import Bundle
from isula_edge.sys import atomic, paths, syscalls
from isula_edge.types import ContainerId

if TYPE_CHECKING:
    from collections.abc import Callable

    from isula_edge.container.record import Container
    from isula_edge.container.table import Table
    from isula_edge.oci.mounts import Mount
    from isula_edge.snapshot.base import Ids

__all__ = ["Bundles"]

_KINDS = {"pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts", "cgroup": "cgroupns"}
_NS_FILE = {"pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts", "cgroup": "cgroup"}


@dataclass(frozen=True, slots=True)
class Bundles:
    """Makes bundles for one engine.

    ``seccomp`` gives the filter for a set of capabilities and a user's own profile text;
    ``default_ulimits`` are those of a start, whatever they were at creation; ``place`` tells
    where a cgroup is on this machine (`isula_edge.cgroup.Host.group`).
    """

    table: Table
    state: str
    cgroup_parent: str
    seccomp: Callable[[str, set[str]], dict[str, Any] | None]
    default_ulimits: tuple[tuple[str, int, int], ...] = ()
    systemd_cgroup: bool = False
    place: Callable[[str], str] = str

    def bundle(self, container: Container, document: dict[str, Any]) -> Bundle:
        """The driver's view of ``container``."""
        folder = self.table.dir(container)
        return Bundle(
            container.id,
            container.name,
            folder,
            f"{self.state}/{container.runtime}/{container.id}",
            self.log_path(container),
            document,
            container.settings.tty,
            container.settings.interactive,
            # a log of somebody else's is rotated by them
            log_max_bytes=0 if container.settings.log_path else container.settings.log_max_size,
            cgroup=self.cgroup(container),
            # a terminal has no end that one who leaves could give it
            stdin_stays=container.settings.tty or not container.settings.stdin_once,
        )

    def log_path(self, container: Container) -> str:
        """Where the supervisor writes the container's output."""
        return container.settings.log_path or f"{self.table.dir(container)}/console.log"

    def load(self, container: Container) -> Bundle:
        """The bundle as its ``config.json`` on disk says; an empty document when unreadable."""
        try:
            with open(f"{self.table.dir(container)}/config.json", encoding="utf-8") as file:
                return self.bundle(container, json.load(file))
        except (OSError, ValueError):
            return self.bundle(container, {"process": {"args": container.args}})

    def unknown(self, container_id: str, runtime: str) -> Bundle:
        """The view of a container that only its run directory tells of."""
        return Bundle(
            ContainerId(container_id),
            container_id[:12],
            f"{self.table.folder}/{runtime}/{container_id}",
            f"{self.state}/{runtime}/{container_id}",
            "",
            {},
            cgroup=self.place(
                container_dir(self.cgroup_parent, container_id, systemd=self.systemd_cgroup)
            ),
        )

    def shm(self, container: Container) -> str:
        """The directory that is the container's /dev/shm; '' for a tmpfs of its own."""
        settings = container.settings
        if settings.shm_path:
            return settings.shm_path
        ipc = settings.ipc
        if settings.join.get("ipc", ipc) in ("host", None):
            return "/dev/shm"
        if ipc.startswith("container:"):
            other = self.table.get(ipc.partition(":")[2])
            return self.shm(other)
        return "" if ipc in ("none", "private") else f"{self.table.dir(container)}/mounts/shm"

    def mount_shm(self, container: Container) -> None:
        """Mounts what :meth:`shm` names where it is the container's own, so that others share."""
        path, settings = self.shm(container), container.settings
        if not path.startswith(f"{self.table.dir(container)}/") or os.path.ismount(path):
            return
        os.makedirs(path, exist_ok=True)
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
        syscalls.mount("shm", path, "tmpfs", flags, f"mode=1777,size={settings.shm_size}")

    def unmount_shm(self, container: Container) -> None:
        """Takes it away; not mounted is fine."""
        path = f"{self.table.dir(container)}/mounts/shm"
        with contextlib.suppress(OSError):
            syscalls.umount(path, syscalls.MNT_DETACH)

    def cgroup(self, container: Container) -> str:
        """The container's cgroup, without leading slash."""
        parent = container.settings.cgroup_parent or self.cgroup_parent
        return self.place(container_dir(parent, container.id, systemd=self.systemd_cgroup))

    def _cgroups_path(self, container: Container) -> str:
        """The same in the words of its runtime: LXC does not know of systemd's scopes."""
        parent = container.settings.cgroup_parent or self.cgroup_parent
        if self.systemd_cgroup and container.runtime != "lxc":
            if not parent.endswith(".slice"):
                raise errors.InvalidArgument(
                    f"cgroup parent {parent} is no slice like system.slice, which runtime "
                    f"{container.runtime} needs with systemd-cgroup",
                    kind="cgroup",
                    ref=parent,
                )
            return systemd_path(parent, container.id)
        return f"/{self.cgroup(container)}"

    def hostname(self, container: Container) -> str:
        """Its host name: given, the host's in the host's uts namespace, or the short id."""
        if container.settings.hostname:
            return container.settings.hostname
        uts = container.settings.join.get("uts", container.settings.uts)
        return os.uname().nodename if uts in ("host", None) else container.id[:12]

    @staticmethod
    def user(container: Container, rootfs: str, text: str) -> User:
        """``text`` as a user of the container, with the groups that its settings want."""
        settings = container.settings
        rule = None
        if container.pod:
            # the CRI merges whatever group was given, Docker does not
            rule = not settings.groups_strict
        return resolve_user(rootfs, text, settings.group_add, memberships=rule)

    def run_dir(self, container: Container) -> str:
        """What a reboot ends of it."""
        return f"{self.state}/{container.runtime}/{container.id}"

    def prepare(
        self, container: Container, rootfs: str, mounts: list[Mount], ids: Ids | None = None
    ) -> Bundle:
        """Writes files and ``config.json`` for a container whose root is mounted at ``rootfs``.

        ``mounts`` are its mounts as :func:`isula_edge.container.staging.stage` gave them,
        ``ids`` are those of its user namespace.
        """
        settings = container.settings
        folder = self.table.dir(container)
        user = self.user(
            container, rootfs, settings.user or container.image_config.get("User") or ""
        )
        workdir = settings.workdir or container.image_config.get("WorkingDir") or "/"
        if workdir != "/":
            with staging.as_root_inside(ids):
                paths.ensure_target(rootfs, workdir, directory=True)
        files = settings.files or self._files(container, folder)
        document = self.document(container, rootfs, user, workdir, files, mounts)
        oci_spec.check_texts(document, utf8=container.runtime != "lxc")
        if ids is not None:
            staging.bind_devices(document)
            staging.reachable(document, self.run_dir(container))
        with staging.as_root_inside(ids):
            self._targets(document, rootfs)
            if not settings.external_rootfs:
                _link_mtab(rootfs)
        if settings.log_path:
            logs.make(settings.log_path)
        text = json.dumps(document, indent=2).encode("utf-8", "surrogateescape")
        atomic.write(f"{folder}/config.json", text, durable=False)
        return self.bundle(container, document)

    def document(
        self,
        container: Container,
        rootfs: str,
        user: User,
        workdir: str,
        files: dict[str, str],
        mounts: list[Mount] | None = None,
    ) -> dict[str, Any]:
        """The runtime-spec document, with ``mounts`` in place of those in the settings."""
        named = {name for name, _, _ in container.settings.ulimits}
        settings = replace(
            container.settings,
            mounts=container.settings.mounts if mounts is None else mounts,
            ulimits=[
                *container.settings.ulimits,
                *(item for item in self.default_ulimits if item[0] not in named),
            ],
        )
        names = set(oci_spec.bounding(settings))
        subject = oci_spec.Subject(
            container.id,
            rootfs,
            container.args,
            list(container.image_config.get("Env") or ()),
            workdir,
            user,
            self.hostname(container),
            self.cgroup(container),
            files,
            self._namespaces(container),
            None if settings.privileged else self.seccomp(settings.seccomp, names),
            self.shm(container),
            oci_spec.hard_limits(),
        )
        document = oci_spec.build(settings, subject)
        document["linux"]["cgroupsPath"] = self._cgroups_path(container)
        return document

    def _namespaces(self, container: Container) -> dict[str, str | None]:
        found: dict[str, str | None] = {"mount": ""}
        for kind, name in _KINDS.items():
            value = getattr(container.settings, name)
            missing = kind == "cgroup" and not os.path.exists("/proc/self/ns/cgroup")
            if missing or value == "host":
                found[kind] = None
            elif value.startswith("container:"):
                other = self.table.get(value.partition(":")[2])
                if not other.running:
                    raise errors.FailedPrecondition(
                        f"Can not join namespace of a non running container {other.name}",
                        kind="container",
                        ref=other.id,
                    )
                found[kind] = f"/proc/{other.state.pid}/ns/{_NS_FILE[kind]}"
            else:
                found[kind] = ""
        for kind, path in container.settings.join.items():
            if path and not os.path.exists(path):
                raise errors.FailedPrecondition(
                    f"the {kind} namespace that {container.name} is to join is gone",
                    kind="namespace",
                    ref=path,
                )
        return found | container.settings.join

    def _files(self, container: Container, folder: str) -> dict[str, str]:
        """/etc/hosts, hostname and resolv.conf of the container."""
        settings = container.settings
        name = self.hostname(container)
        if settings.net == "host" and not settings.add_host:
            hosts = _read("/etc/hosts")
        else:
            extra = "".join(
                f"{address}\t{host}\n"
                for host, _, address in (item.partition(":") for item in settings.add_host)
            )
            hosts = (
                "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
                f"127.0.1.1\t{name}\n{extra}"
            )
        resolv = _read("/etc/resolv.conf")
        if settings.dns or settings.dns_search or settings.dns_opt:
            lines = [f"nameserver {item}" for item in settings.dns] or [
                line for line in resolv.splitlines() if line.startswith("nameserver")
            ]
            if settings.dns_search:
                lines.append("search " + " ".join(settings.dns_search))
            if settings.dns_opt:
                lines.append("options " + " ".join(settings.dns_opt))
            resolv = "\n".join(lines) + "\n"
        table = {"hosts": hosts, "hostname": name + "\n", "resolv.conf": resolv}
        found = {}
        for file, text in table.items():
            path = f"{folder}/{file}"
            # in place: a running container may hold the file by its bind mount
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(text)
            os.chmod(path, 0o644)
            found[f"/etc/{file}"] = path
        return found

    @staticmethod
    def _targets(document: dict[str, Any], rootfs: str) -> None:
        """Makes mount points inside the root and resolves links in their paths."""
        for mount in document["mounts"]:
            target = mount["destination"]
            if target == "/dev" or target.startswith(("/dev/", "/proc/", "/sys/")):
                continue
            directory = mount["type"] != "bind" or os.path.isdir(mount["source"])
            host = paths.ensure_target(rootfs, target, directory=directory)
            inside = host[len(rootfs) :]
            if inside:
                mount["destination"] = inside


def _link_mtab(rootfs: str) -> None:
    """/etc/mtab, which older programs read, where the image has none."""
    link = paths.resolve_in_root(rootfs, "/etc") + "/mtab"
    with contextlib.suppress(OSError):
        os.symlink("/proc/mounts", link)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""
