"""Level 2: what the running kernel can do.

``probe()`` gives the table of features: each present, absent, present but unusable, or
unknown, with the evidence, the release that brought it and what the engine does without
it.  Nothing else in the engine looks at a kernel version, and neither does this package:
it asks.  Probes change nothing and run when a feature is first asked for.  Calls are made in
a process that is thrown away, and are given up after some seconds.

Descriptions of the features are data (``kernel-checks/features.toml``, inside a wheel
``isula_edge/_data/kernel-checks``).  Only the standard library of Python 3.9 is
used, so that ``check-kernel`` runs on a machine before anything is installed.  Owns no state.
"""

from __future__ import annotations

from isula_edge.kernel.features import (
    NAMES,
    Description,
    Feature,
    Features,
    Need,
    Status,
    Verdict,
    describe,
    probe,
)
from isula_edge.kernel.finding import State
from isula_edge.kernel.layout import CgroupLayout, cgroup_layout
from isula_edge.kernel.source import Answer, Live, Saved, Source

__all__ = [
    "NAMES",
    "Answer",
    "CgroupLayout",
    "Description",
    "Feature",
    "Features",
    "Live",
    "Need",
    "Saved",
    "Source",
    "State",
    "Status",
    "Verdict",
    "cgroup_layout",
    "describe",
    "probe",
]
