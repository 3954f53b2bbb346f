"""The program that LXC executes for ambient capabilities and a umask."""

from __future__ import annotations

import stat
import struct
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
    assert lxc_user.needed(described) is needed
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
    data = lxc_user.build(described, machine)[HEADERS:]
    version, pid, *halves = struct.unpack_from("<2I6I", data)
    assert (version, pid) == (0x20080522, 0)
    # effective, permitted, inheritable: KILL is 5, SYSLOG 34
    assert halves == [1 << 5] * 3 + [1 << 2] * 3


def test_another_machine() -> None:
    with pytest.raises(errors.Unimplemented) as found:
        lxc_user.build(process(0, 0), "riscv64")
    assert "riscv64" in str(found.value)
    assert "runc" in found.value.hint


def test_it_is_written_where_any_user_may_execute_it(tmp_path: Path) -> None:
    path = lxc_user.install(str(tmp_path), process(0, 0o27))
    assert path == f"{tmp_path}/{lxc_user.NAME}"
    assert stat.S_IMODE((tmp_path / lxc_user.NAME).stat().st_mode) == 0o755
