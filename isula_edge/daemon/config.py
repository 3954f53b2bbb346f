"""Settings of the daemon: built-in defaults, then daemon.json, then the command line."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.daemon import cri_config, keys, runtimes
from isula_edge.image.hosts import canonical
from isula_edge.oci import values
from isula_edge.service import storage_options
from isula_edge.service.config import EngineConfig
from isula_edge.service.small import GC_OFF
from isula_edge.version import COMMIT, VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isula_edge.snapshot.base import StorageOptions

__all__ = ["DEFAULT_FILE", "DaemonConfig", "load", "parse_arguments"]

DEFAULT_FILE = "/etc/isulad/daemon.json"
_DEFAULT_HOST = "unix:///var/run/isulad.sock"
_MAX_HOSTS = 10
_LOG_OPTIONS = ("log-file-mode", "max-file", "max-size", "log-path")


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """Everything ``isulad`` was told.  ``problems`` are what ``--validate`` calls errors."""

    engine: EngineConfig
    hosts: tuple[str, ...] = (_DEFAULT_HOST,)
    group: str = "isula"
    pidfile: str = "/var/run/isulad.pid"
    log_level: str = "INFO"
    log_driver: str = "file"
    log_options: dict[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The command line; exits with status 1 for what cannot be understood."""
    parser = _Parser(
        prog="isulad", description="Lean container engine.", allow_abbrev=False, add_help=False
    )
    add = parser.add_argument
    add("--help", action="help", help="show this text")
    add("-V", "--version", action="version", version=f"Version {VERSION}, commit {COMMIT}")
    add("--config", metavar="FILE", type=os.path.abspath, help=f"settings ({DEFAULT_FILE})")
    add("--validate", action="store_true", help="check the settings and exit")
    add("-H", "--host", action="append", metavar="ADDRESS", help=f"socket ({_DEFAULT_HOST})")
    for flag, key, text in (
        ("-G --group", "group", "group of the socket (isula)"),
        ("-g --graph", "graph", "root directory (/var/lib/isulad)"),
        ("-S --state", "state", "directory of what a reboot ends (/var/run/isulad)"),
        ("-p --pidfile", "pidfile", "file of the process id (/var/run/isulad.pid)"),
        ("--default-runtime", "default-runtime", "runtime of containers (lxc)"),
        ("-l --log-level", "log-level", "how much is logged (INFO)"),
        ("--log-driver", "log-driver", "file, stdout, stderr or syslog (file)"),
        ("--hook-spec", "hook-spec", "OCI hooks of every container"),
        ("--storage-driver", "storage-driver", "overlay, overlay1 or vfs"),
        ("--cgroup-parent", "cgroup-parent", "cgroup of containers (/isulad)"),
    ):
        add(*flag.split(), dest=key, metavar="VALUE", help=text)
    for flag, key, text in (
        ("--registry-mirrors", "registry-mirrors", "registry that is asked first"),
        ("--insecure-registry", "insecure-registries", "registry without TLS"),
        ("-s --storage-opt", "storage-opts", "option of the storage driver"),
        ("--default-ulimit", "default-ulimit", "NAME=SOFT[:HARD] of containers"),
        ("--log-opt", "log-opt", "NAME=VALUE of the log"),
        ("--container-log-opts", "container-log-opts", "NAME=VALUE of containers' logs"),
    ):
        add(*flag.split(), dest=key, action="append", metavar="VALUE", help=text)
    add(
        "--insecure-skip-verify-enforce",
        dest="insecure-skip-verify-enforce",
        action="store_true",
        default=None,
        help="do not verify any registry's certificate",
    )
    return parser.parse_args(argv)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        """One line, and iSulad's exit status."""
        self.exit(1, f"isulad: {message}\nSee isulad --help.\n")


