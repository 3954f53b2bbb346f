"""How engines serve a kubelet, beside containerd: calls, pods at once, memory, processes.

``python -m benchmarks cri --help``; inside the sandbox this module is run with the path of its
settings.  Every engine has a network namespace with a bridge of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import cri_report, host, memory, sandbox, tree
from benchmarks.accounting import spawned
from benchmarks.config import ConfigError, programs
from benchmarks.cri_engines import ENGINES, CriEngine, make, pause_archive
from benchmarks.cri_pods import DOWN, LISTS, OPERATIONS, UP, Pod
from benchmarks.soundness import Soundness

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["command", "main"]

_PACKAGES = ("grpc", "google", "typing_extensions")
_IMAGE = "busybox:latest"
_PAUSES = ("pause",)
"""Processes inside pods that are the engine's."""
_LIST_CALLS = 10
_PAUSEENGINES = ("pause",)


def command(argv: list[str], root: Path, archive: Path) -> int:
    """Reads flags and goes on in the sandbox; returns only on failure.

    ``archive`` is a docker archive that holds busybox.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks cri", description=__doc__)
    add = parser.add_argument
    add("-o", "--output", metavar="FILE", default="build/benchmarks/cri.json")
    add("-s", "--serial", type=int, default=10, metavar="N", help="pods one after another")
    add("-p", "--parallel", type=int, default=50, metavar="N", help="pods at once, 0: none")
    add("-m", "--memory", type=int, default=50, metavar="N", help="pods meanwhile, 0: none")
    add("-r", "--repeats", type=int, default=3, metavar="N", help="repeats of everything")
    add("-e", "--engines", metavar="LIST", default=",".join(ENGINES))
    add("--program", action="append", default=[], metavar="NAME=PATH", help="program to use")
    add("--work", default="/var/tmp", metavar="DIR", help="where the engines keep their files")
    add("--time-out", type=int, default=120, metavar="S", help="of one call")
    add("--seed", type=int, help="of the order of the engines")
    flags = parser.parse_args(argv)
    chosen = flags.engines.split(",")
    if not set(chosen) <= set(ENGINES) or flags.repeats < 1 or flags.serial < 1:
        raise ConfigError(f"engines are {ENGINES}; pods and repeats 1 or more")
    document = {
        "harness": "benchmarks.cri",
        "archive": str(archive),
        "engines": chosen,
        **{name: getattr(flags, name) for name in ("serial", "parallel", "memory", "repeats")},
        "programs": programs(flags.program, {}),
        "time_out_s": flags.time_out,
        "seed": random.randrange(1 << 32) if flags.seed is None else flags.seed,
    }
    sandbox.enter(document, Path(flags.output), flags.work, root, _packages())


def _packages() -> list[Path]:
    """Where the packages are that a client of gRPC is made of; ConfigError without them."""
    found = []
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise ConfigError(f"the Python package {name} is not installed: run ci/setup bench")
        places = spec.submodule_search_locations or [str(spec.origin)]
        found += [Path(place) for place in places]
    return found


@dataclass(slots=True, kw_only=True)
class _Run(Soundness[CriEngine]):
    """The state of a run; an engine that fails is left out from then on."""

    settings: dict[str, Any]
    root: int = field(default_factory=os.getppid)
    cells: list[dict[str, Any]] = field(default_factory=list)
    memory: dict[str, Any] = field(default_factory=dict)
    processes: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    restless: int = 0

    def tell(self, text: str) -> None:
        """Says how far the run is."""
        print(text, file=sys.stderr, flush=True)

    def start(self) -> dict[str, Any]:
        """Starts the engines and gives them the images: their versions."""
        work, found = Path(self.settings["work"]), {}
        pause = work / "pause.tar"
        pause_archive(pause)
        for name in self.settings["engines"]:
            with self.void_on_failure(name):
                paths, time_out = self.settings["programs"], float(self.settings["time_out_s"])
                engine = make(name, work / name, paths, self.settings["name"], time_out)
                self.engines.append(engine)
                engine.start()
                for archive in (self.settings["archive"], str(pause)):
                    engine.ok(*engine.load, archive)
                found[name] = host.versions(engine, paths)
                # what an engine does only once is not timed
                self._chain(Pod.new(engine, _IMAGE), OPERATIONS)
        return found

    def _chain(self, pod: Pod, operations: Iterable[str]) -> dict[str, float]:
        """Seconds of some calls for one pod, one after another."""
        return {operation: pod.do(operation) for operation in operations}

    def serial(self) -> None:
        """Each call for all pods of an engine, then for all of the next one."""
        count = self.settings["serial"]
        for repeat in range(self.settings["repeats"]):
            pods = {
                engine.name: [Pod.new(engine, _IMAGE) for _ in range(count)]
                for engine in self.sound
            }
            for operation in OPERATIONS:
                for engine in self.sound:
                    with (
                        self.void_on_failure(engine.name),
                        self._cell("serial", operation, engine, repeat) as cell,
                    ):
                        cell["samples_s"] = [pod.do(operation) for pod in pods[engine.name]]
            self.tell(f"serial, repeat {repeat + 1} of {self.settings['repeats']} done")

    @contextlib.contextmanager
    def _cell(
        self, mode: str, operation: str, engine: CriEngine, repeat: int
    ) -> Iterator[dict[str, Any]]:
        """What is measured once the machine has come to rest; kept unless it fails."""
        assert engine.cpu is not None
        self.restless += not tree.settle(self.root)
        cell: dict[str, Any] = {"mode": mode, "operation": operation, "engine": engine.name}
        cell["repeat"] = repeat
        used, began = engine.cpu.used_s(), time.perf_counter()
        yield cell
        cell["elapsed_s"] = time.perf_counter() - began
        # what goes on after the answer belongs to the call too
        self.restless += not tree.settle(self.root)
        cell["cpu_s"] = engine.cpu.used_s() - used
        self.cells.append(cell)

    def parallel(self) -> None:
        """Many pods at once, up and down, and the lists while they are there."""
        count = self.settings["parallel"]
        for repeat in range(self.settings["repeats"] if count else 0):
            for engine in self.sound:
                with self.void_on_failure(engine.name):
                    pods = [Pod.new(engine, _IMAGE) for _ in range(count)]
                    self._at_once("up", UP, engine, pods, repeat)
                    for method in LISTS:
                        with self._cell("lists", method, engine, repeat) as cell:
                            calls = [engine.call.timed(method) for _ in range(_LIST_CALLS)]
                        cell["samples_s"] = [seconds for _, seconds in calls]
                    self._at_once("down", DOWN, engine, pods, repeat)
            self.tell(f"parallel, repeat {repeat + 1} of {self.settings['repeats']} done")

    def _at_once(
        self, name: str, operations: Sequence[str], engine: CriEngine, pods: list[Pod], repeat: int
    ) -> None:
        with ThreadPoolExecutor(len(pods)) as threads:
            with self._cell("parallel", name, engine, repeat) as cell:
                found = list(threads.map(lambda pod: self._chain(pod, operations), pods))
            cell["samples_s"] = [sum(chain.values()) for chain in found]

    def count_processes(self) -> None:
        """What each call for one pod starts."""
        for engine in self.sound:
            with self.void_on_failure(engine.name):
                pod = Pod.new(engine, _IMAGE)
                file = Path(self.settings["work"], "accounting")
                for operation in OPERATIONS:
                    tree.settle(self.root)
                    with spawned(self.root, file) as found:
                        pod.do(operation)
                        tree.settle(self.root)
                    self.processes.setdefault(engine.name, {})[operation] = found.names

    def measure_memory(self) -> None:
        """Memory of each engine, started anew and alone."""
        count = self.settings["memory"]
        for engine in self.sound if count else ():
            self.tell(f"memory of {engine.name}")

            def run(engine: CriEngine = engine) -> None:
                for _ in range(count):
                    self._chain(Pod.new(engine, _IMAGE), UP)

            with self.void_on_failure(engine.name):
                try:
                    engine.start()
                    self.memory[engine.name] = memory.around(run, count, self.root, _PAUSES)
                finally:
                    engine.remove_all()
                    engine.stop()

    def stop(self) -> None:
        """Removes all pods and ends the engines."""
        for engine in self.engines:
            engine.remove_all()
            engine.stop()

    def result(self) -> dict[str, Any]:
        """Everything measured by engines that did not fail."""
        failed = self.failures
        return {
            "valid": not failed,
            "failures": failed,
            "restless": self.restless,
            "cells": [cell for cell in self.cells if cell["engine"] not in failed],
            "memory": {name: found for name, found in self.memory.items() if name not in failed},
            "processes": self.processes,
            "settings": {
                key: self.settings[key]
                for key in ("engines", "serial", "parallel", "memory", "repeats", "seed")
            },
        }


def main(path: str) -> int:
    """Runs what the settings file at ``path`` says: 1 when an engine's figures are void."""
    settings = json.loads(Path(path).read_text())
    sandbox.settle_in()
    run = _Run(settings=settings, rng=random.Random(settings["seed"]))
    began = time.time()
    document: dict[str, Any] = {"format": 1, "began": began, "host": host.facts()}
    try:
        document["versions"] = run.start()
        run.serial()
        run.parallel()
        run.count_processes()
        run.stop()
        run.measure_memory()
    finally:
        run.stop()
    document.update(run.result(), seconds=round(time.time() - began))
    cri_report.write(document, Path(settings["output"]))
    return 0 if document["valid"] else 1


if __name__ == "__main__":
    sandbox.run(main)
