"""The table of features: what each probe found, and what it means for the engine."""

from __future__ import annotations

import enum
import functools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.kernel import (
    _cgroups,
    _namespaces,
    _network,
    _processes,
    _security,
    _storage,
    _toml,
)
from isula_edge.kernel.finding import Finding, State
from isula_edge.kernel.layout import CgroupLayout, cgroup_layout
from isula_edge.kernel.source import Live, Source
from isula_edge.sys.data import data_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "NAMES",
    "Description",
    "Feature",
    "Features",
    "Need",
    "Status",
    "Verdict",
    "describe",
    "probe",
    "runtimes",
]

_PROBES: Mapping[str, Callable[[Source], Finding]] = {
    **_namespaces.PROBES,
    **_cgroups.PROBES,
    **_storage.PROBES,
    **_security.PROBES,
    **_processes.PROBES,
    **_network.PROBES,
}

NAMES = tuple(_PROBES)
"""Names of all features."""

_MISSING = (State.ABSENT, State.UNUSABLE)


class Need(enum.Enum):
    """How much the engine misses a feature."""

    NEEDED = "needed"
    """It does not run."""
    WANTED = "wanted"
    """A user misses something: the machine runs degraded."""
    OPTIONAL = "optional"
    """It takes another way, or refuses one option."""


class Status(enum.Enum):
    """What a kernel is good for."""

    OK = "ok"
    DEGRADED = "degraded"
    CANNOT_RUN = "cannot-run"


@dataclass(frozen=True)
class Description:
    """What is known of a feature whatever the kernel (``kernel-checks/features.toml``)."""

    group: str
    what: str
    since: str
    need: Need
    without: str
    how: str


@dataclass(frozen=True)
class Feature:
    """One feature of one kernel: ``why`` is the evidence for ``state``, ``since`` the
    mainline release that brought it, ``without`` what the engine does without it, ``how``
    what is looked at or asked."""

    name: str
    group: str
    state: State
    why: str
    what: str
    since: str
    need: Need
    without: str
    how: str

    @property
    def missing(self) -> bool:
        """Whether it was found not to be usable (an unknown one is not missing)."""
        return self.state in _MISSING

    def to_json(self) -> dict[str, str]:
        """The feature as a JSON object."""
        return {
            "name": self.name,
            "group": self.group,
            "state": self.state.value,
            "why": self.why,
            "what": self.what,
            "since": self.since,
            "need": self.need.value,
            "without": self.without,
            "how": self.how,
        }


@dataclass(frozen=True)
class Verdict:
    """What the kernel is good for, and why.

    ``missing`` names the needed features that are not there, ``degraded`` the wanted
    ones, ``unknown`` the needed or wanted ones that could not be asked.  ``runtimes``
    maps each runtime to the features it lacks; an empty tuple means that it can run.
    """

    status: Status
    missing: tuple[str, ...]
    degraded: tuple[str, ...]
    unknown: tuple[str, ...]
    runtimes: Mapping[str, tuple[str, ...]]

    @property
    def summary(self) -> str:
        """The verdict in one line."""
        if self.status is Status.CANNOT_RUN:
            return f"cannot run: {', '.join(self.missing)} missing"
        if self.status is Status.DEGRADED:
            return f"runs degraded, without {', '.join(self.degraded)}"
        if self.unknown:
            return "runs, as far as could be asked"
        return "runs, with everything that is wanted"


