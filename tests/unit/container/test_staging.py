"""What is prepared for runtimes, as far as no mount is made for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.container import staging
from isula_edge.container.staging import (
    bind_devices,
    check_search,
    check_shared,
    clear,
    supports_user_namespaces,
)
from isula_edge.oci.mounts import Mount
from isula_edge.oci.options import Settings
from isula_edge.snapshot.base import Ids

if TYPE_CHECKING:
    from pathlib import Path


def document(*devices: dict[str, Any]) -> dict[str, Any]:
    return {"linux": {"devices": list(devices)}, "mounts": []}


def device(path: str, kind: str, major: int = 0, minor: int = 0) -> dict[str, Any]:
    return {"path": path, "type": kind, "major": major, "minor": minor}


def test_devices_become_binds_of_the_host() -> None:
    found = document(device("/dev/null", "c", 1, 3), device("/dev/other", "c", 1, 5))
    bind_devices(found)
    assert "devices" not in found["linux"]
    assert [(mount["source"], mount["destination"]) for mount in found["mounts"]] == [
        ("/dev/null", "/dev/null"),
        ("/dev/zero", "/dev/other"),
    ]
    assert {mount["type"] for mount in found["mounts"]} == {"bind"}


def test_a_fifo_is_made_by_anybody() -> None:
    found = document(device("/dev/queue", "p"))
    bind_devices(found)
    assert [item["path"] for item in found["linux"]["devices"]] == ["/dev/queue"]
    assert found["mounts"] == []


def test_streams_of_the_engine_are_no_devices() -> None:
    found = document(device("/dev/stdin", "c", 1, 3))
    bind_devices(found)
    assert found["mounts"] == []


def test_a_device_without_a_node_is_named() -> None:
    with pytest.raises(errors.FailedPrecondition, match="/dev/nothing"):
        bind_devices(document(device("/dev/nothing", "b", 4095, 1234)))


def test_propagation_is_looked_at_for_binds_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def sharing(path: str) -> tuple[str, bool, bool]:
        asked.append(path)
        return "/point", False, True

    monkeypatch.setattr(staging, "sharing", sharing)
    check_shared(
        Settings(
            mounts=[
                Mount("tmpfs", "", "/a", propagation="rshared"),
                Mount("bind", "/private", "/b"),
                Mount("bind", "/slave", "/c", propagation="slave"),
            ]
        )
    )
    assert asked == ["/slave"]
    shared = Mount("bind", "/x", "/c", propagation="rshared")
    with pytest.raises(errors.FailedPrecondition, match='"/x" is mounted on "/point" but'):
        check_shared(Settings(mounts=[shared]))


def test_directories_that_root_inside_may_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    modes = {"/": (0o755, 0), "/a": (0o711, 0), "/a/b": (0o710, 7), "/a/b/c": (0o700, 0)}

    def status(path: str) -> os.stat_result:
        mode, gid = modes[path]
        return os.stat_result((mode, 1, 1, 1, 0, gid, 0, 0, 0, 0))

    monkeypatch.setattr("isula_edge.container.staging.os.stat", status)
    check_search("/a/b/c", Ids(-1, 7, 7))
    for path, gid, folder in (("/a/b/c", 8, "/a/b"), ("/a/b/c/d", 7, "/a/b/c")):
        with pytest.raises(errors.FailedPrecondition, match=f"search {folder},"):
            check_search(path, Ids(-1, 7, gid))


def test_a_run_directory_goes(tmp_path: Path) -> None:
    (tmp_path / "run/mounts/0").mkdir(parents=True)
    clear(str(tmp_path / "run"))
    assert os.listdir(tmp_path) == []
    clear(str(tmp_path / "run"))


def test_a_run_directory_with_a_mount_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "run/mounts/0").mkdir(parents=True)
    (tmp_path / "run/mounts/0/somebodys").touch()
    monkeypatch.setattr("isula_edge.sys.mounts.below", lambda folder: [f"{folder}/mounts/0"])
    clear(str(tmp_path / "run"))
    assert (tmp_path / "run/mounts/0/somebodys").exists()
    assert "is mounted there" in caplog.text


@pytest.mark.parametrize(
    ("name", "program", "expected"),
    [
        ("lxc", "/usr/bin/lxc-start", True),
        ("runc", "/usr/sbin/runc", True),
        ("mine", "/opt/bin/runc", True),
        ("kata", "/usr/bin/containerd-shim-kata-v2", False),
    ],
)
def test_runtimes_with_user_namespaces(name: str, program: str, expected: bool) -> None:
    assert supports_user_namespaces(name, program) is expected
