"""Pods and containers as a kubelet makes them, and an engine that serves it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isula_cri import messages
from tests.cri.client import Cri
from tests.cri.images import Images
from tests.fakes.registry import FakeRegistry
from tests.rig import Engine, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "EXTERNAL",
    "Container",
    "Done",
    "Machine",
    "Node",
    "Pod",
    "conflist",
    "log_records",
    "machine",
]

EXTERNAL = os.environ.get("ISULA_CRI_ENDPOINT", "")
"""Another engine to run the tests against, in the network namespace of the tests."""
CREATED, RUNNING, EXITED, _ = messages.enum("ContainerState").values()
READY, NOT_READY = messages.enum("PodSandboxState").values()
_HANDLERS = {"lxc": "", "runc": "runc"}
_SUBNET = "10.89.0.0/16"
_numbers = itertools.count(1)
_LOG_LINE = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,9}(?:Z|[+-]\d\d:\d\d)) "
    r"(?P<stream>stdout|stderr) (?P<tag>[FP]) (?P<text>.*)"
)


@dataclass(frozen=True, slots=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str


def log_records(path: Path) -> list[tuple[str, str, str]]:
    """Stream, tag and text of every record in a log, which must be well formed."""
    found = []
    for line in path.read_text().splitlines():
        parts = _LOG_LINE.fullmatch(line)
        assert parts, f"not a record of a CRI log: {line!r}"
        found.append((parts["stream"], parts["tag"], parts["text"]))
    return found


class Container:
    """A container of a pod."""

    def __init__(self, pod: Pod, config: Any, container_id: str) -> None:
        self.pod, self.config, self.id = pod, config, container_id
        self._call = pod.node.call

    @property
    def log(self) -> Path:
        """The log file."""
        return Path(str(self.pod.config.log_directory), str(self.config.log_path))

    def log_lines(self) -> list[tuple[str, str, str]]:
        """What :func:`log_records` gives of the log."""
        return log_records(self.log)

    def printed(self, stream: str = "stdout") -> list[str]:
        """Lines of one stream in the log, parts put together; the last record ends a line."""
        records = [(tag, text) for name, tag, text in self.log_lines() if name == stream]
        assert not records or records[-1][0] == "F", records
        joined = "".join(text + ("\n" if tag == "F" else "") for tag, text in records)
        return joined.splitlines()

    def start(self) -> Container:
        """Starts it."""
        self._call("StartContainer", container_id=self.id)
        return self

    def stop(self, timeout: int = 0) -> None:
        """Stops it; kills after ``timeout`` seconds."""
        self._call("StopContainer", container_id=self.id, timeout=timeout)

    def remove(self) -> None:
        """Removes it."""
        self._call("RemoveContainer", container_id=self.id)

    def status(self) -> Any:
        """Its ContainerStatus."""
        return self._call("ContainerStatus", container_id=self.id).status

    def wait(self) -> Any:
        """Its status once it has exited."""
        until(lambda: self.status().state == EXITED, f"{self.id} exiting")
        return self.status()

    def exec(self, *command: str, timeout: int = 30) -> Done:
        """What ExecSync of ``command`` gives."""
        done = self._call("ExecSync", container_id=self.id, cmd=command, timeout=timeout)
        return Done(done.exit_code, done.stdout.decode(), done.stderr.decode())

    def output(self, *command: str) -> str:
        """Standard output, stripped, of a command that must succeed."""
        done = self.exec(*command)
        assert done.code == 0, done
        return done.out.strip()

    def listed(self) -> list[Any]:
        """What ListContainers has of this id."""
        found = self._call("ListContainers", filter={"id": self.id})
        return list(found.containers)


class Pod:
    """A pod sandbox."""

    def __init__(self, node: Node, config: Any, pod_id: str) -> None:
        self.node, self.config, self.id = node, config, pod_id

    def create(self, *command: str, **fields: Any) -> Container:
        """A container with a pid namespace of its own, unless ``fields`` say otherwise."""
        config = self.node.container_config(*command, **fields)
        made = self.node.call(
            "CreateContainer", pod_sandbox_id=self.id, config=config, sandbox_config=self.config
        )
        return Container(self, config, made.container_id)

    def run(self, *command: str, **fields: Any) -> Container:
        """The same, started; without a command it sleeps."""
        return self.create(*(command or ("sleep", "1000")), **fields).start()

    def output(self, script: str, **fields: Any) -> list[str]:
        """Lines that a container with this shell script printed before it ended well."""
        container = self.run("sh", "-c", script, **fields)
        status = container.wait()
        lines = container.printed()
        assert status.exit_code == 0, (status.exit_code, lines)
        container.remove()
        return lines

    def status(self) -> Any:
        """Its PodSandboxStatus."""
        return self.node.call("PodSandboxStatus", pod_sandbox_id=self.id).status

    def stop(self) -> None:
        """Stops it."""
        self.node.call("StopPodSandbox", pod_sandbox_id=self.id)

    def remove(self) -> None:
        """Removes it."""
        self.node.call("RemovePodSandbox", pod_sandbox_id=self.id)

    def listed(self) -> list[Any]:
        """What ListPodSandbox has of this id."""
        return list(self.node.call("ListPodSandbox", filter={"id": self.id}).items)


class Node:
    """A CRI endpoint and one of its runtime handlers; remembers the pods it made."""

    def __init__(self, machine: Machine, handler: str = "", package: str = "runtime.v1") -> None:
        self.machine, self.handler = machine, handler
        self.call = Cri(machine.endpoint, package)
        self.image = machine.images.busybox
        self._pods: list[str] = []

    def pod_config(self, **fields: Any) -> Any:
        """A PodSandboxConfig whose name and uid no other pod has."""
        name = fields.pop("name", f"pod-{os.getpid()}-{next(_numbers)}")
        logs = self.machine.folder / "logs" / name
        logs.mkdir(parents=True, exist_ok=True)
        values = {
            "metadata": {"name": name, "uid": f"uid-{name}", "namespace": "tests"},
            "log_directory": str(logs),
            "linux": {},
        }
        return messages.PodSandboxConfig(**{**values, **fields})

    def container_config(self, *command: str, **fields: Any) -> Any:
        """A ContainerConfig; ``security`` and ``resources`` are those of its Linux part."""
        name = fields.pop("name", f"c{next(_numbers)}")
        security = {"namespace_options": {"pid": "CONTAINER"}, **fields.pop("security", {})}
        values = {
            "metadata": {"name": name},
            "image": {"image": fields.pop("image", self.image)},
            "command": command,
            "log_path": f"{name}.log",
            "linux": {"security_context": security, "resources": fields.pop("resources", {})},
        }
        return messages.ContainerConfig(**{**values, **fields})

    def pod(self, **fields: Any) -> Pod:
        """A pod that runs."""
        return self.run_pod(self.pod_config(**fields))

    def run_pod(self, config: Any) -> Pod:
        """A pod of this configuration."""
        made = self.call("RunPodSandbox", config=config, runtime_handler=self.handler)
        self._pods.append(made.pod_sandbox_id)
        return Pod(self, config, made.pod_sandbox_id)

    def pull(self, image: str) -> str:
        """Pulls an image: the reference that is answered."""
        return str(self.call("PullImage", image={"image": image}).image_ref)

    def image_status(self, image: str) -> Any:
        """The Image; None when it is not there."""
        found = self.call("ImageStatus", image={"image": image})
        return found.image if found.HasField("image") else None

    def image_list(self, image: str = "") -> list[Any]:
        """Images that a filter leaves."""
        return list(self.call("ListImages", filter={"image": {"image": image}}).images)

    def remove_image(self, image: str) -> None:
        """Removes an image."""
        self.call("RemoveImage", image={"image": image})

    def forget(self) -> None:
        """The pods made so far are somebody else's."""
        self._pods.clear()

    def clean(self) -> None:
        """Removes the pods made so far."""
        while self._pods:
            self.call("RemovePodSandbox", pod_sandbox_id=self._pods.pop())

    def close(self) -> None:
        """Removes the pods and ends the connection."""
        try:
            self.clean()
        finally:
            self.call.close()


