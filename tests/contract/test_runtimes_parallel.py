"""Contract of the runtimes: a hundred containers at once, and nothing left of them."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.rig import children, until

if TYPE_CHECKING:
    from tests.rig import Engine

# native: qemu-user refuses clone(2) with namespaces
pytestmark = [pytest.mark.root, pytest.mark.lxc, pytest.mark.native]

COUNT = 100


def cgroups(names: set[str]) -> list[str]:
    """Cgroups of all hierarchies whose names hold one of ``names``."""
    return [
        f"{folder}/{entry}"
        for folder, entries, _ in os.walk("/sys/fs/cgroup")
        for entry in entries
        if any(name in entry for name in names)
    ]


def processes(engine: Engine) -> list[str]:
    """Command lines, other than the daemon's and its clients', that tell of this engine."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes()
        except OSError:
            # it has just ended
            continue
        if str(engine.state).encode() in words and int(name) != engine.pid:
            found.append(words.replace(b"\0", b" ").decode(errors="replace"))
    return found


def left(engine: Engine, runtime: str) -> dict[str, object]:
    """What containers of this runtime need of the machine, counted."""
    folders = (engine.state / runtime, engine.state / "exits", engine.graph / "engines" / runtime)
    return {
        "mounts": engine.mounts(),
        "processes": processes(engine),
        "children of the daemon": list(children(engine.pid)),
        "descriptors": len(os.listdir(f"/proc/{engine.pid}/fd")),
        "files": sorted(
            str(path.relative_to(folder))
            for folder in folders
            for path in folder.glob("*")
        ),
        "layers": sorted(os.listdir(engine.graph / "storage" / "overlay" / "rw")),
    }


def settled(engine: Engine, runtime: str) -> dict[str, object]:
    """The counts when no container is left and no client is served any more."""
    found: list[dict[str, object]] = [{}]

    def still() -> bool:
        found.append(left(engine, runtime))
        return found[-1] == found[-2] and not found[-1]["layers"]

    until(still, "an engine that has nothing to do")
    return found[-1]


def given_back(engine: Engine, runtime: str, before: dict[str, object]) -> None:
    """Waits until there is no more than before."""
    with contextlib.suppress(AssertionError):
        until(lambda: left(engine, runtime) == before, "everything given back")
    assert left(engine, runtime) == before


@pytest.mark.timeout(240)
def test_a_hundred_containers_at_once(engine: Engine, runtime: str) -> None:
    # the first one makes what stays: folders of the runtime, cgroups above those of containers
    engine.ok("run", "--name", "first", "--runtime", runtime, "busybox", "true")
    engine.ok("rm", "first")
    before = settled(engine, runtime)

    def run(number: int) -> str:
        words = ("busybox", "sh", "-c", f"echo number {number}; exec sleep 1000")
        return engine.ok("run", "-d", "--name", f"c{number}", "--runtime", runtime, *words)

    with ThreadPoolExecutor(COUNT) as pool:
        ids = set(pool.map(run, range(COUNT)))
    assert len(ids) == COUNT
    assert set(engine.ok("ps", "-q", "--no-trunc").split()) == ids
    shown = engine.ok("ps", "--format", "{{.Names}} {{.Status}}").splitlines()
    assert all(" Up " in line for line in shown), shown
    for number in range(0, COUNT, 9):
        assert engine.ok("logs", f"c{number}") == f"number {number}"
        assert engine.ok("exec", f"c{number}", "hostname") in {name[:12] for name in ids}
    pids = {engine.state_of(f"c{number}")["Pid"] for number in range(0, COUNT, 9)}
    assert len(pids) == len(range(0, COUNT, 9))
    assert cgroups(ids)
    names = sorted(ids)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda some: engine.ok("rm", "-f", *some), (names[i::4] for i in range(4))))
    assert engine.ok("ps", "-aq") == ""
    given_back(engine, runtime, before)
    assert cgroups(ids) == []
