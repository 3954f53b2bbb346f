"""Flags and settings; the first word ``images`` measures pulls, ``cri`` what a kubelet calls."""

from __future__ import annotations

import argparse
import dataclasses
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import config as settings_file
from benchmarks import sandbox
from benchmarks.config import Config, ConfigError

_ROOT = Path(__file__).resolve().parent.parent
_LEVELS = {"DEBUG": 0, "INFO": 1, "WARN": 2, "ERROR": 3}


def _flags(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("-c", "--config", type=Path, default=Path(__file__).with_name("ptcr.yml"))
    add("-o", "--output", metavar="FILE", help="JSON result; the table is written beside it")
    add("-l", "--loglever", choices=_LEVELS, help="how much is told; failures always")
    add("-s", "--sCount", type=int, metavar="N", help="commands one after another")
    add("-p", "--pCount", type=int, metavar="N", help="commands at once")
    add("-r", "--repeats", type=int, metavar="N", help="repeats of everything")
    add("-e", "--engines", metavar="LIST", help=f"some of {','.join(settings_file.ENGINES)}")
    add("-m", "--memory", type=int, metavar="N", help="containers of the memory part, 0: none")
    add("-i", "--image-archive", metavar="FILE", help="docker archive that holds the image")
    add("--program", action="append", default=[], metavar="NAME=PATH", help="program to use")
    add("--work", default="/var/tmp", metavar="DIR", help="where the engines keep their files")
    add("--seed", type=int, help="of the order of the engines")
    return parser.parse_args(argv)


def _settings(flags: argparse.Namespace) -> Config:
    """The settings file, overridden by flags."""
    values = dataclasses.asdict(settings_file.read(flags.config))
    overrides = {
        "out_put_file": flags.output,
        "serial": flags.sCount,
        "parallel": flags.pCount,
        "repeats": flags.repeats,
        "memory_shim_count": flags.memory,
        "image_archive": flags.image_archive,
        "runtime_names": flags.engines.split(",") if flags.engines else None,
        "log_lever": _LEVELS.get(flags.loglever),
    }
    values.update({key: value for key, value in overrides.items() if value is not None})
    values["programs"] = settings_file.programs(flags.program, values["programs"])
    return settings_file.parse(values)


def _archive(config: Config) -> Path:
    """The image's archive; the one of the repository is made when it is missing."""
    archive = Path(config.image_archive).absolute()
    if not archive.exists() and config.image_archive == Config().image_archive:
        subprocess.run([sys.executable, "ci/images", archive.parent], cwd=_ROOT, check=True)
    if not archive.exists():
        raise ConfigError(f"{archive}: no such file")
    return archive


def _document(config: Config, flags: argparse.Namespace, archive: Path) -> dict[str, Any]:
    """What the harness in the sandbox needs to know."""
    return {
        "harness": "benchmarks.harness",
        "config": dataclasses.asdict(config),
        "archive": str(archive),
        "seed": random.randrange(1 << 32) if flags.seed is None else flags.seed,
    }


def main(argv: list[str]) -> int:
    """Runs what flags and settings say; does not return unless they cannot be used."""
    if os.geteuid() != 0:
        print("benchmarks: run it as root", file=sys.stderr)
        return 2
    try:
        if argv[:1] == ["images"]:
            from benchmarks import images

            return images.command(argv[1:], _ROOT)
        if argv[:1] == ["cri"]:
            from benchmarks import cri

            return cri.command(argv[1:], _ROOT, _archive(Config()))
        flags = _flags(argv)
        config = _settings(flags)
        document = _document(config, flags, _archive(config))
        sandbox.enter(document, Path(config.out_put_file), flags.work, _ROOT)
    except (ConfigError, OSError) as e:
        print(f"benchmarks: {e}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
