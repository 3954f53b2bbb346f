"""What is asked of this kernel and cannot be had: refused, with the feature that is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isula_edge import errors

if TYPE_CHECKING:
    from isula_edge.kernel import Features
    from isula_edge.oci.options import Settings

__all__ = ["check_exec", "check_settings"]

_OLD_SETNS = ("network", "ipc", "uts")
"""What setns(2) enters before Linux 3.8."""


def check_settings(features: Features, settings: Settings) -> None:
    """Raises Unimplemented for what a user wants by name and the kernel lacks.

    What is only the default (a seccomp profile) is left out instead, with a warning when the
    engine starts.
    """
    if settings.seccomp not in ("", "unconfined") and not settings.privileged:
        _need(features, "seccomp-filter", "a seccomp profile", "ask for seccomp=unconfined")
    if settings.no_new_privileges:
        _need(features, "no-new-privs", "no-new-privileges", "leave it out")
    names = {"net": "network"}
    shared = [
        names.get(kind, kind)
        for kind in ("net", "ipc", "uts", "pid", "cgroupns")
        if getattr(settings, kind).startswith("container:")
    ]
    shared += [kind for kind, path in settings.join.items() if path]
    for kind in shared:
        if kind not in _OLD_SETNS:
            _need(features, "join-namespaces", f"joining a {kind} namespace", "use one of its own")


def check_exec(features: Features, runtime: str) -> None:
    """Raises Unimplemented where nobody can enter a running container of ``runtime``."""
    if runtime == "lxc":
        _need(features, "join-namespaces", "exec", "put what you need into the container's command")


def _need(features: Features, name: str, what: str, hint: str) -> None:
    feature = features.get(name)
    if feature.missing:
        raise errors.Unimplemented(
            f"this kernel cannot do {what}: {feature.why} "
            f"(Linux {feature.since} has {feature.what})",
            kind="feature",
            ref=name,
            hint=hint,
        )
