"""check-kernel where ci/imitate takes something away: it finds that, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.root]

TOP = Path(__file__).resolve().parents[2]
CALLS = {
    "openat2": "openat2",
    "mount_setattr": "mount-setattr",
    "open_tree": "open-tree",
    "pidfd_open": "pidfd",
    "clone3": "clone3",
    "close_range": "close-range",
    "statx": "statx",
    "memfd_create": "memfd",
    "getrandom": "getrandom",
    "fsopen": "new-mount-api",
    "renameat2": "renameat2",
    "copy_file_range": "copy-file-range",
    "move_mount": "move-mount",
    "quotactl_fd": "quotactl-fd",
    "pidfd_getfd": "pidfd-getfd",
    "pidfd_send_signal": "pidfd-send-signal",
}
FOLLOWS = {
    "mount_setattr": {"idmapped-mounts"},
    "pidfd_open": {"pidfd-setns"},
    "close_range": {"close-range-cloexec"},
    "memfd_create": {"memfd-exec"},
}


def check(*words: str) -> dict[str, Any]:
    """What check-kernel says after these words."""
    done = subprocess.run(
        [*words, sys.executable, "-I", "-S", str(TOP / "kernel-checks/check-kernel"), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    assert found["unanswered"] == []
    return found


def imitated(*options: str) -> dict[str, Any]:
    return check(sys.executable, str(TOP / "ci/imitate"), *options)


def states(table: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["state"] for item in table["features"]}


def lost(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name, state in before.items() if state == "present" != after[name]}


@pytest.mark.parametrize(("answer", "state"), [("ENOSYS", "absent"), ("EPERM", "unusable")])
def test_denied_calls(answer: str, state: str) -> None:
    before = states(check())
    after = states(imitated("--deny", ",".join(f"{call}={answer}" for call in CALLS)))
    follow = set().union(*FOLLOWS.values())
    there = {name for name in CALLS.values() if before[name] == "present"}
    assert {name: after[name] for name in there} == dict.fromkeys(there, state)
    assert lost(before, after) - there <= follow


def test_no_overlay() -> None:
    before, table = states(check()), imitated("--no-overlay")
    assert table["overlay"] is None
    gone = lost(before, states(table))
    assert "overlay" in gone
    assert gone <= {"overlay", "overlay-multilower", "overlay-volatile", "overlay-userns"}
    assert "overlay" in table["verdict"]["degraded"]


def test_no_seccomp() -> None:
    before, after = states(check()), states(imitated("--no-seccomp"))
    assert after["seccomp-filter"] == "absent"
    assert all(name.startswith("seccomp-") for name in lost(before, after))


def test_no_user_namespaces() -> None:
    before, after = states(check()), states(imitated("--no-userns"))
    gone = lost(before, after)
    assert "user-namespace" in gone
    assert gone <= {"user-namespace", "userns-unprivileged", "userns-limits", "overlay-userns"}


def test_no_controllers() -> None:
    if check()["cgroup"]["version"] == "v2":
        pytest.skip("version 1 is imitated, and this machine has version 2 only")
    table = imitated("--no-cgroup", "memory,pids")
    after = states(table)
    assert after["cgroup-memory"] != "present"
    assert after["cgroup-pids"] != "present"
    assert {"cgroup-memory", "cgroup-pids"} <= set(table["verdict"]["degraded"])


def test_pure_version_1() -> None:
    version = check()["cgroup"]["version"]
    if version == "v2":
        pytest.skip("version 1 is imitated, and this machine has version 2 only")
    assert imitated("--pure-v1")["cgroup"]["version"] == "v1"
