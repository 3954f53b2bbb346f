"""The sandboxes of pods whose runtime gives all their containers one virtual machine.

Other pods have none: their namespaces are pinned, and no process belongs to the pod itself.
A sandbox is a container of the runtime's with a program of a few instructions; its bundle is
on tmpfs, in ``<state>/pods/<id>/sandbox/<id>``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.cgroup import container_dir
from isula_edge.pod import pause
from isula_edge.runtime.base import Bundle
from isula_edge.sys import atomic
from isula_edge.types import ContainerId
from isula_edge.version import OCI_RUNTIME_SPEC

if TYPE_CHECKING:
    from isula_edge.pod.record import Pod
    from isula_edge.runtime.base import Guest, Runtime
    from isula_edge.service.engine import Engine

__all__ = ["Sandboxes"]

_PROGRAM = "/pause"
_PREFIX = "io.kubernetes.cri"


class Sandboxes:
    """The sandboxes of one engine's pods."""

    def __init__(self, engine: Engine, folder: str) -> None:
        """``folder`` is where the pods are on tmpfs."""
        self._engine = engine
        self._folder = folder

    async def make(self, pod: Pod) -> None:
        """Starts the pod's sandbox, where its runtime needs one; what the runtime says."""
        found = self._runtime(pod)
        if found is None:
            return
        runtime, guest = found
        bundle = self._bundle(pod)
        await asyncio.to_thread(_write, bundle)
        try:
            await guest.create_sandbox(bundle)
        except BaseException:
            with contextlib.suppress(errors.EngineError, OSError):
                await runtime.delete(bundle)
            raise

    async def end(self, pod: Pod) -> None:
        """Ends it, when its containers have ended; not there is fine."""
        found = self._runtime(pod)
        if found is None:
            return
        bundle = self._bundle(pod)
        if os.path.isdir(bundle.run_dir):
            await found[0].delete(bundle)

    async def alive(self, pod: Pod) -> bool:
        """Whether it runs; True for a pod that needs none."""
        found = self._runtime(pod)
        if found is None:
            return True
        try:
            return await found[1].alive(self._bundle(pod))
        except (errors.EngineError, OSError):
            return False

    def gone(self, pod: Pod) -> asyncio.Future[None] | None:
        """A future that ends with it; None for a pod that needs none."""
        found = self._runtime(pod)
        return found[1].gone(self._bundle(pod)) if found is not None else None

    def _runtime(self, pod: Pod) -> tuple[Runtime, Guest] | None:
        runtime = self._engine.runtimes.get(pod.spec.runtime)
        guest = runtime.guest if runtime is not None else None
        if runtime is None or guest is None or not guest.vm:
            return None
        return runtime, guest

    def _bundle(self, pod: Pod) -> Bundle:
        run = f"{self._folder}/{pod.id}/sandbox/{pod.id}"
        config = self._engine.config
        parent = pod.cgroup_parent or config.cgroup_parent
        group = self._engine.cgroups.group(
            container_dir(parent, f"pod-{pod.id}", systemd=config.systemd_cgroup)
        )
        spec = self._document(pod, f"{run}/root", group)
        return Bundle(ContainerId(pod.id), pod.spec.key, run, run, f"{run}/log.txt", spec)

    def _document(self, pod: Pod, root: str, group: str) -> dict[str, Any]:
        kinds = {"mount": "", "pid": "", "ipc": "", "uts": ""}
        network = pod.namespaces.get("network")
        if network:
            kinds["network"] = network
        return {
            "ociVersion": OCI_RUNTIME_SPEC,
            "process": {
                "user": {"uid": 65534, "gid": 65534},
                "args": [_PROGRAM],
                "env": [],
                "cwd": "/",
                "noNewPrivileges": True,
            },
            "root": {"path": root, "readonly": True},
            "hostname": self._engine.pods.hostname(pod),
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "annotations": {
                **pod.spec.annotations,
                f"{_PREFIX}.container-type": "sandbox",
                f"{_PREFIX}.sandbox-id": pod.id,
                f"{_PREFIX}.sandbox-name": pod.spec.name,
                f"{_PREFIX}.sandbox-namespace": pod.spec.namespace,
                f"{_PREFIX}.sandbox-uid": pod.spec.uid,
            },
            "linux": {
                "namespaces": [
                    {"type": kind, "path": path} if path else {"type": kind}
                    for kind, path in kinds.items()
                ],
                "cgroupsPath": f"/{group}",
                "sysctl": dict(pod.spec.sysctls),
            },
        }


def _write(bundle: Bundle) -> None:
    """Makes the sandbox's root and ``config.json``; blocks."""
    root = str(bundle.spec["root"]["path"])
    os.makedirs(f"{root}/proc")
    atomic.write(f"{root}{_PROGRAM}", pause.build_init(), durable=False)
    os.chmod(f"{root}{_PROGRAM}", 0o755)  # noqa: S103  # not root runs it
    text = json.dumps(bundle.spec).encode("utf-8", "surrogateescape")
    atomic.write(f"{bundle.run_dir}/config.json", text, durable=False)
