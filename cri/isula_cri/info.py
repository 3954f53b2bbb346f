"""RPCs about the engine itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from isula_cri import messages
from isula_edge.version import VERSION

if TYPE_CHECKING:
    from isula_cri.node import Node

__all__ = ["InfoCalls"]

_KUBELET_API = "0.1.0"
_DRIVERS = messages.enum("CgroupDriver")


class InfoCalls:
    """Version, Status, RuntimeConfig and UpdateRuntimeConfig."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._engine = node.engine

    async def Version(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Who answers; the versions are words that kubelets parse.  The API's is the server's."""
        del request, context
        return messages.VersionResponse(
            version=_KUBELET_API,
            runtime_name="isula-edge",
            runtime_version=VERSION,
        )

    async def Status(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Whether pods can be made, and what runtime handlers can do; verbose with settings."""
        del context
        reason = await self._engine.pods.network.status()
        network = messages.RuntimeCondition(type="NetworkReady", status=not reason)
        if reason:
            network.reason = "NetworkPluginNotReady"
            network.message = f"isula-edge: network plugin is not ready: {reason}"
        features = await self._node.features()
        answer = messages.StatusResponse(
            status=messages.RuntimeStatus(
                conditions=[
                    messages.RuntimeCondition(type="RuntimeReady", status=True),
                    network,
                    self._kernel(),
                ]
            ),
            runtime_handlers=[
                messages.RuntimeHandler(
                    name=handler,
                    features=messages.RuntimeHandlerFeatures(
                        recursive_read_only_mounts=features.recursive_read_only,
                        user_namespaces=self._node.user_namespaces(features, runtime),
                    ),
                )
                for handler, runtime in self._handlers().items()
            ],
            features=messages.RuntimeFeatures(
                supplemental_groups_policy=True, mount_options=features.recursive_read_only
            ),
        )
        if request.verbose:
            answer.info.update(self._details())
        return answer

    def _kernel(self) -> Any:
        """Whether the kernel has all that the engine wants; kubelets show other conditions."""
        lacking = [feature.name for feature in self._engine.degraded()]
        return messages.RuntimeCondition(
            type="KernelComplete",
            status=not lacking,
            reason="KernelFeaturesMissing" if lacking else "",
            message=", ".join(lacking),
        )

    def _handlers(self) -> dict[str, str]:
        """Runtimes by handler; '' is the default."""
        engine = self._engine
        found = {"": engine.default_runtime}
        found.update({name: name for name in engine.runtimes})
        for handler, runtime in engine.config.cri.handlers.items():
            if runtime in engine.runtimes:
                found[handler] = runtime
        return found

    def _details(self) -> dict[str, str]:
        engine, cri = self._engine, self._engine.config.cri
        networks = engine.pods.network.networks()
        config = {
            "graph": engine.config.graph,
            "state": engine.config.state,
            "storageDriver": engine.layers.driver.name,
            "defaultRuntime": engine.default_runtime,
            "runtimes": sorted(engine.runtimes),
            "cgroupDriver": "systemd" if engine.config.systemd_cgroup else "cgroupfs",
            "cniConfDir": cri.cni_conf_dir,
            "cniBinDirs": list(cri.cni_bin_dirs),
            "warnings": engine.warnings,
        }
        listed = [{"name": item.name, "file": item.path} for item in networks]
        return {"config": json.dumps(config), "cniconfig": json.dumps(listed)}

    async def RuntimeConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The cgroup driver, which the kubelet takes over."""
        del request, context
        name = "SYSTEMD" if self._engine.config.systemd_cgroup else "CGROUPFS"
        return messages.RuntimeConfigResponse(
            linux=messages.LinuxRuntimeConfiguration(cgroup_driver=_DRIVERS[name])
        )

    async def UpdateRuntimeConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The addresses of this node's pods; an empty one changes nothing."""
        del context
        cidr = request.runtime_config.network_config.pod_cidr
        if cidr:
            self._engine.pods.network.set_pod_cidr([cidr])
        return messages.UpdateRuntimeConfigResponse()
