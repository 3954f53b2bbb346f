"""ContainerConfig: what a kubelet says of a container, as settings of the engine."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from isula_cri import messages, resources, security
from isula_cri.pod_config import MODES, check_lists
from isula_edge import errors
from isula_edge.container.logs import check_log_path
from isula_edge.image.run_config import check_run_config
from isula_edge.oci import cdi
from isula_edge.oci.mounts import Mount, clean
from isula_edge.oci.options import Settings
from isula_edge.oci.resources import changed
from isula_edge.oci.spec import process_args
from isula_edge.service import cri_images

if TYPE_CHECKING:
    from isula_edge.image.store import Image
    from isula_edge.pod.record import Pod
    from isula_edge.service.engine import Engine

__all__ = ["Creation", "container_name", "creation"]

_PROPAGATION = {"PRIVATE": "rprivate", "HOST_TO_CONTAINER": "rslave", "BIDIRECTIONAL": "rshared"}
_PROPAGATIONS = {
    number: _PROPAGATION[name.removeprefix("PROPAGATION_")]
    for name, number in messages.enum("MountPropagation").items()
}
_SIGNALS = {
    number: name.removeprefix("SIGNAL_") for name, number in messages.enum("Signal").items()
}
_FLAGS = ("noexec", "nosuid", "nodev")
_UMASKS = {"normal": 0o022, "secure": 0o027}
_PIDS = re.compile(r"-1|[0-9]{1,18}")


@dataclass(slots=True)
class Creation:
    """A container that is to be made.  ``cri`` is what answers need beyond the settings."""

    name: str
    settings: Settings
    image: Image
    args: list[str]
    cri: dict[str, Any] = field(default_factory=dict)
    id: str = ""


def container_name(pod: Pod, metadata: Any) -> str:
    """iSulad's name of a container of a pod."""
    spec = pod.spec
    return (
        f"k8s_{metadata.name}_{spec.name}_{spec.namespace}_{spec.uid}_{metadata.attempt}"
    )


def creation(engine: Engine, pod: Pod, config: Any) -> Creation:
    """The container that ``config`` describes for ``pod``.

    Raises InvalidArgument naming what is wrong, NotFound for an image that is not here.
    """
    check_lists(config)
    if not config.metadata.name:
        raise errors.InvalidArgument("the metadata of a container needs a name")
    image = cri_images.resolve_image(engine, config.image.image)
    settings = Settings(
        hostname=engine.pods.hostname(pod),
        env=[_variable(item) for item in config.envs],
        labels=dict(config.labels),
        workdir=_workdir(config.working_dir),
        tty=config.tty,
        interactive=config.stdin,
        stdin_once=config.stdin_once,
        stop_signal=_signal(config.stop_signal),
        cgroup_parent=pod.cgroup_parent,
        log_max_size=0,
        files=engine.pods.files(pod),
        shm_path=engine.pods.shm(pod),
        no_swap=True,
    )
    settings.annotations = _annotations(pod, config)
    settings.log_path = _log_path(pod, config)
    _mounts(engine, settings, config)
    settings.devices = [_device(item) for item in config.devices]
    linux = config.linux
    security.apply(settings, linux.security_context, pod)
    _namespaces(engine, settings, linux.security_context.namespace_options, pod)
    _annotated(settings, dict(config.annotations))
    settings = _limits(engine, settings, linux)
    if engine.config.cri.cdi:
        _devices(engine, settings, config)
    check_run_config(image.run_config, config.image.image)
    command = list(config.command)
    args = process_args(image.run_config, None, list(config.args))
    if command:
        args = [*command, *config.args]
    return Creation(
        container_name(pod, config.metadata),
        settings,
        image,
        args,
        {
            "name": config.metadata.name,
            "attempt": config.metadata.attempt,
            "image": config.image.SerializeToString(),
            "annotations": dict(config.annotations),
            "mounts": [item.SerializeToString() for item in config.mounts],
            "handler": pod.spec.handler,
        },
    )


