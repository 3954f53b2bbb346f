"""Pods and containers of the engine as the CRI shows them."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

from isula_cri import messages, resources
from isula_edge.container.record import Status
from isula_edge.service import cri_images

if TYPE_CHECKING:
    from isula_edge.container.record import Container
    from isula_edge.pod.record import Pod
    from isula_edge.service.engine import Engine

__all__ = [
    "container_item",
    "container_message",
    "container_metadata",
    "container_state",
    "is_ready",
    "pod_item",
    "pod_message",
    "pod_metadata",
    "verbose_container",
    "verbose_pod",
]

_STATES = messages.enum("ContainerState")
_POD_STATES = messages.enum("PodSandboxState")
_MODES = messages.enum("NamespaceMode")
_SIGNALS = {
    name.removeprefix("SIGNAL_"): number for name, number in messages.enum("Signal").items()
}
_NUMBERED = {str(item.value): item.name for item in signal.Signals}
"""What images may say instead of a name."""


def container_state(container: Container) -> int:
    """A ContainerState."""
    status = container.state.status
    if status in (Status.CREATED, Status.STARTING):
        return _STATES["CONTAINER_CREATED"]
    if status in (Status.RUNNING, Status.PAUSED):
        return _STATES["CONTAINER_RUNNING"]
    return _STATES["CONTAINER_EXITED"]


def is_ready(pod: Pod) -> int:
    """A PodSandboxState."""
    return _POD_STATES["SANDBOX_READY" if pod.ready else "SANDBOX_NOTREADY"]


def pod_metadata(pod: Pod) -> dict[str, Any]:
    """Fields of PodSandboxMetadata."""
    spec = pod.spec
    return {
        "name": spec.name,
        "uid": spec.uid,
        "namespace": spec.namespace,
        "attempt": spec.attempt,
    }


def container_metadata(container: Container) -> dict[str, Any]:
    """Fields of ContainerMetadata."""
    return {"name": container.cri["name"], "attempt": container.cri["attempt"]}


def pod_item(pod: Pod) -> Any:
    """PodSandbox, as lists have it."""
    return messages.PodSandbox(
        id=pod.id,
        metadata=messages.PodSandboxMetadata(**pod_metadata(pod)),
        state=is_ready(pod),
        created_at=pod.created_ns,
        labels=pod.spec.labels,
        annotations=pod.spec.annotations,
        runtime_handler=pod.spec.handler,
    )


def pod_message(pod: Pod) -> Any:
    """PodSandboxStatus."""
    spec = pod.spec
    options = messages.NamespaceOption(
        network=_MODES[spec.modes["network"].upper()],
        pid=_MODES[spec.modes["pid"].upper()],
        ipc=_MODES[spec.modes["ipc"].upper()],
    )
    if spec.uid_maps:
        options.userns_options.mode = _MODES["POD"]
        for listed, maps in (
            (options.userns_options.uids, spec.uid_maps),
            (options.userns_options.gids, spec.gid_maps),
        ):
            for inside, host, size in maps:
                listed.add(container_id=inside, host_id=host, length=size)
    found = messages.PodSandboxStatus(
        id=pod.id,
        metadata=messages.PodSandboxMetadata(**pod_metadata(pod)),
        state=is_ready(pod),
        created_at=pod.created_ns,
        linux=messages.LinuxPodSandboxStatus(namespaces=messages.Namespace(options=options)),
        labels=spec.labels,
        annotations=spec.annotations,
        runtime_handler=spec.handler,
    )
    found.network.SetInParent()
    if pod.ips:
        found.network.ip = pod.ips[0]
        for address in pod.ips[1:]:
            found.network.additional_ips.add(ip=address)
    return found


def container_item(container: Container) -> Any:
    """Container, as lists have it."""
    return messages.Container(
        id=container.id,
        pod_sandbox_id=container.pod,
        metadata=messages.ContainerMetadata(**container_metadata(container)),
        image=_image(container),
        image_ref=cri_images.image_id(container.image_id),
        image_id=cri_images.image_id(container.image_id),
        state=container_state(container),
        created_at=container.created_ns,
        labels=container.settings.labels,
        annotations=container.cri["annotations"],
    )


def _image(container: Container) -> Any:
    spec = messages.ImageSpec.FromString(container.cri["image"])
    spec.user_specified_image = spec.user_specified_image or spec.image
    return spec


def container_message(engine: Engine, container: Container) -> Any:
    """ContainerStatus."""
    state, settings = container.state, container.settings
    reason, message = _reason(container)
    exited = state.status is Status.EXITED
    started = state.started_ns or (container.created_ns if exited else 0)
    found = messages.ContainerStatus(
        id=container.id,
        metadata=messages.ContainerMetadata(**container_metadata(container)),
        state=container_state(container),
        created_at=container.created_ns,
        started_at=started,
        finished_at=state.finished_ns if exited else 0,
        exit_code=state.exit_code if exited else 0,
        image=_image(container),
        image_ref=cri_images.image_id(container.image_id),
        image_id=cri_images.image_id(container.image_id),
        reason=reason,
        message=message,
        labels=settings.labels,
        annotations=container.cri["annotations"],
        mounts=[messages.Mount.FromString(item) for item in container.cri["mounts"]],
        log_path=settings.log_path,
        resources=messages.ContainerResources(linux=resources.resources(settings)),
        stop_signal=_stop_signal(container),
    )
    user = _user(engine, container)
    if user is not None:
        found.user.linux.CopyFrom(user)
    return found


def _reason(container: Container) -> tuple[str, str]:
    """A word for why it is as it is, and a text for people."""
    state = container.state
    if state.status is not Status.EXITED:
        return "", ""
    if not state.started_ns or state.finished_ns < state.started_ns:
        return "ContainerCannotRun", state.error
    if state.oom_killed:
        return "OOMKilled", state.error
    return "Error" if state.exit_code else "Completed", state.error


def _stop_signal(container: Container) -> int:
    word = container.settings.stop_signal or container.image_config.get("StopSignal") or "SIGTERM"
    word = _NUMBERED.get(str(word), str(word))
    name = word.upper().replace("RTMIN+", "RTMINPLUS").replace("RTMAX-", "RTMAXMINUS")
    name = name if name.startswith("SIG") else f"SIG{name}"
    return _SIGNALS.get(name, 0)


def _user(engine: Engine, container: Container) -> Any:
    """LinuxContainerUser; None before the first start."""
    if not container.state.started_ns:
        return None
    numbers = container.user_ids
    if numbers is None:
        described = engine.bundles.load(container).spec.get("process", {}).get("user")
        if not described:
            return None
        groups = tuple(sorted(described.get("additionalGids") or ()))
        numbers = container.user_ids = (int(described["uid"]), int(described["gid"]), groups)
    uid, gid, groups = numbers
    return messages.LinuxContainerUser(uid=uid, gid=gid, supplemental_groups=groups)


def verbose_pod(engine: Engine, pod: Pod) -> dict[str, str]:
    """``info`` of a verbose PodSandboxStatus: JSON for people and scripts."""
    return _info(
        {
            "pid": pod.pause.pid if pod.pause else 0,
            "processStatus": "running" if pod.ready else "deleted",
            "runtimeHandler": pod.spec.handler,
            "runtimeType": pod.spec.runtime,
            "namespaces": pod.namespaces,
            "netNamespaceClosed": not pod.network and pod.namespaces.get("network") is not None,
            "cgroupParent": pod.cgroup_parent,
            "sysctls": pod.spec.sysctls,
            # where scripts look for the network namespace
            "runtimeSpec": {
                "hostname": engine.pods.hostname(pod),
                "annotations": pod.spec.annotations,
                "linux": {
                    "cgroupsPath": pod.cgroup_parent,
                    "namespaces": [
                        {"type": kind, "path": path}
                        for kind, path in pod.namespaces.items()
                        if path
                    ],
                },
            },
            "resources": pod.spec.resources,
            "directory": engine.pods.folder(pod),
        }
    )


def verbose_container(engine: Engine, container: Container) -> dict[str, str]:
    """``info`` of a verbose ContainerStatus; ``pid`` is what most scripts are after."""
    return _info(
        {
            "sandboxID": container.pod,
            "pid": container.state.pid,
            "removing": container.removing,
            "runtimeType": container.runtime,
            "snapshotter": engine.layers.driver.name,
            "directory": engine.table.dir(container),
            "runtimeSpec": engine.bundles.load(container).spec,
        }
    )


def _info(value: dict[str, Any]) -> dict[str, str]:
    text = json.dumps(value)
    return {"info": os.fsencode(text).decode("utf-8", "replace")}
