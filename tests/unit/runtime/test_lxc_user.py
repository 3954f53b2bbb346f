"""The program that LXC executes for ambient capabilities and a umask."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.runtime import lxc_user
from isula_edge.sys.elf_program import HEADERS

if TYPE_CHECKING:
    from pathlib import Path


def process(
    uid: int = 0, umask: int | None = None, ambient: tuple[str, ...] = (), *bounding: str
) -> dict[str, Any]:
    sets = {name: [*ambient, *bounding] for name in ("bounding", "effective", "permitted")}
    if uid:
        sets["effective"] = sets["permitted"] = list(ambient)
    if ambient:
        sets["ambient"] = sets["inheritable"] = list(ambient)
    user = {"uid": uid} if umask is None else {"uid": uid, "umask": umask}
    return {"user": user, "capabilities": sets}


@pytest.mark.parametrize(
    ("described", "needed", "uid"),
    [
        ({}, False, 0),
        (process(1000), False, 1000),
        (process(1000, 0), True, 1000),
        (process(0, None, ("CAP_KILL",)), True, 0),
        (process(1000, None, ("CAP_KILL",)), True, 0),
    ],
)
def test_when_it_is_needed(described: dict[str, Any], needed: bool, uid: int) -> None:
    assert lxc_user.needed({"process": described}) is needed
    assert lxc_user.init_uid(described) == uid


def test_what_is_kept_for_it() -> None:
    ambient = ("CAP_KILL",)
    assert lxc_user.kept(process(0, None, ambient)) == ["CAP_KILL"]
    assert lxc_user.kept(process(1000, 0, ())) == []
    found = lxc_user.kept(process(1000, None, ambient, "CAP_SETUID"))
    assert found == ["CAP_KILL", "CAP_SETUID", "CAP_CHOWN", "CAP_SETPCAP"]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_sets_of_capabilities(machine: str) -> None:
    described = process(1000, None, ("CAP_KILL", "CAP_SYSLOG"), "CAP_CHOWN")
    data = lxc_user.build({"process": described}, machine)[HEADERS:]
    version, pid, *halves = struct.unpack_from("<2I6I", data)
    assert (version, pid) == (0x20080522, 0)
    # effective, permitted, inheritable: KILL is 5, SYSLOG 34
    assert halves == [1 << 5] * 3 + [1 << 2] * 3


@pytest.mark.parametrize(
    ("field", "extra"),
    [
        ({"scheduler": {"policy": "SCHED_BATCH"}}, ["CAP_SYS_NICE", "CAP_SETPCAP"]),
        ({"ioPriority": {"class": "IOPRIO_CLASS_RT"}}, ["CAP_SYS_NICE", "CAP_SETPCAP"]),
    ],
)
def test_priorities_need_a_capability_that_is_taken_away(
    field: dict[str, Any], extra: list[str]
) -> None:
    assert lxc_user.kept(process(0, None, (), "CAP_KILL") | field) == ["CAP_KILL", *extra]
    changing = lxc_user.kept(process(5, None, ()) | field)
    assert changing == ["CAP_CHOWN", "CAP_SETUID", *extra]
    assert lxc_user.init_uid(process(5) | field) == 0


@pytest.mark.parametrize(
    "document",
    [
        {"process": {"env": ["A=one\ntwo"]}},
        {"process": {"env": ["A=\r"]}},
        {"process": {"env": ["A\nB=1"]}},
        {"process": {"env": ["container=podman"]}},
        {"linux": {"sysctl": {"net.ipv4.ip_forward": "1"}}},
        {"linux": {"devices": [{"path": "/dev/x", "type": "p"}]}},
        {"hooks": {"createContainer": [{"path": "/bin/true"}]}},
        {"domainname": "edge"},
    ],
)
def test_when_it_carries_the_environment(document: dict[str, Any]) -> None:
    assert lxc_user.carries_environment(document)
    assert lxc_user.needed(document)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"process": {"env": ["A=1", "PATH=/bin"]}, "linux": {"sysctl": {}, "devices": None}},
        {"hooks": {"prestart": [{"path": "/bin/true"}], "startContainer": [{"path": "/x"}]}},
    ],
)
def test_when_lxc_gives_the_environment(document: dict[str, Any]) -> None:
    assert not lxc_user.carries_environment(document)


def test_the_later_of_two_variables_counts() -> None:
    assert lxc_user.variables({"env": ["A=1", "B==", "A=2"]}) == {"A": "2", "B": "="}


ENVIRONMENT = ["A=one\ntwo", "E=", "X=\udcff é \U0001f600 \"' $(id) %s \\ ", "L=" + "y" * 70_000,
               "A B=#", "-i=1"]  # fmt: skip


@pytest.mark.native
def test_it_gives_exactly_this_environment(tmp_path: Path) -> None:
    """And sets what else it is for."""
    document = {
        "process": {
            "env": ENVIRONMENT,
            "user": {"umask": 0o27},
            "scheduler": {"policy": "SCHED_BATCH", "nice": 5},
            "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 3},
            "capabilities": {"bounding": ["CAP_SYS_NICE", "CAP_SETPCAP"]},
        }
    }
    path = lxc_user.install(str(tmp_path), document)
    code = (
        "import os, sys; os.umask(0) == 0o27 or sys.exit(1); "
        "os.sched_getscheduler(0) == os.SCHED_BATCH and os.nice(0) == 5 or sys.exit(2); "
        "sys.stdout.buffer.write(b'\\0'.join(k + b'=' + v for k, v in os.environb.items()))"
    )
    done = subprocess.run(
        [path, sys.executable, "-I", "-c", code], capture_output=True, check=True, env={"NO": "1"}
    )
    found = [os.fsdecode(pair) for pair in done.stdout.split(b"\0")]
    assert [pair for pair in found if not pair.startswith("LC_CTYPE=")] == ENVIRONMENT


def test_another_machine() -> None:
    with pytest.raises(errors.Unimplemented) as found:
        lxc_user.build({"process": process(0, 0)}, "sparc64")
    assert "sparc64" in str(found.value)
    assert "runc" in found.value.hint


def test_it_is_written_where_any_user_may_execute_it(tmp_path: Path) -> None:
    path = lxc_user.install(str(tmp_path), {"process": process(0, 0o27)})
    assert path == f"{tmp_path}/{lxc_user.NAME}"
    assert stat.S_IMODE((tmp_path / lxc_user.NAME).stat().st_mode) == 0o755
