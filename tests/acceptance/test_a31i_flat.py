"""Case A31i: a thousand probes, some of which time out, leave nothing behind."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cri.client import refused
from tests.rig import until

if TYPE_CHECKING:
    from tests.cri.node import Container, Node

pytestmark = [pytest.mark.root, pytest.mark.lxc, pytest.mark.slow, pytest.mark.timeout(300)]
_EXECS = 1000
_AT_ONCE = 4
_LATE_EACH = 50


def measures(pid: int) -> dict[str, int]:
    """Descriptors, threads and resident memory in KiB of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = {key: int(value) for key, value in re.findall(r"(Threads|VmRSS):\s*(\d+)", status)}
    return {"fds": len(os.listdir(f"/proc/{pid}/fd")), **found}


def monitor(container: Container) -> int:
    """The process that watches the container."""
    state = container.pod.node.machine.own.state
    (path,) = state.glob(f"*/{container.id}/conmon.pid")
    return int(path.read_text())


def probe(container: Container, number: int) -> None:
    """One exec: that succeeds, fails, prints, has no program, or is late."""
    if number % _LATE_EACH == 0:
        with refused("DEADLINE_EXCEEDED"):
            container.exec("sh", "-c", "sleep 1000 & sleep 1000", timeout=1)
    elif number % 4 == 0:
        assert container.exec("sh", "-c", "echo $0; exit 3", str(number)).code == 3
    elif number % 4 == 1:
        assert container.exec("head", "-c", "50000", "/dev/zero").code == 0
    else:
        assert container.output("echo", str(number)) == str(number)


def test_a_thousand_execs(node: Node) -> None:
    # process 1 is the pod's, which reaps what a killed probe has left
    container = node.pod().run(security={"namespace_options": {"pid": "POD"}})
    engine = node.machine.own
    pids = {"daemon": engine.pid, "monitor": monitor(container)}
    processes = container.output("ps", "-o", "comm").split()

    def run(count: int) -> None:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda number: probe(container, number), range(count)))

    # caches, threads of the pool and the allocator's arenas
    run(2 * _LATE_EACH)
    before = {name: measures(pid) for name, pid in pids.items()}
    run(_EXECS)

    def flat() -> bool:
        """Descriptors and threads: what is being closed still does not count."""
        after = {name: measures(pid) for name, pid in pids.items()}
        return all(
            abs(after[name][kind] - before[name][kind]) <= 3
            for name in pids
            for kind in ("fds", "Threads")
        )

    until(flat, f"as it was before, {before}", 10)
    for name, pid in pids.items():
        grown = measures(pid)["VmRSS"] - before[name]["VmRSS"]
        assert abs(grown) <= 2048, (name, grown)
    assert container.output("ps", "-o", "comm").split() == processes
    assert engine.isula("version").code == 0


def test_callers_that_leave(node: Node) -> None:
    """What nobody waits for any more does not go on, at whatever moment the caller left."""
    container = node.pod().run(security={"namespace_options": {"pid": "POD"}})
    daemon = node.machine.own.pid
    processes = container.output("ps", "-o", "comm").split()
    before = measures(daemon)
    for late_ms in range(1, 101, 2):
        with refused("DEADLINE_EXCEEDED"):
            node.call(
                "ExecSync",
                container_id=container.id,
                cmd=["sh", "-c", "sleep 1000 & sleep 1000"],
                timeout_s=late_ms / 1000,
            )
    until(
        lambda: container.output("ps", "-o", "comm").split() == processes, "probes being ended", 10
    )
    until(lambda: abs(measures(daemon)["fds"] - before["fds"]) <= 3, "descriptors closed", 10)
