"""Case A31 j: a user has the same groups by exec as by run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.rig import Engine

pytestmark = [pytest.mark.root, pytest.mark.lxc]

USERS = ["daemon", "1", "1:1", "daemon:audio", "12345", "12345:29", "root", ""]


@pytest.mark.parametrize("files", [True, False])
def test_exec_is_as_run(engine: Engine, runtime: str, files: bool) -> None:
    script = "true" if files else "rm /etc/passwd /etc/group"
    engine.ok(
        *("run", "-d", "--name", "groups", "--runtime", runtime, "busybox"),
        *("sh", "-c", f"{script}; sleep 1000"),
    )
    for user in USERS:
        if not files and not user.replace(":", "").isdigit():
            continue
        flags = ("-u", user) if user else ()
        asked = ("sh", "-c", "id -u; id -g; id -G")
        by_exec = engine.ok("exec", *flags, "groups", *asked)
        if files:
            by_run = engine.ok("run", "--rm", "--runtime", runtime, *flags, "busybox", *asked)
            assert by_exec == by_run, user
        else:
            uid, _, gid = user.partition(":")
            assert by_exec.splitlines()[:2] == [uid, gid or "0"], user


def test_groups_that_were_added(engine: Engine, runtime: str) -> None:
    engine.ok(
        *("run", "-d", "--name", "groups", "--runtime", runtime, "--group-add", "audio"),
        *("--group-add", "777", "-u", "nobody", "busybox", "sleep", "1000"),
    )
    inside = set(engine.ok("exec", "groups", "id", "-G").split())
    assert {"29", "777", "65534"} <= inside
    line = engine.ok("exec", "-u", "0", "groups", "grep", "^Groups", "/proc/1/status")
    assert {"29", "777"} <= set(line.split())
