"""Settings of the daemon: defaults, then the file, then the flags, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.daemon import config
from isula_edge.service.config import RuntimeConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "daemon.json"


@pytest.fixture
def load(file: Path) -> Callable[..., config.DaemonConfig]:
    """Loads settings: the text of daemon.json, then flags."""

    def work(text: str | bytes, *flags: str) -> config.DaemonConfig:
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return config.load(config.parse_arguments(["--config", str(file), *flags]))

    return work


def test_without_a_file_there_are_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "DEFAULT_FILE", str(tmp_path / "absent.json"))
    monkeypatch.delenv("ISULAD_TMPDIR", raising=False)
    found = config.load(config.parse_arguments([]))
    assert found.hosts == ("unix:///var/run/isulad.sock",)
    assert (found.engine.graph, found.engine.state) == (
        "/var/lib/isulad",
        os.path.realpath("/var/run/isulad"),
    )
    assert (found.group, found.pidfile) == ("isula", "/var/run/isulad.pid")
    assert (found.log_level, found.log_driver) == ("INFO", "file")
    assert found.problems == ()


@pytest.mark.parametrize("text", ["", "  \n", "{}"])
def test_an_empty_file_changes_nothing(load: Callable[..., config.DaemonConfig], text: str) -> None:
    found = load(text)
    assert found.engine.graph == "/var/lib/isulad"
    assert found.problems == ()


def test_a_file_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    options = config.parse_arguments(["--config", str(tmp_path / "absent.json")])
    with pytest.raises(errors.InvalidArgument, match=r"absent\.json: No such file"):
        config.load(options)


BAD = {
    "no JSON": (b"graph = /x", r": line 1, column 1: "),
    "a comma too many": (b'{\n  "group": "a",\n}', r": line 3, column 1: |: line 2, column "),
    "cut off": (b'{\n"group": "a"', r": line 2, column 13: "),
    "two documents": (b"{}\n{}", r": line 2, column 1: "),
    "a comment": (b'{\n// no\n"group": "a"}', r": line 2, column 1: "),
    "a list": (b"[]", ": the top level must be an object"),
    "text": (b'"x"', ": the top level must be an object"),
    "no UTF-8": (b'{"group": "\xff"}', ": 'utf-8' codec"),
    "a key twice": (b'{"group": "a", "group": "b"}', ": group stands there twice"),
    "a key twice below": (b'{"tls-config": {"a": 1, "a": 2}}', ": a stands there twice"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_cannot_be_read_is_one_line_with_its_name(
    load: Callable[..., config.DaemonConfig], file: Path, case: str
) -> None:
    text, pattern = BAD[case]
    with pytest.raises(errors.InvalidArgument, match=f"^{file}(?:{pattern})") as caught:
        load(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"metrics-port": ' + "1" * 5000 + "}"])
def test_hostile_json_is_one_line_too(load: Callable[..., config.DaemonConfig], text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"daemon\.json"):
        load(text)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidArgument, match="Is a directory"):
        config.load(config.parse_arguments(["--config", str(tmp_path)]))


def test_unknown_keys_are_one_warning_and_idle_ones_another(
    load: Callable[..., config.DaemonConfig], file: Path
) -> None:
    found = load(
        '{"color": 1, "tls": true, "Group": "x", "metrics-port": 9, "selinux-enabled": false}'
    )
    assert found.problems == (
        f"{file}: unknown: color, Group",
        f"{file}: without effect in this version: tls, metrics-port",
    )


OVERRIDES = [
    ("graph", "--graph", "/flag", "engine.graph"),
    ("graph", "-g", "/flag", "engine.graph"),
    ("state", "--state", "/flag", "engine.state"),
    ("state", "-S", "/flag", "engine.state"),
    ("pidfile", "--pidfile", "/flag", "pidfile"),
    ("pidfile", "-p", "/flag", "pidfile"),
    ("group", "--group", "flag", "group"),
    ("group", "-G", "flag", "group"),
    ("default-runtime", "--default-runtime", "runc", "engine.default_runtime"),
    ("storage-driver", "--storage-driver", "vfs", "engine.storage_driver"),
    ("cgroup-parent", "--cgroup-parent", "/flag", "engine.cgroup_parent"),
    ("hook-spec", "--hook-spec", "/flag", "engine.hook_spec"),
    ("log-level", "--log-level", "DEBUG", "log_level"),
    ("log-level", "-l", "DEBUG", "log_level"),
    ("log-driver", "--log-driver", "stderr", "log_driver"),
]
IN_FILE = {"log-level": "ERROR", "log-driver": "stdout"}


def value_of(found: config.DaemonConfig, name: str) -> Any:
    value: Any = found
    for part in name.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize(("key", "flag", "value", "name"), OVERRIDES)
def test_a_flag_wins_over_the_file(
    load: Callable[..., config.DaemonConfig], key: str, flag: str, value: str, name: str
) -> None:
    text = f'{{"{key}": "{IN_FILE.get(key, "/file")}"}}'
    assert value_of(load(text), name) == IN_FILE.get(key, "/file")
    assert value_of(load(text, flag, value), name) == value
    if flag.startswith("--"):
        assert value_of(load(text, f"{flag}={value}"), name) == value


@pytest.mark.parametrize(
    ("flag", "value"), [("--graph", "relative"), ("--log-level", "LOUD"), ("--log-driver", "x")]
)
def test_a_wrong_flag_is_refused_by_its_name(
    load: Callable[..., config.DaemonConfig], flag: str, value: str
) -> None:
    with pytest.raises(errors.InvalidArgument, match=f"^isulad: {flag} must be "):
        load("{}", flag, value)


def test_lists_of_file_and_flags_are_put_together(
    load: Callable[..., config.DaemonConfig],
) -> None:
    found = load(
        '{"registry-mirrors": ["https://a"], "insecure-registries": ["b"]}',
        "--registry-mirrors=https://c",
        "--insecure-registry",
        "d",
        "--insecure-registry=e",
    )
    assert found.engine.registry_mirrors == ("https://a", "https://c")
    assert found.engine.insecure_registries == ("b", "d", "e")


@pytest.mark.parametrize(
    ("text", "flags", "key"),
    [
        ('{"hosts": ["unix:///a"]}', ["-H", "unix:///b"], "hosts"),
        (
            '{"default-ulimits": {"nofile": {"Soft": 1, "Hard": 2}}}',
            ["--default-ulimit", "nproc=1"],
            "default-ulimits",
        ),
    ],
)
def test_what_cannot_be_put_together_is_refused(
    load: Callable[..., config.DaemonConfig], text: str, flags: list[str], key: str
) -> None:
    with pytest.raises(errors.InvalidArgument, match=f"{key}: given there and by --"):
        load(text, *flags)


def test_hosts_come_from_either_place_once_each(load: Callable[..., config.DaemonConfig]) -> None:
    assert load('{"hosts": ["unix:///a", "unix:///a"]}').hosts == ("unix:///a",)
    assert load("{}", "-H", "unix:///a", "--host=unix:///b").hosts == ("unix:///a", "unix:///b")


@pytest.mark.parametrize("host", ["tcp://0.0.0.0:1", "/a", "unix://a", "unix:///", ""])
def test_hosts_that_cannot_be_listened_on(
    load: Callable[..., config.DaemonConfig], host: str
) -> None:
    with pytest.raises(errors.InvalidArgument, match="hosts: "):
        load(f'{{"hosts": ["{host}"]}}')


@pytest.mark.parametrize("host", ["tcp://0.0.0.0:1", "/a"])
def test_a_wrong_host_of_the_file_is_refused_with_its_name(
    load: Callable[..., config.DaemonConfig], file: Path, host: str
) -> None:
    with pytest.raises(errors.InvalidArgument, match=f"^{file}: hosts: "):
        load(f'{{"hosts": ["{host}"]}}')


def test_ten_hosts_are_the_limit(load: Callable[..., config.DaemonConfig]) -> None:
    flags = [f"--host=unix:///{number}" for number in range(11)]
    assert len(load("{}", *flags[:10]).hosts) == 10
    with pytest.raises(errors.InvalidArgument, match="more than 10"):
        load("{}", *flags)


def test_the_file_of_credentials(load: Callable[..., config.DaemonConfig]) -> None:
    assert load("{}").engine.auth_file == "/root/.isulad/config.json"
    assert load('{"auth-file": "/etc/x.json"}').engine.auth_file == "/etc/x.json"
    with pytest.raises(errors.InvalidArgument, match="auth-file must be an absolute path"):
        load('{"auth-file": "x.json"}')


def test_runtimes_and_ulimits_are_taken_apart(load: Callable[..., config.DaemonConfig]) -> None:
    found = load(
        '{"runtimes": {"a": {"path": "/a", "runtime-args": ["-x"]},'
        ' "b": {"path": "/b", "runtimeArgs": ["-y"]}},'
        ' "default-ulimits": {"x": {"Name": "NOFILE", "Soft": 1, "Hard": 2},'
        ' "nproc": {"Soft": 3, "Hard": 4}}}'
    )
    runtimes = {"a": RuntimeConfig("/a", ("-x",)), "b": RuntimeConfig("/b", ("-y",))}
    assert found.engine.runtimes == runtimes
    assert found.engine.default_ulimits == (("nofile", 1, 2), ("nproc", 3, 4))


REFUSED = [
    ('{"runtimes": {"lxc": {"path": "/x"}}}', [], "lxc is built in"),
    ('{"default-ulimits": {"nofile": {"Soft": 2, "Hard": 1}}}', [], "default-ulimits: "),
    ('{"default-ulimits": {"as": {"Soft": 1, "Hard": 1}}}', [], "default-ulimits: "),
    ('{"log-opts": {"color": "1"}}', [], "log-opts: color is unknown"),
    ('{"log-opts": {"max-size": "x"}}', [], "log-opts: max-size: "),
    ('{"log-opts": {"max-size": "1KB"}}', [], "less than 4KB"),
    ('{"log-opts": {"max-file": "0"}}', [], "log-opts: max-file: "),
    ('{"log-opts": {"log-file-mode": "rw"}}', [], "log-opts: log-file-mode: "),
    ('{"container-log": {"opts": {"max-size": "x"}}}', [], "container-log: "),
    ("{}", ["--log-opt", "max-size"], "--log-opt max-size: write NAME=VALUE"),
    ("{}", ["--container-log-opts", "x"], "--container-log-opts x: write NAME=VALUE"),
]


@pytest.mark.parametrize(("text", "flags", "message"), REFUSED)
def test_values_that_make_no_sense(
    load: Callable[..., config.DaemonConfig], text: str, flags: list[str], message: str
) -> None:
    with pytest.raises(errors.InvalidArgument, match=message) as caught:
        load(text, *flags)
    assert "\n" not in str(caught.value)


def test_logs_of_containers(load: Callable[..., config.DaemonConfig]) -> None:
    text = '{"container-log": {"driver": "syslog", "opts": {"max-size": "2MB", "max-file": "3"}}}'
    found = load(text)
    assert found.engine.log_max_size == 2 << 20
    assert len(found.problems) == 2
    assert load(text, "--container-log-opts", "max-size=4KB").engine.log_max_size == 4096


def test_options_of_the_log_are_put_together(load: Callable[..., config.DaemonConfig]) -> None:
    found = load('{"log-opts": {"max-size": "1MB", "max-file": "2"}}', "--log-opt", "max-file=3")
    assert found.log_options == {"max-size": "1MB", "max-file": "3"}


@pytest.mark.parametrize(
    ("value", "tmpdir"),
    [("/data/", "/data/isulad_tmpdir"), ("/tmp", ""), ("relative", ""), ("", "")],
)
def test_the_directory_of_temporary_files(
    load: Callable[..., config.DaemonConfig],
    monkeypatch: pytest.MonkeyPatch,
    value: str,
    tmpdir: str,
) -> None:
    monkeypatch.setenv("ISULAD_TMPDIR", value)
    assert load("{}").engine.tmpdir == tmpdir


def test_a_reload_takes_what_may_change_and_leaves_the_rest(
    load: Callable[..., config.DaemonConfig],
) -> None:
    old = load('{"graph": "/old", "log-level": "INFO"}')
    new = load(
        '{"graph": "/new", "state": "/new", "log-level": "DEBUG", "registry-mirrors": ["https://a"],'
        ' "insecure-registries": ["b"], "max-concurrent-downloads": 9,'
        ' "max-download-rate": "500k", "color": 1}'
    )
    found = config.reloaded(old, new)
    assert (found.engine.graph, found.engine.state) == ("/old", os.path.realpath("/var/run/isulad"))
    assert found.log_level == "DEBUG"
    assert found.engine.registry_mirrors == ("https://a",)
    assert found.engine.insecure_registries == ("b",)
    assert found.engine.max_concurrent_downloads == 9
    assert found.engine.max_download_rate == 500 << 10
    assert found.problems == new.problems


@pytest.mark.parametrize(
    ("value", "rate"), [("0", 0), ("250000", 250_000), ('"2m"', 2 << 20), ('""', 0)]
)
def test_the_rate_of_downloads(
    load: Callable[..., config.DaemonConfig], value: str, rate: int
) -> None:
    assert load(f'{{"max-download-rate": {value}}}').engine.max_download_rate == rate


def test_a_rate_that_is_none_is_refused(load: Callable[..., config.DaemonConfig]) -> None:
    for value in ('"fast"', "-1", "true"):
        with pytest.raises(errors.InvalidArgument, match="max-download-rate must be a number of"):
            load(f'{{"max-download-rate": {value}}}')


# the program


def isulad(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "isula_edge.daemon.main", *argv],
        capture_output=True,
        text=True,
        cwd=os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__)))),
        check=False,
    )


VALIDATED = {
    "nothing wrong": ('{"group": "a"}', 0, ""),
    "bad JSON": ('{"group": }', 1, "isulad: {}: line 1, column 11: Expecting value"),
    "a wrong type": ('{"tls": 5}', 1, "isulad: {}: tls must be true or false, it is a number"),
    "a key twice": ('{"tls": true, "tls": true}', 1, "isulad: {}: tls stands there twice"),
    "unknown keys": ('{"color": 1, "size": 2}', 1, "{}: unknown: color, size"),
    "idle keys": (
        '{"tls": true, "engine": "x"}',
        1,
        "{}: without effect in this version: tls, engine",
    ),
}


@pytest.mark.parametrize("case", VALIDATED)
def test_validating_is_one_line_and_an_exit_status(file: Path, case: str) -> None:
    text, status, line = VALIDATED[case]
    file.write_text(text)
    found = isulad("--config", str(file), "--validate")
    assert found.returncode == status
    assert found.stderr == (line.format(file) + "\n" if line else "")
    assert found.stdout == ("" if status else f"{file}: no problems found\n")


@pytest.mark.parametrize(
    ("argv", "status", "out", "err"),
    [
        (["--version"], 0, "Version ", ""),
        (["--help"], 0, "usage: isulad", ""),
        (["--no-such-flag"], 1, "", "isulad: unrecognized arguments: --no-such-flag\n"),
        (["--graph"], 1, "", "isulad: argument -g/--graph: expected one argument\n"),
        (["--gra", "/x"], 1, "", "isulad: unrecognized arguments"),
        (["word"], 1, "", "isulad: unrecognized arguments: word\n"),
        (["--config", "/nowhere.json"], 1, "", "isulad: /nowhere.json: No such file"),
    ],
)
def test_the_command_line(argv: list[str], status: int, out: str, err: str) -> None:
    found = isulad(*argv)
    assert found.returncode == status
    assert found.stdout.startswith(out)
    assert found.stderr.startswith(err)
    assert bool(found.stderr) == bool(err)


def test_how_registries_are_asked(load: Callable[..., config.DaemonConfig]) -> None:
    found = load(
        '{"registry-host-mirrors": {"https://index.docker.io/v1/": ["m", "http://n/path"],'
        ' "R.io:5000": []}, "clock-timeout": "1h30m"}'
    ).engine
    assert found.registry_host_mirrors == {"docker.io": ("m", "http://n/path"), "r.io:5000": ()}
    assert found.clock_timeout_s == 5400
    assert load("{}").engine.clock_timeout_s == 600
    assert load('{"clock-timeout": 0}').engine.clock_timeout_s == 0
    assert load('{"clock-timeout": "0"}').engine.clock_timeout_s == 0
    old = load("{}")
    new = config.reloaded(
        old, load('{"registry-host-mirrors": {"a.b": ["m"]}, "clock-timeout": 5}')
    )
    assert new.engine.registry_host_mirrors == {"a.b": ("m",)}
    assert new.engine.clock_timeout_s == 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", (0, 0, 120.0)),
        ('{"image-gc-low": 50}', (0, 0, 120.0)),
        # off, on a small machine too
        ('{"image-gc-high": 0, "image-gc-min-age": "1h"}', (-1, 0, 120.0)),
        ('{"image-gc-high": 85}', (85, 80, 120.0)),
        ('{"image-gc-high": 3}', (3, 0, 120.0)),
        ('{"image-gc-high": 85, "image-gc-low": 70}', (85, 70, 120.0)),
        ('{"image-gc-high": 85, "image-gc-min-age": "10m"}', (85, 80, 600.0)),
        ('{"image-gc-high": 85, "image-gc-min-age": 0}', (85, 80, 0.0)),
    ],
)
def test_watermarks(
    load: Callable[..., config.DaemonConfig], text: str, expected: tuple[int, int, float]
) -> None:
    engine = load(text).engine
    assert (engine.image_gc_high, engine.image_gc_low, engine.image_gc_min_age) == expected
    assert config.reloaded(load("{}"), load(text)).engine.image_gc_high == expected[0]


@pytest.mark.parametrize("low", [85, 90])
def test_watermarks_that_cross(load: Callable[..., config.DaemonConfig], low: int) -> None:
    with pytest.raises(errors.InvalidArgument, match="image-gc-low must be less than"):
        load(f'{{"image-gc-high": 85, "image-gc-low": {low}}}')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", ("/isulad", False)),
        ('{"systemd-cgroup": true}', ("system.slice", True)),
        ('{"systemd-cgroup": true, "cgroup-parent": "edge.slice"}', ("edge.slice", True)),
        ('{"systemd-cgroup": false, "cgroup-parent": "/edge"}', ("/edge", False)),
    ],
)
def test_the_systemd_driver_has_slices(
    load: Callable[..., config.DaemonConfig], text: str, expected: tuple[str, bool]
) -> None:
    engine = load(text).engine
    assert (engine.cgroup_parent, engine.systemd_cgroup) == expected


def test_the_systemd_driver_takes_no_paths(load: Callable[..., config.DaemonConfig]) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"slice like system\.slice"):
        load('{"systemd-cgroup": true, "cgroup-parent": "/edge"}')
