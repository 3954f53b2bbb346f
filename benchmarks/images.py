"""How engines bring images: time, memory, wear of the disk, bytes over a link that is cut.

``python -m benchmarks images --help``; inside the sandbox this module is run with the path of
its settings.  Every engine has a file system on a block device of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import engines, host, image_report, image_sets, process, sandbox, tree, watch
from benchmarks.config import ConfigError, programs
from benchmarks.disk import Disk
from benchmarks.engines import Engine, EngineError
from benchmarks.registry import CUTTING, PLAIN, Registry
from benchmarks.soundness import Soundness

__all__ = ["command", "main"]

_ENGINES = ("isula", "docker", "podman")
_DISK_BYTES = 8 << 30
_CUTS = (0.25, 0.5, 0.75)
_CUT_IMAGE = "medium"
_FOLDER = Path("build/benchmarks/images")


def command(argv: list[str], root: Path) -> int:
    """Reads flags, makes the images and goes on in the sandbox; returns only on failure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks images", description=__doc__)
    names = [item.name for item in image_sets.SETS]
    add = parser.add_argument
    add("-o", "--output", metavar="FILE", default="build/benchmarks/images.json")
    add("-r", "--repeats", type=int, default=3, metavar="N", help="pulls of each image")
    add("-e", "--engines", metavar="LIST", default=",".join(_ENGINES))
    add("--images", metavar="LIST", default=",".join(names), help=f"some of {','.join(names)}")
    add("--no-cut", action="store_true", help="leave out the pulls over a link that is cut")
    add("--program", action="append", default=[], metavar="NAME=PATH", help="program to use")
    add("--work", default="/var/tmp", metavar="DIR", help="where the engines keep their files")
    add("--time-out", type=int, default=600, metavar="S", help="of one pull")
    add("--seed", type=int, help="of the order of the engines")
    flags = parser.parse_args(argv)
    chosen, wanted = flags.engines.split(","), flags.images.split(",")
    if not set(chosen) <= set(_ENGINES) or not set(wanted) <= set(names) or flags.repeats < 1:
        raise ConfigError(f"engines are {_ENGINES}, images are {names}, repeats 1 or more")
    layouts = {}
    for item in image_sets.SETS:
        if item.name in wanted or (item.name == _CUT_IMAGE and not flags.no_cut):
            layouts[item.name] = str(image_sets.make(root / _FOLDER, item))
    document = {
        "harness": "benchmarks.images",
        "engines": chosen,
        "images": wanted,
        "layouts": layouts,
        "repeats": flags.repeats,
        "cuts": [] if flags.no_cut else list(_CUTS),
        "programs": programs(flags.program, {}),
        "time_out_s": flags.time_out,
        "seed": random.randrange(1 << 32) if flags.seed is None else flags.seed,
    }
    sandbox.enter(document, Path(flags.output), flags.work, root)


