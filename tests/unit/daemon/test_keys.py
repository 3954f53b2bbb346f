"""Every key of daemon.json: a right value is taken, a wrong one is refused by name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.daemon import config, keys

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RIGHT: dict[str, list[Any]] = {
    "bool": [True, False],
    "number": [0, 5, -1],
    "size": [0, 5, "500k", "1.5MiB", ""],
    "string": ["", "text"],
    "path": ["", "/a/path"],
    "list": [[], ["a", "b"]],
    "strings": [{}],
    "lists": [{}, {"docker.io": ["m", "https://n/path"]}, {"r.io": []}],
    "percent": [0, 1, 100],
    "duration": [0, 5, "", "0", "90", "90s", "10m", "1h", "1h30m5s"],
    "map": [{}, {"a": 1}],
    "level": [*keys.LEVELS, "debug", "Info"],
    "driver": list(keys.DRIVERS),
    "network-plugin": ["", "cni"],
    "runtimes": [{}, {"kata": {"path": "/bin/kata", "runtime-args": ["-x"]}}],
    "ulimits": [{}, {"nofile": {"Name": "nofile", "Soft": 1, "Hard": 2}}],
    "container-log": [{}, {"driver": "json-file", "opts": {"max-size": "1MB"}}],
}
WRONG: dict[str, list[Any]] = {
    "bool": ["true", 1, 0, None, [], {}],
    "number": ["5", True, 1.5, None, [], {}],
    "size": [-1, "-1", "fast", "5 apples", True, 1.5, None, [], {}],
    "string": [5, True, None, [], {}],
    "path": [5, None, "relative", "./a", [], {}],
    "list": ["a", 5, None, {}, [1], ["a", None], [["a"]]],
    "strings": ["a", 5, None, [], {"a": 1}, {"a": None}],
    "lists": ["a", 5, None, [], {"a": "m"}, {"a": [1]}, {"a": None}],
    "percent": ["5", "5%", -1, 101, True, 1.5, None, [], {}],
    "duration": ["soon", "-1", "5d", "5.5m", "m", "1m1h", -1, True, 1.5, 10**9, None, [], {}],
    "map": ["a", 5, None, []],
    "level": ["LOUD", "", 5, None],
    "driver": ["journald", "", "FILE", 5, None],
    "network-plugin": ["kubenet", "CNI", 5, None, [], {}],
    "runtimes": ["a", [], None],
    "ulimits": [
        "a",
        [],
        None,
        {"nofile": 5},
        {"nofile": {}},
        {"nofile": {"Soft": 1}},
        {"nofile": {"Soft": "1", "Hard": 2}},
    ],
    "container-log": [
        "a",
        [],
        None,
        {"driver": 5},
        {"opts": []},
        {"opts": {"max-size": 5}},
        {"other": "x"},
    ],
}

ALL = {**keys.EFFECTIVE, **keys.NO_EFFECT}


@pytest.fixture
def load(tmp_path: Path) -> Callable[[object], config.DaemonConfig]:
    """Loads a file that holds one document."""

    def work(document: object) -> config.DaemonConfig:
        path = tmp_path / "daemon.json"
        path.write_text(json.dumps(document))
        return config.load(config.parse_arguments(["--config", str(path)]))

    return work


def right() -> list[tuple[str, Any]]:
    values: dict[str, list[Any]] = {
        "hosts": [[], ["unix:///a", "unix:///b"]],
        "storage-opts": [[], ["overlay2.override_kernel_check=true", "overlay2.size=1G"]],
        "log-opts": [{}, {"max-size": "30KB", "max-file": "3"}],
        "cri-socket": ["", "unix:///run/cri.sock"],
        "cdi-spec-dirs": [[], ["/etc/cdi", "/run/cdi"]],
        "plugin-registration-timeout": [0, 5],
        "plugin-requst-timeout": [0, 2],
        "cni-bin-dir": ["", "/opt/cni/bin", "/a,/b", "/a:/b"],
        "websocket-server-listening-port": [0, 1, 65535],
        # only both together, see test_cri_config
        "stream-server-cert": [""],
        "stream-server-key": [""],
    }
    return [(key, value) for key, kind in ALL.items() for value in values.get(key, RIGHT[kind])]


def wrong() -> list[tuple[str, Any]]:
    return [(key, value) for key, kind in ALL.items() for value in WRONG[kind]]


def test_no_key_is_in_both_tables() -> None:
    assert keys.EFFECTIVE.keys().isdisjoint(keys.NO_EFFECT)


def test_every_type_has_values_here() -> None:
    assert set(ALL.values()) == set(RIGHT) == set(WRONG)


@pytest.mark.parametrize(("key", "value"), right())
def test_a_right_value_is_taken(
    load: Callable[[object], config.DaemonConfig], key: str, value: Any
) -> None:
    found = load({key: value})
    idle = key in keys.NO_EFFECT and value not in ("", False, [], {})
    assert len(found.problems) == idle


@pytest.mark.parametrize(("key", "value"), wrong())
def test_a_wrong_value_is_refused_with_file_and_key(
    load: Callable[[object], config.DaemonConfig], tmp_path: Path, key: str, value: Any
) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        load({key: value})
    text = str(caught.value)
    assert text.startswith(f"{tmp_path}/daemon.json: {key} must be {keys.describe(ALL[key])}, ")
    assert "\n" not in text
    assert caught.value.ref == key


@pytest.mark.parametrize("entry", [{"Name": 5, "Soft": 1, "Hard": 2}, {"Soft": True, "Hard": True}])
def test_every_part_of_a_ulimit_has_its_type(
    load: Callable[[object], config.DaemonConfig], entry: dict[str, object]
) -> None:
    with pytest.raises(errors.InvalidArgument, match="default-ulimits must be"):
        load({"default-ulimits": {"nofile": entry}})


def test_what_a_value_is_is_said_in_words(load: Callable[[object], config.DaemonConfig]) -> None:
    shown = {"text": '"text"', 5: "a number", None: "null", 1.5: "a number"}
    for value, words in shown.items():
        with pytest.raises(errors.InvalidArgument, match=f"it is {words}$"):
            load({"tls": value})
    for value, words in (([], "a list"), ({}, "an object")):
        with pytest.raises(errors.InvalidArgument, match=f"it is {words}$"):
            load({"graph": value})