def load(options: argparse.Namespace) -> DaemonConfig:
    """Settings from daemon.json and ``options``.

    Raises InvalidArgument (one line: file, key, what is wrong) for what cannot be used.
    """
    path = options.config or DEFAULT_FILE
    table, problems = _read(path, needed=bool(options.config))
    return _build(table, vars(options), path, problems)


def _document(path: str, *, needed: bool) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError as error:
        if needed:
            raise errors.InvalidArgument(f"{path}: {error.strerror}") from error
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise errors.InvalidArgument(f"{path}: {error}") from error
    try:
        table = json.loads(text, object_pairs_hook=_unique) if text.strip() else {}
    except json.JSONDecodeError as error:
        raise errors.InvalidArgument(
            f"{path}: line {error.lineno}, column {error.colno}: {error.msg}"
        ) from error
    except errors.InvalidArgument as error:
        raise errors.InvalidArgument(f"{path}: {error.message}") from error
    except (RecursionError, ValueError) as error:
        raise errors.InvalidArgument(f"{path}: no JSON that can be read: {error}") from error
    if not isinstance(table, dict):
        raise errors.InvalidArgument(f"{path}: the top level must be an object")
    return table


def _read(path: str, *, needed: bool) -> tuple[dict[str, Any], list[str]]:
    table = _document(path, needed=needed)
    idle, unknown = [], []
    for key, value in table.items():
        kind = keys.EFFECTIVE.get(key) or keys.NO_EFFECT.get(key)
        if kind is None:
            unknown.append(key)
            continue
        try:
            keys.check(key, kind, value)
        except errors.InvalidArgument as error:
            raise errors.InvalidArgument(f"{path}: {error.message}", ref=key) from error
        if key in keys.NO_EFFECT and value not in ("", False, [], {}):
            idle.append(key)
    problems = []
    if unknown:
        problems.append(f"{path}: unknown: {', '.join(unknown)}")
    if idle:
        problems.append(f"{path}: without effect in this version: {', '.join(idle)}")
    return table, problems


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [key for key, _ in pairs]
        twice = next(key for key in names if names.count(key) > 1)
        raise errors.InvalidArgument(f"{twice} stands there twice", ref=twice)
    return found


def _build(
    table: dict[str, Any], options: dict[str, Any], path: str, problems: list[str]
) -> DaemonConfig:
    def one(key: str, default: Any) -> Any:
        given = options.get(key)
        if given is not None:
            kind = keys.EFFECTIVE[key]
            try:
                keys.check(f"--{key}", kind, given)
            except errors.InvalidArgument as error:
                raise errors.InvalidArgument(f"isulad: {error.message}") from error
            return given
        found = table.get(key)
        return default if found in (None, "") else found

    def many(key: str) -> tuple[str, ...]:
        return (*table.get(key, ()), *(options.get(key) or ()))

    engine = EngineConfig(
        # runtimes take no links in paths
        graph=os.path.realpath(one("graph", "/var/lib/isulad")),
        state=os.path.realpath(one("state", "/var/run/isulad")),
        storage_driver=one("storage-driver", ""),
        storage_options=_storage_options(many("storage-opts"), path),
        default_runtime=one("default-runtime", ""),
        **_runtimes(table, path),
        registry_mirrors=many("registry-mirrors"),
        insecure_registries=many("insecure-registries"),
        registry_host_mirrors={
            canonical(host): tuple(mirrors)
            for host, mirrors in table.get("registry-host-mirrors", {}).items()
        },
        clock_timeout_s=keys.seconds(one("clock-timeout", "10m")) or 0.0,
        insecure_skip_verify=one("insecure-skip-verify-enforce", False),
        certs_dir=one("certs-dir", "/etc/isulad/certs.d"),
        auth_file=one("auth-file", "/root/.isulad/config.json"),
        max_concurrent_downloads=one("max-concurrent-downloads", 0),
        max_download_rate=keys.size(one("max-download-rate", 0)) or 0,
        default_ulimits=_ulimits(table, options, path),
        hook_spec=one("hook-spec", ""),
        seccomp_profile=one("seccomp-profile", ""),
        log_max_size=_container_log(table, options, path, problems),
        tmpdir=_tmpdir(),
        image_layer_check=one("image-layer-check", False),
        **_cgroups(one("cgroup-parent", ""), one("systemd-cgroup", False), path),
        **_watermarks(table, path),
        cri=cri_config.parse(table, path),
    )
    hosts = _hosts(table.get("hosts") or (), options.get("host") or (), path)
    cri_config.check_hosts(engine.cri, hosts, path)
    return DaemonConfig(
        engine,
        hosts,
        one("group", "isula"),
        one("pidfile", "/var/run/isulad.pid"),
        one("log-level", "INFO").upper(),
        one("log-driver", "file"),
        _log_options(table, options, path),
        tuple(problems),
    )