class Features:
    """The features of one source; each is probed when it is first asked for."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._found: dict[str, Finding] = {}

    def state(self, name: str) -> State:
        """State of a feature; NotFound for a name that is none."""
        return self._finding(name).state

    def usable(self, name: str) -> bool:
        """Whether a feature can be used; an unknown one cannot."""
        return self.state(name) is State.PRESENT

    def get(self, name: str) -> Feature:
        """A feature with all that is known of it; NotFound for a name that is none."""
        found = self._finding(name)
        text = describe()[name]
        return Feature(
            name,
            text.group,
            found.state,
            found.why,
            text.what,
            text.since,
            text.need,
            text.without,
            text.how,
        )

    def all(self) -> list[Feature]:
        """Every feature, in the order of ``features.toml``."""
        with self.source.asking():
            return [self.get(name) for name in describe()]

    def degraded(self) -> list[Feature]:
        """The needed and wanted features that are absent or unusable."""
        return [item for item in self._missed() if item.missing]

    def _missed(self) -> list[Feature]:
        """The needed and wanted features.  The optional ones are not asked for it, since
        asking may load modules."""
        with self.source.asking():
            return [
                self.get(name)
                for name, text in describe().items()
                if text.need is not Need.OPTIONAL
            ]

    def verdict(self) -> Verdict:
        """What this kernel is good for."""
        with self.source.asking():
            found = self._missed()
            lacking = {name: self.runtime_lacks(name) for name in runtimes()}
        missing = _names(found, Need.NEEDED, _MISSING)
        degraded = _names(found, Need.WANTED, _MISSING)
        unknown = _names(found, Need.NEEDED, (State.UNKNOWN,))
        unknown += _names(found, Need.WANTED, (State.UNKNOWN,))
        status = Status.OK
        if missing:
            status = Status.CANNOT_RUN
        elif degraded:
            status = Status.DEGRADED
        return Verdict(status, missing, degraded, unknown, lacking)

    def runtime_lacks(self, runtime: str) -> tuple[str, ...]:
        """Features without which ``runtime`` cannot start a container here, empty when it
        can; NotFound for a runtime that ``features.toml`` does not describe."""
        needs = runtimes().get(runtime)
        if needs is None:
            raise errors.NotFound(
                f"no kernel features are listed for runtime {runtime}",
                kind="runtime",
                ref=runtime,
                hint=f"listed are {', '.join(runtimes())}",
            )
        return tuple(name for name in needs if self.state(name) in _MISSING)

    def cgroups(self) -> CgroupLayout:
        """The cgroup hierarchies that are mounted."""
        return cgroup_layout(self.source)

    def overlay_type(self) -> str | None:
        """Type to give to mount(2) for overlay: ``overlay``, ``overlayfs`` or None."""
        if self.usable("overlay"):
            return "overlay"
        return "overlayfs" if self.usable("overlayfs-name") else None

    def overlay_several(self) -> bool:
        """Whether :meth:`overlay_type` takes several lower directories (Linux 4.0)."""
        return self.overlay_type() == "overlay" and self.usable("overlay-multilower")

    def release(self) -> str:
        """Release of the kernel, to be shown and never compared."""
        return (self.source.read("/proc/sys/kernel/osrelease") or "unknown").strip()

    def to_json(self) -> dict[str, Any]:
        """Everything as a JSON object; ``schema`` grows with incompatible changes."""
        verdict, layout = self.verdict(), self.cgroups()
        found = self.all()
        return {
            "schema": 1,
            "source": self.source.name,
            "release": self.release(),
            "verdict": {
                "status": verdict.status.value,
                "summary": verdict.summary,
                "missing": list(verdict.missing),
                "degraded": list(verdict.degraded),
                "unknown": list(verdict.unknown),
                "runtimes": {name: list(lack) for name, lack in verdict.runtimes.items()},
            },
            "cgroup": {
                "version": layout.version,
                "mounts": dict(layout.mounts),
                "unified": layout.unified,
            },
            "overlay": self.overlay_type(),
            "unanswered": list(self.source.unanswered),
            "features": [feature.to_json() for feature in found],
        }

    def _finding(self, name: str) -> Finding:
        found = self._found.get(name)
        if found is None:
            probing = _PROBES.get(name)
            if probing is None:
                raise errors.NotFound(
                    f"there is no kernel feature {name}", kind="feature", ref=name
                )
            found = self._found[name] = probing(self.source)
        return found


def probe(source: Source | None = None) -> Features:
    """The features of ``source``, or of this machine.  Nothing is asked until a feature
    is."""
    return Features(Live() if source is None else source)


def _names(found: list[Feature], need: Need, states: tuple[State, ...]) -> tuple[str, ...]:
    return tuple(item.name for item in found if item.need is need and item.state in states)


@functools.cache
def _table() -> dict[str, Any]:
    path = os.path.join(data_dir(), "features.toml")
    try:
        with open(path, encoding="utf-8") as file:
            return _toml.parse(file.read())
    except (OSError, ValueError) as error:
        raise errors.Internal(
            f"cannot read the descriptions of kernel features: {error}",
            kind="file",
            ref=path,
            hint="the installation is incomplete",
        ) from error


@functools.cache
def describe() -> dict[str, Description]:
    """What is known of each feature whatever the kernel, in the order of ``features.toml``."""
    return {
        name: Description(
            item["group"],
            item["what"],
            item["since"],
            Need(item["need"]),
            item["without"],
            item["how"],
        )
        for name, item in _table()["features"].items()
    }


@functools.cache
def runtimes() -> dict[str, tuple[str, ...]]:
    """Runtimes, each with the features without which it cannot start a container."""
    return {name: tuple(item["needs"]) for name, item in _table()["runtimes"].items()}