@dataclass
class Machine:
    """An endpoint, the registry beside it, and a folder for logs and volumes."""

    endpoint: str
    images: Images
    folder: Path
    engine: Engine | None = None

    @property
    def own(self) -> Engine:
        """The engine under test, where it is this one."""
        assert self.engine is not None
        return self.engine

    def inside(self, make: Callable[[], Any]) -> Any:
        """What ``make`` returns in the engine's network namespace."""
        return make() if self.engine is None else self.engine.network.make(make)

    def node(self, runtime: str = "lxc", package: str = "runtime.v1") -> Node:
        """A client for pods of this runtime."""
        return Node(self, _HANDLERS[runtime], package)


def conflist(folder: Path) -> dict[str, Any]:
    """A bridge with port mappings whose addresses are kept below ``folder``."""
    ipam = {
        "type": "host-local",
        "dataDir": f"{folder}/ipam",
        "ranges": [[{"subnet": _SUBNET}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True, "ipam": ipam}
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {
        "cniVersion": "0.4.0",
        "name": "tests",
        "plugins": [{**bridge, "hairpinMode": True}, portmap],
    }


def configuration(folder: Path) -> dict[str, Any]:
    """A daemon.json that serves the CRI on a socket in ``folder``."""
    (folder / "net.d").mkdir(parents=True, exist_ok=True)
    (folder / "net.d/10-tests.conflist").write_text(json.dumps(conflist(folder)))
    return {
        "cri-socket": f"unix://{folder}/cri.sock",
        "enable-cri-v1": True,
        "network-plugin": "cni",
        "cni-conf-dir": f"{folder}/net.d",
        "cni-bin-dir": "/usr/lib/cni",
        "cni-cache-dir": f"{folder}/cni",
        "cri-runtimes": {"runc": "runc"},
        "enable-pod-events": True,
    }


@contextlib.contextmanager
def machine(
    folder: Path, images: Path, make: Callable[[Path], Engine] = Engine, **config: Any
) -> Iterator[Machine]:
    """An engine that serves the CRI, with a registry, and busybox pulled already."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        if EXTERNAL:
            engine, registry = None, FakeRegistry()
        else:
            engine = make(folder)
            stack.callback(engine.close)
            registry = engine.network.make(FakeRegistry)
        stack.enter_context(registry)
        if engine is not None:
            mirrors = {"registry-host-mirrors": {"docker.io": [registry.url]}}
            engine.configure({**configuration(folder), **mirrors, **config})
            engine.start()
        endpoint = EXTERNAL or f"unix://{folder}/cri.sock"
        found = Machine(endpoint, Images(registry, images), folder, engine)
        node = found.node()
        stack.callback(node.close)
        node.pull(found.images.busybox)
        yield found
