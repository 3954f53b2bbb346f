"""crun on a machine whose unified cgroup hierarchy has controllers beside those of version 1.

crun (1.8 was looked at) refuses such a machine: "cgroups in hybrid mode not supported, drop all
controllers from cgroupv2".  It looks for the unified hierarchy at ``/sys/fs/cgroup/unified``, and
without that it uses version 1, which is where the engine's own limits are then.  So it is started
in a mount namespace of its own without that mount.  Every other mount keeps its peers: what is
shared with the host stays shared.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from isula_edge.runtime.program import PATH

if TYPE_CHECKING:
    from isula_edge.cgroup import Host

__all__ = ["words_before"]

_TOP = "/sys/fs/cgroup"
_UNIFIED = f"{_TOP}/unified"
_SCRIPT = f'mount --make-rprivate {_TOP} && umount {_UNIFIED} && exec "$@"'
_WORDS = ("--mount", "--propagation", "unchanged", "/bin/sh", "-c", _SCRIPT, "sh")


def words_before(program: str, cgroups: Host | None) -> tuple[str, ...]:
    """The words of a command line that go before ``program``, an absolute path: mostly none."""
    if cgroups is None or cgroups.version != "hybrid" or cgroups.mounts.get("") != _UNIFIED:
        return ()
    if os.path.basename(os.path.realpath(program)) != "crun":
        return ()
    unshare = shutil.which("unshare", path=PATH)
    try:
        with open(f"{_UNIFIED}/cgroup.controllers", encoding="ascii") as file:
            return (unshare, *_WORDS) if unshare and file.read().strip() else ()
    except OSError:
        return ()
