"""One run, inside the sandbox: starts all engines, measures, stops them, writes the result."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import engines, host, memory, operations, process, report, sandbox, tree
from benchmarks.config import parse
from benchmarks.engines import Engine, EngineError
from benchmarks.soundness import Soundness
from benchmarks.statistics import Sample, VoidRunError, summarise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.config import Config

__all__ = ["main"]

_INFO = 1


@dataclass(slots=True)
class Cell:
    """Samples of one operation on one engine in one repeat."""

    mode: str
    operation: str
    engine: str
    repeat: int
    samples: list[Sample]
    elapsed_s: float | None  # None where operations were mixed
    daemon_cpu_s: float | None


@dataclass(slots=True, kw_only=True)
class Run(Soundness[Engine]):
    """The state of a run; an engine that fails is left out from then on."""

    config: Config
    root: int
    cells: list[Cell] = field(default_factory=list)
    memory: dict[str, Any] = field(default_factory=dict)
    restless: int = 0

    def tell(self, text: str) -> None:
        """Says how far the run is, if ptcr's level lets it."""
        if self.config.log_lever <= _INFO:
            print(text, file=sys.stderr, flush=True)

    def measure(self, mode: str, count: int) -> None:
        """All repeats of the serial or of the parallel run."""
        for repeat in range(self.config.repeats if count else 0):
            chains = {
                engine.name: [operations.chain(engine, self.config) for _ in range(count)]
                for engine in self.sound
            }
            if self.config.mixed_cmd:
                for engine in self.sound:
                    with self.void_on_failure(engine.name):
                        self._batch(mode, repeat, engine, chains[engine.name])
            else:
                self._by_operation(mode, repeat, chains)
            self.tell(f"{mode}, repeat {repeat + 1} of {self.config.repeats} done")

    def _by_operation(
        self, mode: str, repeat: int, chains: dict[str, list[list[process.Step]]]
    ) -> None:
        """Each operation on all engines before the next operation."""
        length = max((len(chain[0]) for chain in chains.values()), default=0)
        for index in range(length):
            for engine in self.sound:
                with self.void_on_failure(engine.name):
                    steps = [[chain[index]] for chain in chains[engine.name]]
                    self._batch(mode, repeat, engine, steps)

    def _batch(
        self, mode: str, repeat: int, engine: Engine, chains: list[list[process.Step]]
    ) -> None:
        """Times some commands, and keeps their samples if all succeeded."""
        self.restless += not tree.settle(self.root)
        before = tree.cpu_s(engine.daemon_pids)
        began = time.perf_counter()
        samples: list[Sample] = []
        for group in [chains] if mode == "parallel" else [[chain] for chain in chains]:
            batch = process.run_chains(group, engine.env, self.config.command_time_out_s)
            samples += batch.samples
            self._check(engine, batch.samples)
        elapsed = time.perf_counter() - began
        used = tree.cpu_s(engine.daemon_pids) - before
        single = len(chains[0]) == 1
        for operation in operations.OPERATIONS:
            mine = [sample for sample in samples if sample.operation == operation]
            if mine:
                cell = Cell(mode, operation, engine.name, repeat, mine, None, None)
                if single:
                    cell.elapsed_s, cell.daemon_cpu_s = elapsed, used
                self.cells.append(cell)

    def _check(self, engine: Engine, samples: Sequence[Sample]) -> None:
        """Raises EngineError with the words of the first failing command, run once more."""
        failed = [sample for sample in samples if sample.failed]
        if not failed:
            return
        again = process.capture(failed[0].argv, engine.env, engine.time_out_s)
        how = "timed out" if failed[0].timed_out else f"ended with {failed[0].status}"
        raise EngineError(
            f"{failed[0].operation}: {len(failed)} of {len(samples)} failed, the first {how}; "
            f"run once more: {engine.report(failed[0].argv, again)}"
        )

    def measure_memory(self) -> None:
        """Memory of each engine, started anew and alone."""
        for engine in self.sound:
            with self.void_on_failure(engine.name):
                try:
                    engine.start()
                    self.tell(f"memory of {engine.name}")
                    self.memory[engine.name] = memory.measure(engine, self.config, self.root)
                finally:
                    engine.remove_all()
                    engine.stop()

    def result(self) -> dict[str, Any]:
        """Everything measured, for the JSON file."""
        return {
            "valid": not self.failures,
            "failures": self.failures,
            "restless_batches": self.restless,
            "figures": self._figures(),
            "memory": {
                name: value for name, value in self.memory.items() if name not in self.failures
            },
            "cells": [_cell_document(cell) for cell in self.cells],
        }

    def _figures(self) -> dict[str, Any]:
        """Figures by mode, operation and engine; engines that failed have none."""
        found: dict[str, Any] = {}
        for mode in ("serial", "parallel"):
            for operation in operations.OPERATIONS:
                for engine in self.engines:
                    cells = [
                        cell
                        for cell in self.cells
                        if (cell.mode, cell.operation, cell.engine)
                        == (mode, operation, engine.name)
                    ]
                    with contextlib.suppress(VoidRunError):
                        if engine.name not in self.failures:
                            value = report.figures(cells, summarise([c.samples for c in cells]))
                            table = found.setdefault(mode, {}).setdefault(operation, {})
                            table[engine.name] = value
        return found


def _cell_document(cell: Cell) -> dict[str, Any]:
    return {
        "mode": cell.mode,
        "operation": cell.operation,
        "engine": cell.engine,
        "repeat": cell.repeat,
        "samples_ms": [round(sample.wall_s * 1000, 3) for sample in cell.samples],
        "client_cpu_ms": [round(sample.cpu_s * 1000, 3) for sample in cell.samples],
        "elapsed_ms": None if cell.elapsed_s is None else round(cell.elapsed_s * 1000, 3),
        "daemon_cpu_ms": None if cell.daemon_cpu_s is None else round(cell.daemon_cpu_s * 1000),
    }


def _start(run: Run, settings: dict[str, Any]) -> dict[str, Any]:
    """Makes and starts the engines and loads the image: their versions."""
    found = {}
    for name in run.config.runtime_names:
        engine = Engine(name, Path(), (), ())
        with run.void_on_failure(engine.name):
            engine = engines.make(
                name,
                Path(settings["work"]) / name,
                run.config.programs,
                settings["name"],
                run.config.command_time_out_s,
            )
            run.engines.append(engine)
            engine.start()
            engine.ok("load", "-i", settings["archive"])
            found[name] = host.versions(engine, run.config.programs)
    return found


def _stop(run: Run) -> None:
    for engine in run.engines:
        engine.remove_all()
        engine.stop()


def main(path: str) -> int:
    """Runs what the settings file at ``path`` says: 1 when an engine's figures are void."""
    settings = json.loads(Path(path).read_text())
    config = parse(settings["config"])
    sandbox.settle_in()
    run = Run(config=config, rng=random.Random(settings["seed"]), root=os.getppid())
    began = time.time()
    document: dict[str, Any] = {"format": 1, "began": began, "host": host.facts()}
    try:
        document["versions"] = _start(run, settings)
        run.measure("serial", config.serial)
        run.measure("parallel", config.parallel)
        _stop(run)
        if config.memory_shim_count:
            run.measure_memory()
    finally:
        _stop(run)
    document.update(run.result())
    document["config"] = dataclasses.asdict(config)
    document["seed"], document["seconds"] = settings["seed"], round(time.time() - began)
    report.write(document, Path(settings["output"]))
    return 0 if document["valid"] else 1


if __name__ == "__main__":
    sandbox.run(main)
