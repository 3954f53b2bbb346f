"""LinuxContainerResources: what the kubelet asks for, and what a container has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isula_cri import messages
from isula_edge.oci.resources import ResourceChange

if TYPE_CHECKING:
    from isula_edge.oci.options import Settings

__all__ = ["change", "resources", "stored"]


def change(message: Any) -> ResourceChange:
    """What a LinuxContainerResources asks for; 0 and empty are what it leaves alone."""
    return ResourceChange(
        cpu_shares=message.cpu_shares,
        cpu_period=message.cpu_period,
        cpu_quota=message.cpu_quota,
        cpuset_cpus=message.cpuset_cpus,
        cpuset_mems=message.cpuset_mems,
        memory=message.memory_limit_in_bytes,
        memory_swap=message.memory_swap_limit_in_bytes,
        hugepages=tuple((item.page_size, item.limit) for item in message.hugepage_limits),
        unified=dict(message.unified),
    )


def stored(message: Any) -> dict[str, Any]:
    """What is set in a LinuxContainerResources, by its names: fit for a record."""
    found = {field.name: value for field, value in message.ListFields()}
    if "unified" in found:
        found["unified"] = dict(message.unified)
    if "hugepage_limits" in found:
        found["hugepage_limits"] = [
            {"page_size": item.page_size, "limit": item.limit} for item in message.hugepage_limits
        ]
    return found


def resources(settings: Settings) -> Any:
    """LinuxContainerResources with what is limited in ``settings``."""
    return messages.LinuxContainerResources(
        cpu_shares=settings.cpu_shares,
        cpu_period=settings.cpu_period,
        cpu_quota=settings.cpu_quota,
        cpuset_cpus=settings.cpuset_cpus,
        cpuset_mems=settings.cpuset_mems,
        memory_limit_in_bytes=settings.memory,
        memory_swap_limit_in_bytes=settings.memory_swap,
        oom_score_adj=settings.oom_score_adj or 0,
        hugepage_limits=[
            messages.HugepageLimit(page_size=size, limit=limit)
            for size, limit in settings.hugepages
        ],
        unified=settings.unified,
    )
