"""``isula emulator``: what its commands send, print and end with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from tests.unit.cli.answers import answer, refusal

if TYPE_CHECKING:
    from isula_edge.daemon.server import Session
    from tests.unit.cli.conftest import Isula
    from tests.unit.daemon.served import Served


def row(arch: str, state: str, **more: str) -> dict[str, str]:
    return {
        "arch": arch,
        "name": f"qemu-{arch}",
        "path": "",
        "flags": "",
        "state": state,
        "reason": "",
        **more,
    }


ROWS = [
    row("amd64", "native"),
    row("arm", "absent", reason="package qemu-user-static"),
    row("arm64", "registered", path="/usr/bin/a", flags="OCF"),
    row("mips", "unusable", path="/usr/bin/m", reason="it is not static"),
    row("riscv64", "available", path="/usr/bin/r"),
]


@pytest.fixture
def asked(daemon: Served) -> list[dict[str, Any]]:
    """A daemon with emulators; what it is asked to install or remove."""
    seen: list[dict[str, Any]] = []

    async def install(params: dict[str, Any], _session: Session) -> dict[str, Any]:
        seen.append(params)
        found = next(one for one in ROWS if one["arch"] == params["arch"])
        return {**found, "changed": found["state"] != "registered" or params["force"]}

    async def remove(params: dict[str, Any], _session: Session) -> dict[str, Any]:
        seen.append(params)
        return {"arch": params["arch"], "names": ["theirs", "ours"]}

    daemon.methods |= {
        "emulator.list": answer({"emulators": ROWS}),
        "emulator.install": install,
        "emulator.remove": remove,
    }
    return seen


@pytest.mark.usefixtures("asked")
def test_they_are_listed(isula: Isula) -> None:
    done = isula("emulator", "ls")
    lines = [line.split("   ") for line in done.out.splitlines()]
    assert [word.strip() for word in lines[0] if word] == [
        "ARCH", "STATE", "EMULATOR", "FLAGS", "PATH",
    ]  # fmt: skip
    assert "mips      unusable (it is not static)" in done.out
    assert "arm       absent (package qemu-user-static)" in done.out
    assert isula("emulator", "ls", "-q").out == "amd64\narm64\n"
    listed = isula("emulator", "ls", "--format", "json").out.splitlines()
    assert [json.loads(line) for line in listed] == ROWS
    wrong = isula("emulator", "ls", "--format", "{{.Arch}}")
    assert (wrong.status, "it may be json" in wrong.err) == (1, True)


def test_one_is_installed(isula: Isula, asked: list[dict[str, Any]]) -> None:
    assert isula("emulator", "install", "riscv64") == (0, "riscv64: /usr/bin/r registered\n", "")
    done = isula("emulator", "install", "arm64")
    assert done.out == "arm64: /usr/bin/a is registered already\n"
    assert isula("emulator", "install", "-q", "arm64").out == ""
    assert isula("emulator", "install", "-f", "arm64").out == "arm64: /usr/bin/a registered\n"
    assert [(one["arch"], one["force"]) for one in asked] == [
        ("riscv64", False), ("arm64", False), ("arm64", False), ("arm64", True),
    ]  # fmt: skip


def test_all_are_those_that_there_are(isula: Isula, asked: list[dict[str, Any]]) -> None:
    done = isula("emulator", "install", "all")
    assert done.status == 0
    assert done.err == "arm: qemu-arm-static is not installed, package qemu-user-static\n"
    # what is of no use too, so that the daemon says why
    assert [one["arch"] for one in asked] == ["arm64", "mips", "riscv64"]
    done = isula("emulator", "install", "all", "arm")
    assert (done.status, "all stands alone" in done.err) == (1, True)


def test_all_where_none_is_installed(isula: Isula, daemon: Served) -> None:
    daemon.methods["emulator.list"] = answer({"emulators": ROWS[:2]})
    done = isula("emulator", "install", "all")
    assert done.status == 1
    assert "no emulator is installed; Debian's package is qemu-user-static" in done.err


def test_what_is_refused_holds_up_no_other(isula: Isula, daemon: Served) -> None:
    daemon.methods["emulator.install"] = refusal(errors.NotFound("qemu-x is not installed"))
    done = isula("emulator", "install", "arm", "mips")
    assert (done.status, done.out) == (1, "")
    assert done.err.count("qemu-x is not installed") == 2


def test_one_is_taken_back(isula: Isula, asked: list[dict[str, Any]]) -> None:
    done = isula("emulator", "rm", "arm64")
    assert done == (0, "arm64: theirs, ours is registered no more\n", "")
    assert [one["arch"] for one in asked] == ["arm64"]
    assert isula("emulator", "rm").status == 1