def _watermarks(table: dict[str, Any], path: str) -> dict[str, Any]:
    """Per cent of the disk between which unused images are removed; nothing when off."""
    high, low = table.get("image-gc-high") or 0, table.get("image-gc-low") or 0
    if not high:
        # said, it holds on small machines too, which remove images by default
        return {"image_gc_high": GC_OFF} if "image-gc-high" in table else {}
    low = low or max(high - 5, 0)
    if low >= high:
        raise errors.InvalidArgument(
            f"{path}: image-gc-low must be less than image-gc-high ({high}), it is {low}"
        )
    found = {"image_gc_high": high, "image_gc_low": low}
    if table.get("image-gc-min-age", "") != "":
        found["image_gc_min_age"] = keys.seconds(table["image-gc-min-age"])
    return found


def _cgroups(parent: str, systemd: bool, path: str) -> dict[str, Any]:
    """The parent of containers without one of their own: a slice for the systemd driver."""
    if systemd and parent and not parent.endswith(".slice"):
        raise errors.InvalidArgument(
            f"{path}: cgroup-parent must be a slice like system.slice with systemd-cgroup, it is "
            f"{parent}"
        )
    default = "system.slice" if systemd else "/isulad"
    return {"cgroup_parent": parent or default, "systemd_cgroup": systemd}


def _tmpdir() -> str:
    base = os.environ.get("ISULAD_TMPDIR", "").rstrip("/")
    return f"{base}/isulad_tmpdir" if base.startswith("/") and base != "/tmp" else ""


def _hosts(listed: Sequence[str], given: Sequence[str], path: str) -> tuple[str, ...]:
    if listed and given:
        raise errors.InvalidArgument(
            f"{path}: hosts: given there and by --host; leave one of them out"
        )
    hosts = tuple(dict.fromkeys((*listed, *given))) or (_DEFAULT_HOST,)
    if len(hosts) > _MAX_HOSTS:
        raise errors.InvalidArgument(f"{path}: hosts: more than {_MAX_HOSTS} addresses")
    where = f"{path}: hosts" if listed else "isulad: --host"
    for host in hosts:
        if host.startswith("tcp://"):
            raise errors.InvalidArgument(
                f"{where}: {host}: this version listens on unix sockets only"
            )
        if not host.startswith("unix:///") or len(host) < 9:
            raise errors.InvalidArgument(f"{where}: {host} must be unix:///absolute/path")
    return hosts


def _runtimes(table: dict[str, Any], path: str) -> dict[str, Any]:
    try:
        found = runtimes.parse(table.get("runtimes", {}))
    except errors.InvalidArgument as error:
        raise errors.InvalidArgument(f"{path}: {error.message}", ref=error.ref) from error
    return {"runtimes": found, "start_timeout_s": keys.seconds(table.get("start-timeout", 0))}


def _size(key: str, value: str | int, path: str) -> int:
    try:
        return values.parse_size(key, str(value))
    except errors.InvalidArgument as error:
        raise errors.InvalidArgument(
            f"{path}: {key} must be {keys.describe('size')}, it is {value}", kind="key", ref=key
        ) from error


