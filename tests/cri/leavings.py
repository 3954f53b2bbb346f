"""What pods and containers leave behind on a machine: everything that anybody could leak."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.rig import until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.cri.node import Machine

__all__ = ["cgroups", "gone", "leavings", "processes"]

_ID = re.compile(r"[0-9a-f]{64}")
_IN_GRAPH = ("pods/*", "engines/*/*", "storage/overlay/rw/*", "quarantine/*")


def leavings(machine: Machine, ids: Iterable[str] = ()) -> list[str]:
    """Records, files, mounts, namespaces, cgroups, addresses, interfaces and processes.

    ``ids`` are the pods and containers that there were, besides those that a file names.
    """
    engine = machine.own
    found = [f"listed: {item}" for item in _listed(machine)]
    files = [path for glob in _IN_GRAPH for path in engine.graph.glob(glob)]
    files += [path for path in engine.state.rglob("*") if _ID.search(path.name)]
    files += engine.state.glob("pods/*")
    files += (machine.folder / "cni/results").glob("*")
    files += (machine.folder / "ipam/tests").glob("10.*")
    # of iSulad's names for scripts, which are there always
    found += [f"file: {path}" for path in files if path.parent.name != "lcr"]
    words = {*ids, *_ID.findall(" ".join(found))}
    found += [f"mount: {place}" for place in engine.mounts() if place != str(engine.graph)]
    found += [
        f"namespace: {path}"
        for path in Path("/var/run/netns").glob("isulacni-*")
        if any(word.startswith(path.name.removeprefix("isulacni-")) for word in words)
    ]
    found += [f"cgroup: {path}" for path in cgroups(words)]
    show = subprocess.run(
        ["ip", "-n", engine.network.name, "-o", "link", "show", "type", "veth"],
        check=True,
        capture_output=True,
        text=True,
    )
    found += [f"interface: {line}" for line in show.stdout.splitlines()]
    found += [f"process: {line}" for line in processes({*words, f"{engine.folder}/"}, engine.pid)]
    return found


def gone(machine: Machine, ids: Iterable[str] = (), where: str = "") -> None:
    """Nothing is left, at the latest when what the engine does in the background is done."""
    listed = list(ids)
    try:
        until(lambda: not leavings(machine, listed), "nothing left", 5)
    except AssertionError:
        left = "\n".join(leavings(machine, listed))
        raise AssertionError(
            f"{where}: left behind\n{left}\n{machine.own.log_text()[-3000:]}"
        ) from None


def _listed(machine: Machine) -> list[str]:
    node = machine.node()
    try:
        pods, containers = node.call("ListPodSandbox").items, node.call("ListContainers").containers
        return [f"pod {pod.id}" for pod in pods] + [f"container {item.id}" for item in containers]
    finally:
        node.close()


def cgroups(words: set[str]) -> Iterator[str]:
    """Directories of cgroups whose names have one of ``words`` in them, the deepest first."""
    for place, folders, _ in os.walk("/sys/fs/cgroup", topdown=False):
        for name in folders:
            if any(word in name for word in words):
                yield f"{place}/{name}"


def processes(words: set[str], daemon: int = 0) -> Iterator[str]:
    """Processes whose command line, environment or cgroup has one of ``words`` in it."""
    wanted = [word.encode() for word in words]
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in (daemon, os.getpid()):
            continue
        texts = [_text(f"/proc/{name}/{kind}") for kind in ("cmdline", "cgroup", "environ")]
        if any(word in text for word in wanted for text in texts):
            yield f"{name} {texts[0].replace(bytes(1), b' ').decode(errors='replace')}"


def _text(path: str) -> bytes:
    """What a file of a process says; nothing when it may not be read or the process is gone."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
