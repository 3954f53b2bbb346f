"""Capabilities that a container gets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from isula_edge import errors
from isula_edge.oci import capabilities
from isula_edge.oci.capabilities import ALL, DEFAULT, choose, named


@pytest.fixture(autouse=True)
def everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine may hand on whatever there is."""
    monkeypatch.setattr(capabilities, "bounding_set", lambda: frozenset(ALL))


def short(names: list[str]) -> set[str]:
    assert all(name.startswith("CAP_") for name in names)
    return {name.removeprefix("CAP_") for name in names}


def test_the_usual_fourteen() -> None:
    assert len(DEFAULT) == 14
    assert short(choose([], [])) == set(DEFAULT)


def test_they_come_in_the_order_of_their_numbers() -> None:
    found = choose(["SYSLOG", "SYS_ADMIN", "BPF"], [])
    assert [ALL.index(name.removeprefix("CAP_")) for name in found] == sorted(
        ALL.index(name.removeprefix("CAP_")) for name in found
    )


def test_every_capability_has_its_number() -> None:
    """linux/capability.h; the kernel that runs this may know more, or fewer."""
    assert len(ALL) == len(set(ALL)) == 41
    for name, number in (
        ("CHOWN", 0), ("KILL", 5), ("NET_ADMIN", 12), ("SYS_ADMIN", 21), ("MKNOD", 27),
        ("SETFCAP", 31), ("SYSLOG", 34), ("AUDIT_READ", 37), ("CHECKPOINT_RESTORE", 40),
    ):  # fmt: skip
        assert ALL[number] == name


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        (["NET_ADMIN"], [], {*DEFAULT, "NET_ADMIN"}),
        (["CAP_NET_ADMIN"], [], {*DEFAULT, "NET_ADMIN"}),
        (["cap_net_admin"], [], {*DEFAULT, "NET_ADMIN"}),
        (["net_admin", "KILL"], [], {*DEFAULT, "NET_ADMIN"}),
        ([], ["KILL"], set(DEFAULT) - {"KILL"}),
        ([], ["CAP_KILL", "sys_admin"], set(DEFAULT) - {"KILL"}),
        (["KILL"], ["KILL"], set(DEFAULT) - {"KILL"}),
        ([], ["ALL"], set()),
        (["KILL"], ["all"], {"KILL"}),
        (["KILL", "CHOWN"], ["ALL", "CHOWN"], {"KILL"}),
        (["ALL"], [], set(ALL)),
        (["all"], ["SYS_ADMIN"], set(ALL) - {"SYS_ADMIN"}),
        (["ALL"], ["ALL"], set(ALL)),
    ],
)
def test_adding_and_dropping(add: list[str], drop: list[str], expected: set[str]) -> None:
    assert short(choose(add, drop)) == expected


def test_a_privileged_container_has_all_whatever_is_dropped() -> None:
    assert short(choose([], ["ALL"], privileged=True)) == set(ALL)


def test_nobody_gets_what_the_engine_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "bounding_set", lambda: frozenset({"KILL", "SYS_ADMIN"}))
    assert choose([], []) == ["CAP_KILL"]
    assert choose(["ALL"], []) == ["CAP_KILL", "CAP_SYS_ADMIN"]
    assert choose([], [], privileged=True) == ["CAP_KILL", "CAP_SYS_ADMIN"]


@pytest.mark.parametrize("name", ["SYS_ROOT", "", "CAP_", "CAP_CAP_KILL", "KILL "])
def test_an_unknown_name_is_refused_as_it_was_written(name: str) -> None:
    with pytest.raises(errors.InvalidArgument) as found:
        choose([name], [])
    assert str(found.value) == f"Unknown capability to add: '{name}'"
    with pytest.raises(errors.InvalidArgument) as found:
        choose([], [name])
    assert str(found.value) == f"Unknown capability to drop: '{name}'"


def test_an_unknown_name_is_refused_even_when_it_would_not_matter() -> None:
    with pytest.raises(errors.InvalidArgument):
        choose(["SYS_ROOT"], [], privileged=True)


def test_the_bounding_set_is_the_engines_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    bits = re.search(r"^CapBnd:\s*(\w+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert bits is not None
    found = capabilities.bounding_set()
    for number, name in enumerate(ALL):
        assert (name in found) is bool(int(bits[1], 16) >> number & 1)


def test_ambient_ones_are_there_whatever_is_dropped() -> None:
    assert short(choose([], ["ALL"], also=["SYS_TIME"])) == {"SYS_TIME"}
    assert short(choose([], ["SYS_TIME"], also=["sys_time"])) == {*DEFAULT, "SYS_TIME"}
    with pytest.raises(errors.InvalidArgument):
        choose([], [], also=["NOTHING"])


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert named(["SYS_TIME", "cap_kill", "KILL"]) == ["CAP_KILL", "CAP_SYS_TIME"]
    assert short(named(["all"])) == set(ALL)
    monkeypatch.setattr(capabilities, "bounding_set", lambda: frozenset({"KILL"}))
    assert named(["SYS_TIME", "KILL"]) == ["CAP_KILL"]
