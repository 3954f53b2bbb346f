"""What this machine can limit, and what a user may therefore ask for."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.cgroup.stats import page_sizes
from isula_edge.oci.capabilities import bounding_set
from isula_edge.sys import lsm

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
        if settings.memory and not self._swap():
            if settings.memory_swap > 0 or settings.no_swap:
                settings.warnings.append(
                    "Your kernel does not support swap limit capabilities, "
                    "or the cgroup is not mounted. Memory limited without swap."
                )
            settings.memory_swap, settings.no_swap = -1, False
        self._check_files(settings)
        _check_profile(settings)
        _clamp_oom_score(settings)
        if self.cgroups.version == "2" and settings.memory_swappiness >= 0:
            settings.memory_swappiness = -1
            settings.warnings.append(
                "cgroup v2 has no swappiness, --memory-swappiness is not applied."
            )

    def _check_files(self, settings: Settings) -> None:
        """Huge pages and files of version 2: they are there, or nothing was to be limited."""
        sizes = page_sizes() if self.cgroups.has("hugetlb") else ()
        for size, limit in settings.hugepages:
            # the kubelet forbids (0) every size that it knows of
            if size not in sizes and limit:
                raise errors.Unimplemented(
                    f"Your kernel cannot limit huge pages of {size}",
                    kind="feature",
                    ref="cgroup-hugetlb",
                    hint="run check-kernel to see what this machine lacks",
                )
        settings.hugepages = [item for item in settings.hugepages if item[0] in sizes]
        if settings.unified and self.cgroups.version != "2":
            raise errors.Unimplemented(
                f"{min(settings.unified)} is a file of cgroup v2, this machine has v1",
                kind="resources",
                ref="unified",
            )
        for name in settings.unified:
            if not self.cgroups.has(name.partition(".")[0]):
                raise errors.Unimplemented(
                    f"{name}: this machine has no such cgroup controller",
                    kind="resources",
                    ref="unified",
                )

    def _swap(self) -> bool:
        mounts = self.cgroups.mounts
        if "memory" not in mounts:
            return False
        if self.cgroups.version == "2":
            # the root group has none of the files
            return os.path.exists("/proc/swaps") and "swapaccount=0" not in _read("/proc/cmdline")
        return os.path.exists(f"{mounts['memory']}/memory.memsw.limit_in_bytes")


def _check_profile(settings: Settings) -> None:
    """Refuses an AppArmor profile that nobody has loaded."""
    name = settings.apparmor
    if settings.privileged or name in ("", "unconfined"):
        return
    why = ""
    if not lsm.apparmor_enabled():
        why = "the kernel has no AppArmor"
    elif not lsm.apparmor_has(name):
        why = "it is not loaded"
    if why:
        raise errors.FailedPrecondition(
            f"AppArmor profile {name} cannot be applied: {why}",
            kind="apparmor",
            ref=name,
            hint="load it with apparmor_parser, or ask for none",
        )


def _clamp_oom_score(settings: Settings) -> None:
    """No lower than the engine's own where it may not lower any (no CAP_SYS_RESOURCE)."""
    wanted = settings.oom_score_adj
    if wanted is None or "SYS_RESOURCE" in bounding_set():
        return
    with contextlib.suppress(ValueError):
        own = int(_read("/proc/self/oom_score_adj"))
        if wanted < own:
            settings.oom_score_adj = own
            settings.warnings.append(
                f"oom_score_adj {wanted} needs CAP_SYS_RESOURCE, {own} is used."
            )


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
