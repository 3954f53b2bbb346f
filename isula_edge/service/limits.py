"""What this machine can limit, and what a user may therefore ask for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isula_edge import errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isula_edge.cgroup import Host
    from isula_edge.oci.options import Settings
    from isula_edge.sys.process import Reaper

__all__ = ["HostLimits", "process_table"]

_PS = ("/usr/bin/ps", "/bin/ps")


@dataclass(frozen=True, slots=True)
class HostLimits:
    """The machine's controllers and CPUs."""

    cgroups: Host

    def cpusets(self) -> dict[str, str]:
        """``cpuset`` and ``mems``: CPUs and memory nodes that containers may use."""
        return {
            "cpuset": _read("/sys/devices/system/cpu/online") or f"0-{(os.cpu_count() or 1) - 1}",
            "mems": _read("/sys/devices/system/node/online") or "0",
        }

    def check(self, settings: Settings) -> None:
        """Refuses limits that the kernel cannot keep; drops swap limits with a warning.

        iSulad refuses too, where Docker only warns: a limit that is silently not there is
        worse than none.
        """
        wanted = [
            ("memory", "memory limit", settings.memory or settings.memory_reservation),
            ("cpu", "CPU shares", settings.cpu_shares),
            ("cpu", "CPU cfs quota", settings.cpu_quota or settings.nano_cpus),
            ("cpuset", "cpuset", settings.cpuset_cpus or settings.cpuset_mems),
            ("pids", "pids limit", settings.pids_limit),
        ]
        for controller, text, value in wanted:
            if value and not self.cgroups.has(controller):
                raise errors.Unimplemented(
                    f"Your kernel does not support {text}: no {controller} controller",
                    kind="feature",
                    ref=f"cgroup-{controller}",
                    hint="run check-kernel to see what this machine lacks",
                )
        if settings.memory_swap and not self._swap():
            settings.memory_swap = 0
            settings.warnings.append(
                "WARNING: Your kernel does not support swap limit capabilities, "
                "or the cgroup is not mounted. Memory limited without swap."
            )
        if self.cgroups.version == "2" and settings.memory_swappiness >= 0:
            settings.memory_swappiness = -1
            settings.warnings.append(
                "WARNING: cgroup v2 has no swappiness, --memory-swappiness is not applied."
            )

    def _swap(self) -> bool:
        mounts = self.cgroups.mounts
        if "memory" not in mounts:
            return False
        if self.cgroups.version == "2":
            return os.path.exists("/proc/swaps") and any(
                os.path.exists(f"{mounts['memory']}/{name}/memory.swap.max")
                for name in os.listdir(mounts["memory"])
            )
        return os.path.exists(f"{mounts['memory']}/memory.memsw.limit_in_bytes")


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


async def process_table(reaper: Reaper, pids: Sequence[int], args: Sequence[str]) -> str:
    """The lines of the host's ``ps ARGS`` that belong to ``pids``, and the headings."""
    program = next((path for path in _PS if os.path.exists(path)), "")
    if not program:
        raise errors.Unimplemented(
            "the machine has no ps program", kind="program", ref="ps", hint="install procps"
        )
    code, out, err = await reaper.run([program, *args], timeout_s=30)
    text = out.decode(errors="replace")
    if code:
        said = err.decode(errors="replace").strip().splitlines()
        raise errors.InvalidArgument(
            f"ps {' '.join(args)}: {said[0] if said else f'exit status {code}'}", kind="flag"
        )
    lines = text.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise errors.InvalidArgument(
            f"ps {' '.join(args)} has no column PID", kind="flag", hint="add pid to the columns"
        )
    column = titles.index("PID")
    wanted = {str(pid) for pid in pids}
    kept = [lines[0]]
    for line in lines[1:]:
        fields = line.split(None, column + 1)
        if len(fields) > column and fields[column] in wanted:
            kept.append(line)
    return "\n".join(kept) + "\n"