def _variable(item: Any) -> str:
    """``KEY=VALUE``; a value is any bytes but NUL."""
    text = f"{item.key}={os.fsdecode(item.value)}"
    if not item.key or "=" in item.key or "\0" in text:
        raise errors.InvalidArgument(f"envs: {item.key!r:.80} cannot be a variable", kind="env")
    return text


def _workdir(path: str) -> str:
    if path and not path.startswith("/"):
        raise errors.InvalidArgument(f"working_dir {path} is no absolute path", ref=path)
    return clean(path) if path else ""


def _device(item: Any) -> tuple[str, str, str]:
    """Host path, path inside, and what may be done with it."""
    host, inside = item.host_path, item.container_path or item.host_path
    access = item.permissions or "rwm"
    if not host.startswith("/") or clean(inside) == "/" or not set(access) <= set("rwm"):
        raise errors.InvalidArgument(
            f"devices: {host}:{inside}:{access} is no device", kind="device", ref=host
        )
    return clean(host), clean(inside), access


def _signal(number: int) -> str:
    if not number:
        return ""
    name = _SIGNALS.get(number, "")
    if not name:
        raise errors.InvalidArgument(f"unknown stop signal {number}", kind="signal")
    return name.replace("RTMINPLUS", "RTMIN+").replace("RTMAXMINUS", "RTMAX-")


def _annotations(pod: Pod, config: Any) -> dict[str, str]:
    """What the runtime is told: the pod's, the container's, and whose container it is."""
    prefix, spec = "io.kubernetes.cri", pod.spec
    return {
        **spec.annotations,
        **config.annotations,
        f"{prefix}.container-type": "container",
        f"{prefix}.sandbox-id": pod.id,
        f"{prefix}.sandbox-name": spec.name,
        f"{prefix}.sandbox-namespace": spec.namespace,
        f"{prefix}.sandbox-uid": spec.uid,
        f"{prefix}.container-name": config.metadata.name,
        f"{prefix}.container-attempt": str(config.metadata.attempt),
        f"{prefix}.image-name": config.image.image,
    }


def _log_path(pod: Pod, config: Any) -> str:
    """The log file; '' when none is asked for (case A31d)."""
    folder = pod.spec.log_directory
    if not config.log_path:
        if folder:
            raise errors.InvalidArgument(
                f"log_path is empty, but the pod has the log directory {folder}",
                kind="log",
                ref=folder,
                hint="give the container a log_path",
            )
        return ""
    path = f"{folder}/{config.log_path}" if folder else config.log_path
    if path.startswith("/"):
        path = clean(path)
    check_log_path(path)
    return path


def _mounts(engine: Engine, settings: Settings, config: Any) -> None:
    found = {}
    for item in config.mounts:
        mount = _mount(engine, item)
        # the last of several on one place is what is seen
        found[mount.target] = mount
    settings.mounts = sorted(found.values(), key=lambda mount: mount.target)


def _mount(engine: Engine, item: Any) -> Mount:
    if not item.container_path:
        raise errors.InvalidArgument(f"mount of {item.host_path} has no container_path")
    target = clean(item.container_path)
    if target == "/":
        raise errors.InvalidArgument("a mount cannot replace the root of a container")
    propagation = messages.word(_PROPAGATIONS, item.propagation, f"propagation of {target}")
    maps = [
        tuple((entry.container_id, entry.host_id, entry.length) for entry in entries)
        for entries in (item.uidMappings, item.gidMappings)
    ]
    if item.recursive_read_only:
        if not item.readonly:
            raise errors.InvalidArgument(f"recursive_read_only of {target} needs readonly")
        if propagation != "rprivate":
            raise errors.InvalidArgument(
                f"recursive_read_only of {target} needs PROPAGATION_PRIVATE"
            )
    for flag in item.mount_options:
        if flag not in _FLAGS:
            raise errors.InvalidArgument(
                f"mount option {flag} is not supported", kind="mount", ref=flag
            )
    if item.HasField("image") and item.image.image:
        if not item.readonly:
            raise errors.InvalidArgument(f"image mount {target} must be readonly")
        image = cri_images.resolve_image(engine, item.image.image)
        item.image.image_ref = cri_images.image_id(image)
        return Mount(
            "image", "", target, True, propagation, tuple(item.mount_options),
            image=image.id, layers=tuple(image.chain_ids), sub_path=item.image_sub_path,
            uid_maps=maps[0], gid_maps=maps[1],
        )  # fmt: skip
    if not item.host_path.startswith("/"):
        raise errors.InvalidArgument(
            f"mount source {item.host_path or 'of ' + target} is no absolute path", kind="mount"
        )
    return Mount(
        "bind",
        clean(item.host_path),
        target,
        item.readonly,
        propagation,
        tuple(item.mount_options),
        item.recursive_read_only,
        uid_maps=maps[0],
        gid_maps=maps[1],
    )


