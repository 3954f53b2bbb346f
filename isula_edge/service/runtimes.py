"""The drivers of the runtimes that an engine offers, and whether each can be used."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from isula_edge.runtime.oci_cli import Limits, OciCli
from isula_edge.runtime.oci_vm import VM_LIMITS, OciVm
from isula_edge.runtime.program import PATH, Program
from isula_edge.runtime.shim import ShimRuntime
from isula_edge.service.config import RuntimeConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from isula_edge.cgroup import Host
    from isula_edge.runtime.base import Runtime
    from isula_edge.runtime.supervisor import Supervisor
    from isula_edge.service.config import EngineConfig
    from isula_edge.sys.inotify import Watcher
    from isula_edge.sys.process import Reaper

__all__ = ["command_line_drivers", "details", "shim_driver", "shim_drivers", "shim_of_type"]

_WELL_KNOWN = ("runc", "crun")
_KATA = "containerd-shim-kata-v2"
_TYPE = re.compile(r"io\.containerd\.([a-z0-9_-]{1,40})\.v2", re.ASCII)


def command_line_drivers(
    config: EngineConfig, supervisor: Supervisor, reaper: Reaper, cgroups: Host
) -> dict[str, OciCli]:
    """Drivers of runtimes with an OCI command line: the administrator's, runc, crun if there."""
    found: dict[str, OciCli] = {}
    systemd = ("--systemd-cgroup",) if config.systemd_cgroup else ()

    def driver(name: str, path: str, runtime: RuntimeConfig | None) -> OciCli:
        given = runtime.args if runtime else ()
        vm = runtime is not None and runtime.vm
        limits = VM_LIMITS if vm else Limits()
        if config.start_timeout_s:
            seconds = config.start_timeout_s
            limits = replace(limits, create=seconds, start=seconds)
        if runtime is not None and runtime.timeout_s:
            limits = Limits.all(runtime.timeout_s)
        # a virtual machine has its cgroup of its own making
        own = () if vm else systemd
        args = (*(word for word in given if word not in own), *own)
        made = OciVm if vm else OciCli
        return made(name, path, supervisor, reaper, config.state, args, cgroups, limits)

    for name, runtime in config.runtimes.items():
        if runtime.type == "oci":
            found[name] = driver(name, runtime.path, runtime)
    for name in _WELL_KNOWN:
        path = shutil.which(name)
        if name not in config.runtimes and (path or name == "runc"):
            found[name] = driver(name, path or f"/usr/bin/{name}", None)
    return found


def shim_of_type(name: str) -> RuntimeConfig | None:
    """The runtime of a containerd type (``io.containerd.runc.v2``) whose shim is installed."""
    found = _TYPE.fullmatch(name)
    program = f"containerd-shim-{found[1]}-v2" if found else ""
    if not program or shutil.which(program, path=PATH) is None:
        return None
    return RuntimeConfig(program, type="shim", vm="kata" in program)


def shim_driver(
    name: str,
    runtime: RuntimeConfig,
    config: EngineConfig,
    supervisor: Supervisor,
    reaper: Reaper,
    watcher: Watcher,
) -> ShimRuntime:
    """The driver of one of containerd's shims."""
    return ShimRuntime(
        name,
        runtime.path,
        supervisor,
        reaper,
        watcher,
        config.state,
        options=runtime.options,
        vm=runtime.vm,
        timeout_s=runtime.timeout_s or config.start_timeout_s,
        systemd_cgroup=config.systemd_cgroup,
    )


def shim_drivers(
    config: EngineConfig,
    supervisor: Supervisor,
    reaper: Reaper,
    watcher: Watcher,
    names: Iterable[str],
) -> dict[str, ShimRuntime]:
    """Drivers of shims: the administrator's, kata if there, and those of types in ``names``."""
    wanted = {name: item for name, item in config.runtimes.items() if item.type == "shim"}
    if "kata" not in config.runtimes and shutil.which(_KATA, path=PATH):
        wanted["kata"] = RuntimeConfig(_KATA, type="shim", vm=True)
    for name in names:
        found = shim_of_type(name)
        if found is not None and name not in config.runtimes:
            wanted[name] = found
    return {
        name: shim_driver(name, item, config, supervisor, reaper, watcher)
        for name, item in wanted.items()
    }


def details(drivers: Mapping[str, Runtime]) -> list[dict[str, Any]]:
    """For ``isula info``: each runtime's name, type, program, and why it cannot be run ('')."""
    found = []
    for name, driver in sorted(drivers.items()):
        program = Program(name, str(getattr(driver, "program", "")))
        found.append(
            {
                "name": name,
                "type": "lxc" if name == "lxc" else _type(driver),
                "path": program.path,
                "vm": driver.guest is not None and driver.guest.vm,
                "problem": program.problem(),
            }
        )
    return found


def _type(driver: Runtime) -> str:
    return "shim" if isinstance(driver, ShimRuntime) else "oci"
