"""Level 4: drivers that turn an OCI bundle into processes.

A bundle is ``config.json`` (OCI runtime-spec 1.0.2 or later) and a mounted root file
system.  Per container, in ``<state>/<runtime>/<id>/`` (tmpfs)::

    config.json -> <graph>/engines/…     the bundle seen by the runtime
    conmon.pid, pidfile                  supervisor, and what it supervises
    attach, ctl, winsz                   the supervisor's sockets and FIFOs
    config, lxc.log, run, go             lxc only: configuration, log, launcher, gate
    ../../exits/<id>                     exit status as the supervisor saw it

Invariants: no process of ours that belongs to a container is Python; a container and its
supervisor live on whatever happens to the daemon; its true exit code can be had afterwards.
"""

from __future__ import annotations

from isula_edge.runtime.base import Bundle, ExecProcess, ExecSpec, Guest, Runtime, Started

__all__ = ["Bundle", "ExecProcess", "ExecSpec", "Guest", "Runtime", "Started"]
