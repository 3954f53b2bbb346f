"""Engines that serve the Container Runtime Interface, each in a network namespace of its own."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import subprocess
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.accounting import CpuGroup
from benchmarks.cri_client import Client
from benchmarks.engines import Engine, EngineError, find
from isula_edge.profile.code import find as find_code

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["ENGINES", "PAUSE", "CriEngine", "make", "pause_archive"]

PAUSE = "benchmarks/pause:1"
"""The image of pods' own containers, where an engine has such."""
_PLUGINS = "/usr/lib/cni"
_CONTAINERD = """\
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = [{disabled}]
[grpc]
  address = "{folder}/cri.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/{pause}"
  restrict_oom_score_adj = true
  disable_tcp_service = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{folder}/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""
_DISABLED = ("aufs", "btrfs", "devmapper", "zfs")


@dataclass(slots=True)
class CriEngine(Engine):
    """An engine, its runtime handler, and the connection of the one kubelet that it has."""

    handler: str = ""
    load: tuple[str, ...] = ("load", "-i")
    pods_cgroup: str = ""
    cpu: CpuGroup | None = field(default=None)
    connection: Client | None = field(default=None)

    @property
    def call(self) -> Client:
        """The connection of the started engine."""
        assert self.connection is not None
        return self.connection

    def start(self) -> None:
        """Starts the engine and waits until its network is ready."""
        # a call of the class by its name: super() is not to be had in a class with slots
        Engine.start(self)
        self.connection = Client(f"{self.folder}/cri.sock", self.time_out_s)
        status = self.call("Status").status
        missing = [
            str(found.message)
            for found in status.conditions
            if found.type in ("RuntimeReady", "NetworkReady") and not found.status
        ]
        if missing:
            raise EngineError(f"{self.name} is not ready: {'; '.join(missing)}")

    def remove_all(self) -> None:
        """Removes every pod with what is in it."""
        if self.pid is None or self.connection is None:
            return
        with contextlib.suppress(EngineError):
            for pod in self.call("ListPodSandbox").items:
                self.call("StopPodSandbox", pod_sandbox_id=pod.id)
                self.call("RemovePodSandbox", pod_sandbox_id=pod.id)

    def stop(self) -> None:
        """Ends connection and engine."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        Engine.stop(self)


def _conflist(folder: Path) -> dict[str, Any]:
    """A bridge with port mappings, whose addresses are kept below ``folder``."""
    ipam = {
        "type": "host-local",
        "dataDir": f"{folder}/ipam",
        "ranges": [[{"subnet": "10.88.0.0/16"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True, "ipam": ipam}
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "bench", "plugins": [bridge, portmap]}


def _isula(name: str, folder: Path, programs: Mapping[str, str], cgroup: str) -> CriEngine:
    config = {
        "network-plugin": "cni",
        "cni-conf-dir": f"{folder}/net.d",
        "cni-bin-dir": _PLUGINS,
        "cni-cache-dir": f"{folder}/cni",
        "cri-socket": f"unix://{folder}/cri.sock",
        "enable-cri-v1": True,
    }
    (folder / "daemon.json").write_text(json.dumps(config))
    host = f"unix://{folder}/isulad.sock"
    return CriEngine(
        name,
        folder,
        client=(find("isula", programs),),
        create_flags=(),
        daemon=(
            *(find("isulad", programs), "--config", f"{folder}/daemon.json", "-H", host),
            *("--graph", f"{folder}/graph", "--state", f"{folder}/state"),
            *("--pidfile", f"{folder}/isulad.pid", "--log-driver", "stderr"),
            *("--cgroup-parent", f"/{cgroup}"),
        ),
        variables={"ISULAD_HOST": host},
        handler="runc" if name == "isula-runc" else "",
    )


def _containerd(name: str, folder: Path, programs: Mapping[str, str], _cgroup: str) -> CriEngine:
    disabled = ['"io.containerd.internal.v1.opt"']
    disabled += [f'"io.containerd.snapshotter.v1.{driver}"' for driver in _DISABLED]
    text = _CONTAINERD.format(
        folder=folder, disabled=", ".join(disabled), pause=PAUSE, plugins=_PLUGINS
    )
    (folder / "config.toml").write_text(text)
    return CriEngine(
        name,
        folder,
        client=(find("ctr", programs), "-a", f"{folder}/cri.sock", "-n", "k8s.io"),
        create_flags=(),
        daemon=(find("containerd", programs), "--config", f"{folder}/config.toml"),
        load=("images", "import"),
    )


_MAKERS: dict[str, Callable[[str, Path, Mapping[str, str], str], CriEngine]] = {
    "isula": _isula,
    "isula-runc": _isula,
    "containerd": _containerd,
}
ENGINES = tuple(_MAKERS)
"""Every engine: ours with the handler lxc, ours with runc, and the reference."""


def make(
    name: str, folder: Path, programs: Mapping[str, str], cgroup: str, time_out_s: float
) -> CriEngine:
    """The engine of this name, with a new network namespace and cgroups of its own."""
    (folder / "net.d").mkdir(parents=True)
    (folder / "net.d" / "10-bench.conflist").write_text(json.dumps(_conflist(folder)))
    space = f"{cgroup}-{name}"
    subprocess.run(["ip", "netns", "add", space], check=True)
    subprocess.run(["ip", "-n", space, "link", "set", "lo", "up"], check=True)
    engine = _MAKERS[name](name, folder, programs, space)
    engine.cpu = CpuGroup(space)
    # not "ip netns exec", which mounts another /sys that lacks the cgroups
    inside = (find("nsenter", programs), f"--net=/run/netns/{space}")
    engine.daemon = (*engine.cpu.prefix, *inside, *engine.daemon)
    engine.time_out_s, engine.pods_cgroup = time_out_s, f"/{space}/pods"
    return engine


def pause_archive(file: Path) -> None:
    """Writes an image whose only process sleeps, in a few instructions, as a docker archive."""
    code = find_code()
    if code is None:
        raise EngineError(f"there is no profile for {os.uname().machine}")
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        _add(archive, "pause", code.program(b"", code.sleep), 0o755)
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = {
        "architecture": code.profile.architecture,
        "os": "linux",
        "config": {"Entrypoint": ["/pause"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [PAUSE], "Layers": ["layer.tar"]}]
    with tarfile.open(file, "w") as archive:
        _add(archive, "layer.tar", layer.getvalue(), 0o644)
        _add(archive, "config.json", json.dumps(config).encode(), 0o644)
        _add(archive, "manifest.json", json.dumps(manifest).encode(), 0o644)


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    archive.addfile(info, io.BytesIO(data))