@dataclass(slots=True, kw_only=True)
class _Run(Soundness[Engine]):
    """The state of a run; an engine that fails is left out from then on."""

    settings: dict[str, Any]
    registry: Registry
    disks: dict[str, Disk] = field(default_factory=dict)
    pulls: list[dict[str, Any]] = field(default_factory=list)
    cuts: dict[str, dict[str, Any]] = field(default_factory=dict)
    unpacked: dict[str, dict[str, Any]] = field(default_factory=dict)

    def disk(self, name: str) -> Disk:
        """A new file system for an engine."""
        folder = Path(self.settings["work"])
        disk = Disk(folder / f"{name}.ext4", folder / name, _DISK_BYTES)
        self.disks[name] = disk
        return disk

    def start(self) -> dict[str, Any]:
        """Starts registry and engines: versions of the engines."""
        self.registry.start()
        for name, layout in self.settings["layouts"].items():
            self.registry.push(Path(layout), name)
        found = {}
        paths = self.settings["programs"]
        for name in self.settings["engines"]:
            with self.void_on_failure(name):
                # Podman takes no run root whose path has more than 50 characters
                folder = self.disk(name).place / "own"
                time_out = float(self.settings["time_out_s"])
                engine = engines.make(name, folder, paths, self.settings["name"], time_out)
                if name == "isula":
                    insecure = {"insecure-registries": [PLAIN, CUTTING]}
                    (folder / "daemon.json").write_text(json.dumps(insecure))
                temporary = folder / "temporary"
                temporary.mkdir()
                # Podman would download to another file system
                engine.variables = {**engine.variables, "TMPDIR": str(temporary)}
                self.engines.append(engine)
                engine.start()
                found[name] = host.versions(engine, paths)
        return found

    def measure_unpacked(self) -> None:
        """What the layers are on such a file system when tar alone unpacks them."""
        disk = self.disk("tar")
        env = {"PATH": engines.PATH, "LANG": "C.UTF-8"}
        for name in self.settings["layouts"]:
            folder = disk.place / name
            words = ["set -e"]
            for number, digest in enumerate(_layers(Path(self.settings["layouts"][name]))):
                words.append(f"mkdir -p {folder}/{number}; tar -xzpf {digest} -C {folder}/{number}")
            log = f"{self.settings['work']}/tar.log"
            argv = ("/bin/sh", "-c", "; ".join(words))
            done = watch.run(argv, env, disk, lambda _client: set(), timeout_s=600, log=log)
            if done.status != 0:
                raise EngineError(f"tar: {Path(log).read_text()[-500:]}")
            self.unpacked[name] = dataclasses.asdict(done)

    def measure(self) -> None:
        """All repeats of all images, the engines taking turns."""
        for repeat in range(self.settings["repeats"]):
            for image in self.settings["images"]:
                for engine in self.sound:
                    with self.void_on_failure(engine.name):
                        found = self._pull(engine, f"{PLAIN}/{image}:latest")
                        self.pulls.append(
                            {"engine": engine.name, "image": image, "repeat": repeat, **found}
                        )
            print(f"repeat {repeat + 1} of {self.settings['repeats']} done", file=sys.stderr)

    def measure_cuts(self) -> None:
        """One pull by each engine over connections that are cut."""
        for engine in self.sound if self.settings["cuts"] else ():
            self.registry.cut(*self.settings["cuts"])
            try:
                found = self._pull(engine, f"{CUTTING}/{_CUT_IMAGE}:latest")
                self.cuts[engine.name] = {**found, "sent_bytes": self.registry.sent_bytes()}
            except EngineError as e:
                # an engine that gives up is a result
                said = (engine.folder / "client.log").read_text(errors="replace").splitlines()
                self.cuts[engine.name] = {"failure": said[-1] if said else str(e)}

    def _pull(self, engine: Engine, ref: str) -> dict[str, Any]:
        """One pull into a store without images."""
        tree.settle(os.getppid())
        plain = ("--tls-verify=false",) if engine.name == "podman" else ()
        log = engine.folder / "client.log"
        log.unlink(missing_ok=True)
        argv = engine.words("pull", *plain, ref)

        def processes(client: int) -> set[int]:
            return self._processes(engine, client)

        found = watch.run(
            argv,
            engine.env,
            self.disks[engine.name],
            processes,
            timeout_s=engine.time_out_s,
            log=str(log),
        )
        if found.status != 0 or found.timed_out:
            said = process.Output(found.status, "", log.read_text(errors="replace")[-2000:])
            raise EngineError(engine.report(argv, said))
        engine.ok("rmi", ref)
        return dataclasses.asdict(found)

    def _processes(self, engine: Engine, client: int) -> set[int]:
        """The engine's processes; the client is one where there is no daemon."""
        others = {os.getpid(), *self.registry.pids}
        for other in self.engines:
            if other is not engine:
                others.update(other.daemon_pids)
        if engine.daemon:
            others.add(client)
        return set(tree.descendants(os.getppid())) - others

    def stop(self) -> None:
        """Ends everything."""
        for engine in self.engines:
            engine.stop()
        self.registry.stop()
        for disk in self.disks.values():
            disk.close()


def _manifest(layout: Path) -> dict[str, Any]:
    """The manifest of the one image of a layout."""
    entry = json.loads((layout / "index.json").read_text())["manifests"][0]
    found: dict[str, Any] = json.loads(_blob(layout, entry["digest"]).read_text())
    return found


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def _layers(layout: Path) -> list[Path]:
    return [_blob(layout, layer["digest"]) for layer in _manifest(layout)["layers"]]


def main(path: str) -> int:
    """Runs what the settings file at ``path`` says: 1 when an engine's figures are void."""
    settings = json.loads(Path(path).read_text())
    sandbox.settle_in()
    registry = Registry(Path(settings["work"]) / "registry", settings["programs"])
    run = _Run(settings=settings, registry=registry, rng=random.Random(settings["seed"]))
    began = time.time()
    document: dict[str, Any] = {"format": 1, "began": began, "host": host.facts()}
    try:
        document["versions"] = run.start()
        run.measure_unpacked()
        run.measure()
        run.measure_cuts()
    finally:
        run.stop()
    sizes = {
        name: sum(layer.stat().st_size for layer in _layers(Path(layout)))
        for name, layout in settings["layouts"].items()
    }
    document.update(
        valid=not run.failures,
        failures=run.failures,
        pulls=[pull for pull in run.pulls if pull["engine"] not in run.failures],
        cuts=run.cuts,
        unpacked=run.unpacked,
        compressed_bytes=sizes,
        cut_image=_CUT_IMAGE,
        settings={key: settings[key] for key in ("engines", "images", "repeats", "cuts", "seed")},
        seconds=round(time.time() - began),
    )
    image_report.write(document, Path(settings["output"]))
    return 0 if document["valid"] else 1


if __name__ == "__main__":
    try:
        sandbox.run(main)
    except EngineError as e:
        sys.exit(f"benchmarks: {e}")
