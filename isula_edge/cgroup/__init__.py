"""Level 3: OCI resources as files of the cgroup hierarchy that this machine has.

Owns no state.  ``v1`` and hybrid machines get controller files of version 1, ``v2``
machines those of the unified hierarchy.
"""

from __future__ import annotations

from isula_edge.cgroup.convert import CgroupFile, device_rules, resource_files
from isula_edge.cgroup.host import Host, init_groups, nests
from isula_edge.cgroup.pods import container_dir

__all__ = [
    "CgroupFile",
    "Host",
    "container_dir",
    "device_rules",
    "init_groups",
    "nests",
    "resource_files",
]
