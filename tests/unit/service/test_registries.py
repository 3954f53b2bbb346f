"""What workers are told of registries, and which hosts are remembered as down."""

from __future__ import annotations

from isula_edge.service.config import EngineConfig
from isula_edge.service.registries import Registries
from tests.fakes.jobs import FakeClock


def test_the_settings_of_a_request() -> None:
    config = EngineConfig(
        registry_mirrors=("m",),
        registry_host_mirrors={"docker.io": ("a", "b")},
        insecure_registries=("lab:5000",),
        insecure_skip_verify=True,
        certs_dir="/c",
        clock_timeout_s=5.0,
    )
    assert Registries(config).settings() == {
        "mirrors": ["m"],
        "host_mirrors": {"docker.io": ["a", "b"]},
        "insecure": ["lab:5000"],
        "insecure_skip_verify": True,
        "certs_dir": "/c",
        "clock_timeout": 5.0,
        "unreachable": [],
    }


def test_a_host_that_was_down_is_remembered_for_five_minutes() -> None:
    clock = FakeClock()
    registries = Registries(EngineConfig(), monotonic=clock)
    registries.learn({"unreachable": "a"})
    clock.now += 200
    registries.learn({"unreachable": "b"})
    registries.learn({"v": {}})
    assert registries.unreachable() == ["a", "b"]
    clock.now += 101
    assert registries.settings()["unreachable"] == ["b"]
    registries.learn({"reachable": "b"})
    registries.learn({"reachable": "c"})
    assert registries.unreachable() == []


def test_new_settings_forget() -> None:
    registries = Registries(EngineConfig())
    registries.learn({"unreachable": "a"})
    registries.reconfigure(EngineConfig(registry_mirrors=("m",)))
    assert registries.unreachable() == []
    assert registries.settings()["mirrors"] == ["m"]