def _storage_options(items: Sequence[str], path: str) -> StorageOptions:
    try:
        return storage_options.parse(items)
    except errors.InvalidArgument as error:
        raise errors.InvalidArgument(
            f"{path}: storage-opts: {error.message}", ref="storage-opts", hint=error.hint
        ) from error


def _pairs(items: Sequence[str] | None, flag: str) -> dict[str, str]:
    found = {}
    for item in items or ():
        key, equals, value = item.partition("=")
        if not equals:
            raise errors.InvalidArgument(f"isulad: {flag} {item}: write NAME=VALUE")
        found[key] = value
    return found


def _log_options(table: dict[str, Any], options: dict[str, Any], path: str) -> dict[str, str]:
    found = {**table.get("log-opts", {}), **_pairs(options.get("log-opt"), "--log-opt")}
    for key, value in found.items():
        if key not in _LOG_OPTIONS:
            raise errors.InvalidArgument(
                f"{path}: log-opts: {key} is unknown; there are {', '.join(_LOG_OPTIONS)}"
            )
        try:
            if key == "max-size" and values.parse_size("max-size", value) < 4096:
                raise errors.InvalidArgument("max-size is less than 4KB")
            if key == "max-file" and int(value) < 1:
                raise ValueError("less than 1")
            if key == "log-file-mode":
                int(value, 8)
        except (ValueError, errors.InvalidArgument) as error:
            raise errors.InvalidArgument(f"{path}: log-opts: {key}: {error}") from error
    return found


def _container_log(
    table: dict[str, Any], options: dict[str, Any], path: str, problems: list[str]
) -> int:
    given = table.get("container-log", {})
    found = {**given.get("opts", {})}
    found |= _pairs(options.get("container-log-opts"), "--container-log-opts")
    if given.get("driver", "json-file") != "json-file":
        problems.append(f"{path}: container-log: only driver json-file has an effect")
    idle = sorted(set(found) - {"max-size"})
    if idle:
        problems.append(f"{path}: container-log without effect in this version: {', '.join(idle)}")
    if "max-size" not in found:
        return 0
    try:
        return values.parse_size("max-size", found["max-size"])
    except errors.InvalidArgument as error:
        raise errors.InvalidArgument(f"{path}: container-log: {error.message}") from error


def _ulimits(
    table: dict[str, Any], options: dict[str, Any], path: str
) -> tuple[tuple[str, int, int], ...]:
    listed, given = table.get("default-ulimits", {}), options.get("default-ulimit") or ()
    if listed and given:
        raise errors.InvalidArgument(
            f"{path}: default-ulimits: given there and by --default-ulimit; leave one of them out"
        )
    words = [
        f"{(item.get('Name') or name).lower()}={item['Soft']}:{item['Hard']}"
        for name, item in listed.items()
    ]
    try:
        return tuple(values.parse_ulimit(word) for word in (*words, *given))
    except errors.InvalidArgument as error:
        raise errors.InvalidArgument(f"{path}: default-ulimits: {error.message}") from error


def reloaded(old: DaemonConfig, new: DaemonConfig) -> DaemonConfig:
    """``old`` with what SIGHUP may change taken from ``new``."""
    engine = replace(
        old.engine,
        registry_mirrors=new.engine.registry_mirrors,
        insecure_registries=new.engine.insecure_registries,
        insecure_skip_verify=new.engine.insecure_skip_verify,
        registry_host_mirrors=new.engine.registry_host_mirrors,
        clock_timeout_s=new.engine.clock_timeout_s,
        max_concurrent_downloads=new.engine.max_concurrent_downloads,
        max_download_rate=new.engine.max_download_rate,
        image_gc_high=new.engine.image_gc_high,
        image_gc_low=new.engine.image_gc_low,
        image_gc_min_age=new.engine.image_gc_min_age,
    )
    return replace(old, engine=engine, log_level=new.log_level, problems=new.problems)
