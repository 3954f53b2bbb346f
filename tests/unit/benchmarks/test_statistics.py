"""Figures of the benchmarks: ptcr's average, void on failure, and the settings of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import config, host, report
from benchmarks.statistics import (
    Sample,
    VoidRunError,
    percentile,
    ratio,
    summarise,
    trimmed_mean,
)


def sample(wall_ms: float, status: int = 0, *, timed_out: bool = False) -> Sample:
    """A client process that took so long."""
    return Sample("rm", ("isula", "rm", "x"), wall_ms / 1000, 0.004, status, timed_out)


@pytest.mark.parametrize(
    ("values", "mean"),
    [([7.0], 7.0), ([1.0, 3.0], 2.0), ([1.0, 2.0, 90.0], 2.0), ([5.0, 5.0, 5.0, 9.0], 5.0)],
)
def test_trimmed_mean_drops_one_smallest_and_one_largest_of_three(
    values: list[float], mean: float
) -> None:
    assert trimmed_mean(values) == mean
    assert trimmed_mean(values[::-1]) == mean


def test_percentile_is_a_value_that_was_measured() -> None:
    values = [float(value) for value in range(1, 21)]
    assert percentile(values, 95) == 19
    assert percentile(values, 100) == 20
    assert percentile([3.0], 95) == 3


def test_ratio_needs_both_values() -> None:
    assert ratio(1.0, 4.0) == 0.25
    assert ratio(None, 4.0) is None
    assert ratio(1.0, None) is None
    assert ratio(1.0, 0.0) is None


def test_each_repeat_is_trimmed_by_itself() -> None:
    first = [sample(value) for value in (1, 2, 3, 100)]
    second = [sample(value) for value in (4, 4, 4, 4)]
    summary = summarise([first, second])
    assert summary.count == 8
    assert summary.trimmed_mean_ms == pytest.approx((2.5 + 4) / 2)
    assert summary.median_ms == pytest.approx(4)
    assert summary.p95_ms == pytest.approx(100)
    assert summary.sum_ms == pytest.approx((106 + 16) / 2)
    assert summary.cpu_median_ms == pytest.approx(4)


@pytest.mark.parametrize("bad", [sample(1, 1), sample(1, -9), sample(1, timed_out=True)])
def test_one_failure_voids_all(bad: Sample) -> None:
    with pytest.raises(VoidRunError, match="isula rm x"):
        summarise([[sample(5)] * 9, [sample(5), bad]])


def test_nothing_has_no_figures() -> None:
    with pytest.raises(VoidRunError):
        summarise([[], []])


# settings

PTCR = """
log_lever: 2
image_name: busybox
mixed_cmd: 0
measure_count:
    serially: 10
    parallerlly: 100
runtime_names:
    - isula
    - docker
runtime_endpoint:
start_cmd:
    - /bin/sh
    - -c
    - sleep 1
time_out: 2
out_put_file: ./result.txt
daemon_name: [isulad, dockerd]
memory_shim_count: 5
"""


def test_a_file_of_ptcr_is_understood(tmp_path: Path) -> None:
    pytest.importorskip("yaml", reason="PyYAML is not installed")
    path = tmp_path / "ptcr.yml"
    path.write_text(PTCR)
    found = config.read(path)
    assert (found.serial, found.parallel, found.mixed_cmd) == (10, 100, False)
    assert found.runtime_names == ("isula", "docker")
    assert found.start_cmd == ("/bin/sh", "-c", "sleep 1")
    assert (found.time_out, found.memory_shim_count, found.log_lever) == (2, 5, 2)
    assert found.out_put_file == "./result.txt"


def test_the_shipped_file_holds_the_published_settings() -> None:
    pytest.importorskip("yaml", reason="PyYAML is not installed")
    found = config.read(Path(config.__file__).with_name("ptcr.yml"))
    assert (found.serial, found.parallel, found.mixed_cmd) == (10, 40, False)
    assert found.runtime_names == config.ENGINES
    assert found.start_cmd == config.Config().start_cmd


@pytest.mark.parametrize("key", ["parallelly", "parallerlly"])
def test_both_spellings_count(key: str) -> None:
    assert config.parse({"measure_count": {key: 7}}).parallel == 7


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    toml, json = tmp_path / "a.toml", tmp_path / "a.json"
    toml.write_text('mixed_cmd = false\nrepeats = 5\n[programs]\ndocker = "/opt/docker"\n')
    json.write_text('{"mixed_cmd": 0, "repeats": 5, "programs": {"docker": "/opt/docker"}}')
    assert config.read(toml) == config.read(json)
    assert config.read(toml).programs == {"docker": "/opt/docker"}


def test_defaults_are_those_of_ptcr() -> None:
    found = config.parse({})
    assert found.mixed_cmd
    assert (found.serial, found.parallel, found.time_out, found.repeats) == (10, 10, 1, 3)
    assert found.image_name == "busybox"


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"runtime_names": ["rkt"]}, "runtime_names"),
        ({"runtime_names": []}, "runtime_names"),
        ({"runtime_names": ["isula", "isula"]}, "runtime_names"),
        ({"measure_count": {"serial": 1}}, "measure_count.serial"),
        ({"measure_count": {"serially": "ten"}}, "serial"),
        ({"measure_count": {"serially": True}}, "serial"),
        ({"measure_count": {"serially": -1}}, "serial"),
        ({"measure_count": 3}, "measure_count"),
        ({"mixed_cmd": "yes"}, "mixed_cmd"),
        ({"time_out": -1}, "time_out"),
        ({"repeats": 0}, "repeats"),
        ({"start_command": ["true"]}, "start_command"),
        ({"runtime_endpoint": ["/run/containerd.sock"]}, "runtime_endpoint"),
    ],
)
def test_wrong_settings_are_named(document: dict[str, Any], named: str) -> None:
    with pytest.raises(config.ConfigError, match=f"^{named}:"):
        config.parse(document)


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_file_that_is_no_mapping(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(config.ConfigError):
        config.read(path)


# the report

_V1 = "1 0 0:1 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
_V2 = "2 0 0:2 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("mountinfo", "version"), [(_V1, "v1"), (_V2, "v2"), (_V1 + _V2, "hybrid"), ("", "none")]
)
def test_cgroup_version(mountinfo: str, version: str) -> None:
    assert host.cgroup_version(mountinfo) == version


def result(failures: dict[str, str]) -> dict[str, Any]:
    """A small result of two engines."""
    figures = {
        name: report.figures([], summarise([[sample(value)] * 3]))
        for name, value in (("isula", 10), ("docker", 40))
        if name not in failures
    }
    facts = {**dict.fromkeys("cpu memory distribution kernel cgroup".split(), "x"), "cores": 2}
    return {
        "began": 0,
        "seconds": 1,
        "failures": failures,
        "restless_batches": 0,
        "host": {**facts, "load_average": [0, 0, 0]},
        "versions": {"isula": {"version": "1.0"}},
        "config": {
            "runtime_names": ["isula", "docker"],
            "serial": 3,
            "repeats": 1,
            "mixed_cmd": False,
        },
        "figures": {"serial": {"rm": figures}},
        "memory": {},
    }


def test_the_table_shows_medians_and_ratios() -> None:
    text = report.markdown(result({}))
    assert "| rm | 10.0 | 40.0 | 0.25 |" in text
    assert "void" not in text.replace("its engine void", "")


def test_the_table_of_a_void_run_says_so() -> None:
    text = report.markdown(result({"docker": "rm: no such container"}))
    assert "**This run is void**" in text
    assert "rm: no such container" in text
    assert "| rm | 10.0 | void |  |" in text