def _namespaces(engine: Engine, settings: Settings, options: Any, pod: Pod) -> None:
    join: dict[str, str | None] = {
        kind: pod.namespaces[kind] for kind in ("network", "ipc", "uts")
    }
    if pod.namespaces.get("user"):
        join["user"] = pod.namespaces["user"]
        settings.uid_maps, settings.gid_maps = list(pod.spec.uid_maps), list(pod.spec.gid_maps)
    mode = messages.word(MODES, options.pid, "namespace_options.pid")
    if mode == "container":
        join["pid"] = ""
    elif mode == "node":
        join["pid"] = None
    elif mode == "target":
        join["pid"] = _target(engine, options.target_id, pod)
    elif "pid" in pod.namespaces:
        join["pid"] = pod.namespaces["pid"]
    else:
        raise errors.InvalidArgument(
            "the containers of this pod have process id namespaces of their own",
            hint="make the pod with the pid mode POD",
        )
    if settings.privileged or not os.path.exists("/proc/self/ns/cgroup"):
        join["cgroup"] = None
    settings.join = join


def _target(engine: Engine, ref: str, pod: Pod) -> str:
    target = engine.table.get(ref)
    if target.pod != pod.id:
        raise errors.InvalidArgument(
            f"container {ref} is in another pod", kind="container", ref=ref
        )
    if not target.running:
        raise errors.FailedPrecondition(
            f"container {ref} does not run, its process id namespace cannot be joined",
            kind="container",
            ref=ref,
        )
    return f"/proc/{target.state.pid}/ns/pid"


def _annotated(settings: Settings, annotations: dict[str, str]) -> None:
    """What iSulad's users ask for by annotations."""
    limit = annotations.get("cgroup.pids.max")
    if limit is not None:
        if not _PIDS.fullmatch(limit):
            raise errors.InvalidArgument(f"cgroup.pids.max must be a number, it is {limit:.40}")
        settings.pids_limit = int(limit)
    word = annotations.get("native.umask")
    if word is not None:
        if word not in _UMASKS:
            raise errors.InvalidArgument(f"native.umask option {word} not supported")
        settings.umask = _UMASKS[word]


def _limits(engine: Engine, settings: Settings, linux: Any) -> Settings:
    if linux.HasField("resources"):
        # 0 too: the engine's own value would be inherited
        score = linux.resources.oom_score_adj
        if not -1000 <= score <= 1000:
            raise errors.InvalidArgument(
                f"oom_score_adj must be from -1000 to 1000, it is {score}", ref="oom_score_adj"
            )
        settings.oom_score_adj = score
    sets = engine.host_limits.cpusets()
    new = changed(
        settings, resources.change(linux.resources), cpuset=sets["cpuset"], mems=sets["mems"]
    )
    engine.host_limits.check(new)
    return new


def _devices(engine: Engine, settings: Settings, config: Any) -> None:
    """Devices of the Container Device Interface: the field first, then annotations."""
    names = [item.name for item in config.CDI_devices]
    names += cdi.annotated(dict(config.annotations))
    names = list(dict.fromkeys(names))
    if names:
        cdi.apply(settings, names, engine.config.cri.cdi_dirs)
