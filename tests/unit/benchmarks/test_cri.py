"""The benchmark of the CRI: its accounting, its pause image and its tables."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import accounting, cri, cri_engines, cri_pods, cri_report
from benchmarks.accounting import Ended
from benchmarks.config import ConfigError
from benchmarks.engines import EngineError
from isula_cri import messages

if TYPE_CHECKING:
    from pathlib import Path

# accounting


def record(pid: int, parent: int, name: bytes) -> bytes:
    """A record as acct(5) describes version 3."""
    head = struct.pack("<BBH5I", 0, 3, 0, 0, 0, 0, pid, parent)
    return head + struct.pack("<If8H16s", 0, 0.0, *[0] * 8, name)


def test_records_of_the_kernel_are_read() -> None:
    data = record(10, 1, b"runc") + record(11, 10, b"a-name-of-15-by")
    assert accounting.parse(data + b"\0" * 30) == [
        Ended(10, 1, "runc"),
        Ended(11, 10, "a-name-of-15-by"),
    ]
    assert accounting.parse(b"") == []


def test_only_descendants_count_in_whatever_order_they_ended() -> None:
    ended = [
        Ended(4, 3, "great-grandchild"),
        Ended(3, 2, "grandchild"),
        Ended(9, 8, "stranger"),
        Ended(2, 1, "child"),
        Ended(5, 2, "grandchild"),
    ]
    found = accounting.below(ended, {1})
    assert sorted(process.pid for process in found) == [2, 3, 4, 5]
    assert accounting.below(ended, {7}) == []


def test_cpu_time_of_a_cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, file, text in (
        ("_V1", "cpuacct.usage", "2500000000\n"),
        ("_V2", "cpu.stat", "usage_usec 2500000\nuser_usec 1\nsystem_usec 1\n"),
    ):
        monkeypatch.setattr(accounting, "_V1", tmp_path / "nosuch")
        (tmp_path / place).mkdir()
        monkeypatch.setattr(accounting, place, tmp_path / place)
        group = accounting.CpuGroup("bench")
        (tmp_path / place / "bench" / file).write_text(text)
        assert group.used_s() == 2.5
        assert f"{tmp_path}/{place}/bench/engine/cgroup.procs" in " ".join(group.prefix)


# pods and images


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_pause_image_is_a_docker_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "", "", "", machine)))
    cri_engines.pause_archive(tmp_path / "pause.tar")
    with tarfile.open(tmp_path / "pause.tar") as archive:

        def read(name: str) -> bytes:
            file = archive.extractfile(name)
            assert file is not None
            return file.read()

        (manifest,) = json.loads(read("manifest.json"))
        config = json.loads(read(manifest["Config"]))
        layer = read(manifest["Layers"][0])
    assert manifest["RepoTags"] == [cri_engines.PAUSE]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    assert config["architecture"] == {"x86_64": "amd64", "aarch64": "arm64"}[machine]
    assert b"\x7fELF" in layer


class FakeClient:
    """Takes calls down and answers them."""

    def __init__(self, exit_code: int = 0) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.exit_code = exit_code

    def timed(self, method: str, **fields: Any) -> tuple[Any, float]:
        """An answer with ids that say what was asked."""
        getattr(messages, f"{method}Request")(**fields)
        self.calls.append((method, fields))
        answers: dict[str, dict[str, Any]] = {
            "RunPodSandbox": {"pod_sandbox_id": "pod"},
            "CreateContainer": {"container_id": "container"},
            "ExecSync": {"exit_code": self.exit_code},
        }
        return getattr(messages, f"{method}Response")(**answers.get(method, {})), 0.5


def pod(folder: Path, client: FakeClient) -> cri_pods.Pod:
    """A pod of an engine that takes calls down."""
    engine = cri_engines.CriEngine("fake", folder, (), (), handler="runc", pods_cgroup="/group")
    engine.connection = client  # type: ignore[assignment]
    return cri_pods.Pod.new(engine, "busybox:latest")


def test_a_pod_goes_through_all_calls(tmp_path: Path) -> None:
    client = FakeClient()
    lived = pod(tmp_path, client)
    assert [lived.do(operation) for operation in cri_pods.OPERATIONS] == [0.5] * len(
        cri_pods.OPERATIONS
    )
    assert [method for method, _ in client.calls] == list(cri_pods.OPERATIONS)
    for method, fields in client.calls[1:]:
        expected = "pod" if "Pod" in method or method == "CreateContainer" else "container"
        assert expected in (fields.get("pod_sandbox_id"), fields.get("container_id"))
    fields = client.calls[0][1]
    assert fields["runtime_handler"] == "runc"
    assert fields["config"].linux.cgroup_parent.startswith("/group/")
    other = pod(tmp_path, client)
    assert other.config.metadata.uid != lived.config.metadata.uid


def test_a_command_that_fails_inside_voids_the_engine(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="true ended with 3"):
        pod(tmp_path, FakeClient(exit_code=3)).do("ExecSync")


def test_up_and_down_are_the_whole_life_but_what_only_asks() -> None:
    rest = [name for name in cri_pods.OPERATIONS if name not in ("ContainerStatus", "ExecSync")]
    assert [*cri_pods.UP, *cri_pods.DOWN] == rest


# flags and tables


def test_flags_that_cannot_be_used(tmp_path: Path) -> None:
    for words in (["-e", "docker"], ["-r", "0"], ["-s", "0"]):
        with pytest.raises(ConfigError, match="engines are"):
            cri.command(words, tmp_path, tmp_path)


def result(failures: dict[str, str]) -> dict[str, Any]:
    """A small result of two engines."""
    engines = {"isula": 1.0, "containerd": 4.0}
    cells = [
        {
            "mode": mode,
            "operation": operation,
            "engine": engine,
            "repeat": repeat,
            "samples_s": [factor * 0.01, factor * 0.02, factor * 0.03],
            "elapsed_s": factor * (repeat + 1),
            "cpu_s": factor * 0.03,
        }
        for mode, operation in (
            ("serial", "StartContainer"),
            ("parallel", "up"),
            ("lists", "ListContainers"),
        )
        for engine, factor in engines.items()
        for repeat in range(3)
        if engine not in failures
    ]
    table = {"rss": 2048.0, "pss": 1024.0, "uss": 512.0}
    memory = {
        "containers": 50,
        "sharers": [],
        "idle_kib": table,
        "busy_kib": table,
        "per_container_kib": table,
        "per_container_processes": {"conmon": 1.0},
    }
    facts = {**dict.fromkeys("cpu memory distribution kernel cgroup".split(), "x"), "cores": 2}
    return {
        "began": 0,
        "seconds": 1,
        "failures": failures,
        "restless": 0,
        "host": {**facts, "load_average": [0, 0, 0]},
        "versions": {"isula": {"isula": "1.0"}},
        "settings": {
            "engines": list(engines),
            "serial": 3,
            "parallel": 50,
            "memory": 50,
            "repeats": 3,
        },
        "cells": cells,
        "memory": {name: memory for name in engines if name not in failures},
        "processes": {"isula": {"StartContainer": ["conmon", "sh", "conmon"]}},
    }


def section(text: str, title: str) -> str:
    """The table below a heading."""
    return text.partition(f"## {title}")[2].partition("\n##")[0]


def test_the_tables_show_medians_and_ratios_to_containerd() -> None:
    document = result({})
    document["figures"] = cri_report.figures(document)
    text = cri_report.markdown(document)
    assert "This run is void" not in text
    serial = section(text, "3 pods one after another, 3 repeats: ms, median")
    assert "| StartContainer | 20.0 | 80.0 | 0.25 |" in serial
    used = section(text, "3 pods one after another, 3 repeats: CPU time")
    assert "| StartContainer | 10.0 | 40.0 | 0.25 |" in used
    batch = section(text, "50 pods at once: ms for the whole batch")
    assert "| up | 2000 | 8000 | 0.25 |" in batch
    assert "| ListContainers | 20.0 | 80.0 | 0.25 |" in section(text, "Lists with 50 pods")
    assert "| per container: PSS | 1.0 | 1.0 | 1.00 |" in section(text, "Memory, MiB")
    started = section(text, "Processes started per call")
    assert "| StartContainer | 3 | void |" in started
    assert "- isula: StartContainer: 2 conmon, sh" in started


def test_an_engine_that_failed_has_no_figures() -> None:
    document = result({"containerd": "StartContainer: UNKNOWN: no space"})
    document["figures"] = cri_report.figures(document)
    text = cri_report.markdown(document)
    assert "**This run is void**" in text
    assert "no space" in text
    assert "| StartContainer | 20.0 | void |  |" in text
