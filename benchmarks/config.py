"""What is measured: the keys of ptcr's file, some of our own, and the flags that override it."""

from __future__ import annotations

import json
import sys
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ENGINES", "Config", "ConfigError", "parse", "programs", "read"]

ENGINES = ("isula", "isula-runc", "docker", "podman")
"""Every name that ``runtime_names`` may hold."""
_PUBLISHED_COMMAND = ("/bin/sh", "-c", "while true; do echo hello world; sleep 1; done")
_COUNT_KEYS = {"serially": "serial", "parallelly": "parallel", "parallerlly": "parallel"}
_DEFAULT_COUNT = 10
_MOST = 1000


class ConfigError(ValueError):
    """A settings file that cannot be used."""


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of one run; names and defaults are those of ptcr where it has them."""

    image_name: str = "busybox"
    mixed_cmd: bool = True
    serial: int = _DEFAULT_COUNT
    parallel: int = _DEFAULT_COUNT
    runtime_names: tuple[str, ...] = ENGINES
    start_cmd: tuple[str, ...] = _PUBLISHED_COMMAND
    time_out: int = 1
    out_put_file: str = "build/benchmarks/result.json"
    memory_shim_count: int = 10
    log_lever: int = 3
    # of our own
    repeats: int = 3
    image_archive: str = "build/images/docker.tar"
    command_time_out_s: int = 120
    programs: Mapping[str, str] = field(default_factory=dict)


def read(path: Path) -> Config:
    """The settings in a YAML, TOML or JSON file; ConfigError when they cannot be used."""
    text = path.read_text(encoding="utf-8")
    try:
        if path.suffix == ".toml":
            document: object = tomllib.loads(text)
        elif path.suffix == ".json":
            document = json.loads(text)
        else:
            document = _yaml(text)
    except ValueError as e:
        raise ConfigError(f"{path}: {e}") from e
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: not a mapping")
    return parse(document)


def _yaml(text: str) -> object:
    try:
        import yaml
    except ImportError as e:
        raise ConfigError("PyYAML is not installed: install it, or write TOML") from e
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise ConfigError(str(e)) from e


def programs(words: Sequence[str], others: Mapping[str, str]) -> dict[str, str]:
    """Paths of programs: ``words`` are NAME=PATH; the engine beside this Python if none is named.

    ConfigError for a word of another form.
    """
    found = dict(others)
    for word in words:
        name, separator, path = word.partition("=")
        if not separator:
            raise ConfigError(f"--program {word}: not NAME=PATH")
        found[name] = path
    for name in ("isula", "isulad"):
        beside = Path(sys.executable).with_name(name)
        if beside.exists():
            found.setdefault(name, str(beside))
    return found


def parse(document: Mapping[str, Any]) -> Config:
    """Settings from a mapping with ptcr's keys; ConfigError names the key that is wrong."""
    values = dict(document)
    counts = values.pop("measure_count", None) or {}
    if values.pop("runtime_endpoint", None):
        raise ConfigError("runtime_endpoint: CRI is not measured by this harness")
    values.pop("daemon_name", None)  # every process of an engine is found by descent
    if not isinstance(counts, dict):
        raise ConfigError("measure_count: not a mapping")
    for key, value in counts.items():
        if key not in _COUNT_KEYS:
            raise ConfigError(f"measure_count.{key}: unknown")
        values[_COUNT_KEYS[key]] = value
    known = {item.name for item in fields(Config)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(f"{unknown[0]}: unknown")
    return _checked({key: _typed(key, value) for key, value in values.items()})


def _typed(key: str, value: object) -> object:
    """The value in the type of its key."""
    default = getattr(Config(), key)
    if isinstance(default, bool) and value in (0, 1):
        return bool(value)
    if isinstance(default, tuple) and isinstance(value, str):
        return (value,)
    if isinstance(default, tuple) and isinstance(value, list | tuple):
        return tuple(str(item) for item in value)
    if isinstance(default, dict) and isinstance(value, dict):
        return {str(name): str(path) for name, path in value.items()}
    if type(value) is not type(default):
        raise ConfigError(f"{key}: {value!r} is not a {type(default).__name__}")
    return value


def _checked(values: dict[str, Any]) -> Config:
    config = Config(**values)
    for name in config.runtime_names:
        if name not in ENGINES:
            raise ConfigError(f"runtime_names: {name} is none of {', '.join(ENGINES)}")
    if len(set(config.runtime_names)) != len(config.runtime_names) or not config.runtime_names:
        raise ConfigError("runtime_names: each engine once, and at least one")
    least = {"repeats": 1, "command_time_out_s": 1}
    for key in ("serial", "parallel", "memory_shim_count", "repeats", "command_time_out_s"):
        if not least.get(key, 0) <= getattr(config, key) <= _MOST:
            raise ConfigError(f"{key}: not between {least.get(key, 0)} and {_MOST}")
    if config.time_out < 0:
        raise ConfigError("time_out: negative")
    return config
