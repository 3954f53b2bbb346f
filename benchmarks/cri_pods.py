"""The life of a pod with one container, call by call."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.engines import EngineError
from isula_cri import messages

if TYPE_CHECKING:
    from benchmarks.cri_engines import CriEngine

__all__ = ["DOWN", "LISTS", "OPERATIONS", "UP", "Pod"]

OPERATIONS = {
    "RunPodSandbox": "a bridge with an address of its own, and port mappings",
    "CreateContainer": "",
    "StartContainer": "a shell that ends at SIGTERM and starts a sleep; logs to a file",
    "ContainerStatus": "",
    "ExecSync": "true",
    "StopContainer": "with 10 s of grace",
    "RemoveContainer": "",
    "StopPodSandbox": "its container is gone",
    "RemovePodSandbox": "",
}
"""What happens to a pod, in this order, with remarks."""
UP = ("RunPodSandbox", "CreateContainer", "StartContainer")
DOWN = ("StopContainer", "RemoveContainer", "StopPodSandbox", "RemovePodSandbox")
LISTS = ("ListPodSandbox", "ListContainers", "ListContainerStats")
"""What a kubelet asks again and again, once for all pods."""
_COMMAND = ("/bin/sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait")
_GRACE_S = 10
_numbers = itertools.count(1)


@dataclass(slots=True)
class Pod:
    """A pod of an engine; ids are those of its last RunPodSandbox and CreateContainer."""

    engine: CriEngine
    config: Any
    image: str
    id: str = ""
    container: str = ""

    @classmethod
    def new(cls, engine: CriEngine, image: str) -> Pod:
        """A pod that no other is like, as a kubelet would have it."""
        name = f"pod-{next(_numbers)}"
        logs = Path(engine.folder, "logs", name)
        logs.mkdir(parents=True)
        config = messages.PodSandboxConfig(
            metadata={"name": name, "uid": f"uid-{name}", "namespace": "bench"},
            hostname=name,
            log_directory=str(logs),
            linux={
                "cgroup_parent": f"{engine.pods_cgroup}/{name}",
                "security_context": {"namespace_options": {"pid": "CONTAINER"}},
            },
        )
        return cls(engine, config, image)

    def do(self, operation: str) -> float:
        """Makes the call: the seconds it took; EngineError when it fails."""
        match operation:
            case "RunPodSandbox":
                return self._run()
            case "CreateContainer":
                return self._create()
            case "ExecSync":
                return self._exec()
            case "StopContainer":
                return self._container(operation, timeout=_GRACE_S)
        return self._pod(operation) if "Pod" in operation else self._container(operation)

    def _run(self) -> float:
        fields = {"config": self.config, "runtime_handler": self.engine.handler}
        answer, seconds = self.engine.call.timed("RunPodSandbox", **fields)
        self.id = str(answer.pod_sandbox_id)
        return seconds

    def _create(self) -> float:
        config = {
            "metadata": {"name": "bench"},
            "image": {"image": self.image},
            "command": _COMMAND,
            "log_path": "bench.log",
            "linux": {
                "resources": {"cpu_shares": 102, "memory_limit_in_bytes": 64 << 20},
                "security_context": {"namespace_options": {"pid": "CONTAINER"}},
            },
        }
        fields = {"pod_sandbox_id": self.id, "config": config, "sandbox_config": self.config}
        answer, seconds = self.engine.call.timed("CreateContainer", **fields)
        self.container = str(answer.container_id)
        return seconds

    def _exec(self) -> float:
        fields = {"container_id": self.container, "cmd": ["true"], "timeout": 30}
        answer, seconds = self.engine.call.timed("ExecSync", **fields)
        if answer.exit_code != 0:
            raise EngineError(f"ExecSync: true ended with {answer.exit_code}")
        return seconds

    def _container(self, method: str, **fields: Any) -> float:
        return self.engine.call.timed(method, container_id=self.container, **fields)[1]

    def _pod(self, method: str) -> float:
        return self.engine.call.timed(method, pod_sandbox_id=self.id)[1]
