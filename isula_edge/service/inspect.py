"""The JSON objects of ``isula inspect``: iSulad's keys, spelled as iSulad spells them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from isula_edge.container.record import Status

if TYPE_CHECKING:
    from isula_edge.container.record import Container
    from isula_edge.image.store import Image
    from isula_edge.oci.options import Settings
    from isula_edge.service.engine import Engine

__all__ = ["container_object", "image_object"]

_NEVER = "0001-01-01T00:00:00Z"


def _stamp(time_ns: int) -> str:
    """RFC 3339 in local time, with nanoseconds and the zone; year 1 for never."""
    if not time_ns:
        return _NEVER
    seconds, rest = divmod(time_ns, 10**9)
    local = time.localtime(seconds)
    zone = time.strftime("%z", local)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{rest:09d}{zone[:3]}:{zone[3:]}"


def container_object(engine: Engine, container: Container) -> dict[str, Any]:
    """Everything about a container."""
    settings, state = container.settings, container.state
    folder = engine.table.dir(container)
    status = state.status
    return {
        "Id": container.id,
        "Created": _stamp(container.created_ns),
        "Path": container.args[0],
        "Args": container.args[1:],
        "State": {
            "Status": str(status),
            "Running": status in (Status.RUNNING, Status.PAUSED),
            "Paused": status is Status.PAUSED,
            "Restarting": False,
            "OOMKilled": state.oom_killed,
            "Pid": state.pid,
            "ExitCode": state.exit_code,
            "Error": state.error,
            "StartedAt": _stamp(state.started_ns),
            "FinishedAt": _stamp(state.finished_ns),
        },
        "Resources": {
            "CPUPeriod": settings.cpu_period,
            "CPUQuota": settings.cpu_quota,
            "CPUShares": settings.cpu_shares,
            "Memory": settings.memory,
            "MemorySwap": settings.memory_swap,
        },
        "Image": f"sha256:{container.image_id}" if container.image_id else "",
        "ResolvConfPath": f"{folder}/resolv.conf",
        "HostnamePath": f"{folder}/hostname",
        "HostsPath": f"{folder}/hosts",
        "LogPath": engine.bundles.log_path(container),
        "Name": container.name,
        "RestartCount": state.restart_count,
        "MountLabel": "",
        "ProcessLabel": "",
        "SeccompProfile": settings.seccomp,
        "NoNewPrivileges": settings.no_new_privileges,
        "HostConfig": _host_config(container),
        "GraphDriver": {
            "Name": engine.layers.driver.name,
            "Data": engine.life.rootfs_data(container),
        },
        "Mounts": _mounts(settings),
        "Config": _config(engine, container),
        "NetworkSettings": {
            "NetworkMode": settings.net or "none",
            "SandboxKey": f"/proc/{state.pid}/ns/net" if state.pid else "",
            "Networks": {},
        },
    }


def _config(engine: Engine, container: Container) -> dict[str, Any]:
    settings, image = container.settings, container.image_config
    return {
        "Hostname": engine.bundles.hostname(container),
        "User": settings.user or image.get("User") or "",
        "Env": [*(image.get("Env") or ()), *settings.env],
        "Tty": settings.tty,
        "OpenStdin": settings.interactive,
        "Cmd": container.args,
        "Entrypoint": image.get("Entrypoint")
        if settings.entrypoint is None
        else [settings.entrypoint],
        "Labels": {**(image.get("Labels") or {}), **settings.labels},
        "Volumes": image.get("Volumes"),
        "Annotations": settings.annotations,
        "WorkingDir": settings.workdir or image.get("WorkingDir") or "",
        "ExposedPorts": image.get("ExposedPorts"),
        "Image": container.image,
        "ImageRef": container.image_id,
        "StopSignal": settings.stop_signal or image.get("StopSignal") or "SIGTERM",
    }


def _mounts(settings: Settings) -> list[dict[str, Any]]:
    return [
        {
            "Type": mount.kind,
            "Source": mount.source,
            "Destination": mount.target,
            "Name": "",
            "Driver": "",
            "Mode": ",".join(mount.options),
            "RW": not mount.read_only,
            "Propagation": mount.propagation if mount.kind == "bind" else "",
        }
        for mount in settings.mounts
    ]


def _host_config(container: Container) -> dict[str, Any]:
    settings = container.settings
    binds = [
        f"{mount.source}:{mount.target}:{'ro' if mount.read_only else 'rw'},{mount.propagation}"
        for mount in settings.mounts
        if mount.kind == "bind"
    ]
    return {
        "Binds": binds,
        "Mounts": [],
        "Tmpfs": {m.target: ",".join(m.options) for m in settings.mounts if m.kind == "tmpfs"},
        "NetworkMode": settings.net or "none",
        "GroupAdd": settings.group_add,
        "IpcMode": settings.ipc or "shareable",
        "PidMode": settings.pid,
        "UTSMode": settings.uts,
        "UsernsMode": "",
        "CgroupnsMode": settings.cgroupns,
        "Privileged": settings.privileged,
        "SystemContainer": False,
        "ShmSize": settings.shm_size,
        "AutoRemove": settings.rm,
        "ReadonlyRootfs": settings.read_only,
        "Sysctls": settings.sysctls,
        "Runtime": container.runtime,
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "CapAdd": settings.cap_add,
        "CapDrop": settings.cap_drop,
        "Dns": settings.dns,
        "DnsOptions": settings.dns_opt,
        "DnsSearch": settings.dns_search,
        "ExtraHosts": settings.add_host,
        "HookSpec": settings.hook_spec,
        "CPUShares": settings.cpu_shares,
        "CPUPeriod": settings.cpu_period,
        "CPUQuota": settings.cpu_quota,
        "NanoCpus": settings.nano_cpus,
        "CpusetCpus": settings.cpuset_cpus,
        "CpusetMems": settings.cpuset_mems,
        "Memory": settings.memory,
        "MemoryReservation": settings.memory_reservation,
        "MemorySwap": settings.memory_swap,
        "MemorySwappiness": settings.memory_swappiness,
        "OomKillDisable": settings.oom_kill_disable,
        "OomScoreAdj": settings.oom_score_adj or 0,
        "PidsLimit": settings.pids_limit,
        "Ulimits": [{"Name": n, "Soft": soft, "Hard": hard} for n, soft, hard in settings.ulimits],
        "Devices": [
            {"PathOnHost": host, "PathInContainer": inside, "CgroupPermissions": mode}
            for host, inside, mode in settings.devices
        ],
        "DeviceCgroupRules": settings.device_rules,
        "SecurityOpt": ["no-new-privileges"] if settings.no_new_privileges else [],
        "StorageOpt": {"size": str(settings.storage_size)} if settings.storage_size else {},
        "ExternalRootfs": settings.external_rootfs,
        "CgroupParent": settings.cgroup_parent,
    }


def image_object(engine: Engine, image: Image) -> dict[str, Any]:
    """Everything about an image; under the key ``image``, as in iSulad."""
    system, architecture = image.platform
    return {
        "image": {
            "id": image.id,
            "repo_tags": image.names,
            "repo_digests": image.digests,
            "top_layer": image.chain_ids[-1].partition(":")[2] if image.chain_ids else "",
            "size": image.size,
            "created": _stamp(image.created_ns),
            "loaded": _stamp(image.loaded_ns),
            "manifest_digest": image.manifest_digest,
            "driver": engine.layers.driver.name,
            "os": system,
            "architecture": architecture,
            "variant": str(image.document.get("variant") or ""),
            "Spec": image.document,
        }
    }
