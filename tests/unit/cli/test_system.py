"""``isula system``: what its commands send, print and end with."""

from __future__ import annotations

import json
import os
import pty
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.cli.answers import answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.unit.cli.conftest import Done, Isula
    from tests.unit.daemon.served import Served

    System = Callable[..., Done]

ROWS = [
    {"type": "Images", "total": 2, "active": 1, "size": 3_000_000, "reclaimable": 1_000_000},
    {"type": "Containers", "total": 1, "active": 0, "size": 0, "reclaimable": 0},
    {"type": "Leftovers", "total": 1, "active": 0, "size": 4096, "reclaimable": 4096},
]
IMAGE = {
    "id": "a" * 64,
    "names": [["busybox", "latest"], ["other", "v1"]],
    "digests": [],
    "created_ns": 0,
    "size": 3_000_000,
    "shared": 1_000_000,
    "unique": 2_000_000,
    "containers": 1,
}
CONTAINER = {
    "id": "b" * 64,
    "name": "web",
    "image": "busybox",
    "command": "sleep 1000 and a lot of other words",
    "created_ns": 0,
    "finished_ns": 0,
    "exit_code": 3,
    "state": "exited",
    "size": 8192,
}
USAGE = {"rows": ROWS, "images": [IMAGE], "containers": [CONTAINER], "total": 3_004_096}
PRUNED = {
    "containers": ["b" * 64],
    "images": [{"untagged": "busybox:latest"}, {"deleted": f"sha256:{'a' * 64}"}],
    "downloads": 2,
    "leftovers": 1,
    "reclaimed": 3_004_096,
}
WHOLE: dict[str, Any] = {
    "problems": [],
    "unverified": [],
    "quarantined": [],
    "images": 1,
    "layers": 2,
    "containers": 0,
}
PROBLEM = {
    "kind": "layer",
    "ref": "sha256:1",
    "names": ["busybox:latest"],
    "problem": "its tree is gone",
    "repaired": "",
}


@pytest.fixture
def system(daemon: Served, isula: Isula) -> System:
    daemon.methods |= {
        "system.df": answer(USAGE),
        "system.prune": answer(PRUNED),
        "system.check": answer(WHOLE),
    }
    return lambda *words: isula("system", *words)


@pytest.fixture
def terminal() -> Iterator[Callable[[bytes], None]]:
    """Standard input is a terminal at which somebody types."""
    typing, shown = pty.openpty()
    before = os.dup(0)
    os.dup2(shown, 0)

    def type_in(text: bytes) -> None:
        os.write(typing, text)

    try:
        yield type_in
    finally:
        os.dup2(before, 0)
        for fd in (before, typing, shown):
            os.close(fd)


def test_the_table(system: System) -> None:
    status, out, err = system("df")
    assert (status, err) == (0, "")
    assert out == (
        "TYPE         TOTAL   ACTIVE   SIZE    RECLAIMABLE\n"
        "Images       2       1        3MB     1MB (33%)\n"
        "Containers   1       0        0B      0B\n"
        "Leftovers    1       0        4.1kB   4.1kB (100%)\n"
    )


def test_a_line_of_json_for_each_row(system: System) -> None:
    status, out, _ = system("df", "--format", "json")
    assert status == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["Type"] for row in rows] == ["Images", "Containers", "Leftovers"]
    assert rows[0] == {
        "Type": "Images",
        "TotalCount": "2",
        "Active": "1",
        "Size": "3MB",
        "Reclaimable": "1MB (33%)",
        "Bytes": 3_000_000,
    }
    status, out, _ = system("df", "-v", "--format", "json")
    assert (status, json.loads(out)) == (0, USAGE)


def test_a_format_of_fields(system: System) -> None:
    assert system("df", "--format", "{{.Type}}={{ .Size }}")[1].splitlines()[0] == "Images=3MB"
    headed = system("df", "--format", r"table {{.Type}}\t{{.Active}}")[1].splitlines()
    assert headed[0].split() == ["TYPE", "ACTIVE"]
    assert headed[1].split() == ["Images", "1"]
    for wrong in ("{{.Nothing}}", "{{.Type"):
        status, out, err = system("df", "--format", wrong)
        assert (status, out) == (1, "")
        assert "unknown field" in err
    assert system("df", "-v", "--format", "{{.Type}}")[0] == 1


def test_every_image_and_container(system: System) -> None:
    status, out, _ = system("df", "-v")
    assert status == 0
    images, containers, rest = out.split("\n\n", 1)[1].split("space usage:")
    lines = images.splitlines()
    assert lines[0].split("  ")[0] == "REPOSITORY"
    assert lines[1].split()[:3] == ["busybox", "latest", "a" * 12]
    assert lines[2].split()[:2] == ["other", "v1"]
    assert lines[1].split()[-4:] == ["3MB", "1MB", "2MB", "1"]
    assert '"sleep 1000 and a lo..."' in containers
    assert "8.19kB" in containers
    assert rest.strip() == "4.1kB"


def test_what_was_removed_is_listed(system: System, daemon: Served) -> None:
    status, out, err = system("prune", "-f", "-a", "--filter", "until=10m", "--filter", "label=a")
    assert (status, err) == (0, "")
    assert out == (
        f"Deleted Containers:\n{'b' * 64}\n\n"
        f"Deleted Images:\nuntagged: busybox:latest\ndeleted: sha256:{'a' * 64}\n\n"
        "Deleted Unfinished Downloads: 2\n\nDeleted Leftovers: 1\n\n"
        "Total reclaimed space: 3MB\n"
    )
    (params,) = daemon.answers("system.prune")
    assert params["all"] is True
    assert params["filters"]["label"] == ["a"]
    assert int(params["filters"]["until"][0]) > 10**18


def test_nothing_is_removed_without_an_answer(
    system: System, daemon: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("posix.isatty", lambda _fd: False)
    status, out, err = system("prune")
    assert (status, out) == (1, "")
    assert "give -f" in err
    assert daemon.answers("system.prune") == []


@pytest.mark.parametrize(
    ("typed", "asked"), [(b"y\n", 1), (b"Y\n", 1), (b"n\n", 0), (b"\n", 0), (b"\x04", 0)]
)
def test_the_user_is_asked(
    system: System,
    daemon: Served,
    terminal: Callable[[bytes], None],
    typed: bytes,
    asked: int,
) -> None:
    terminal(typed)
    status, out, _ = system("prune", "-a")
    assert status == 0
    assert "  - all images that no container uses\n" in out
    assert "Are you sure you want to continue? [y/N] " in out
    assert len(daemon.answers("system.prune")) == asked
    assert ("Total reclaimed space" in out) == bool(asked)


def test_nothing_is_wrong(system: System, daemon: Served) -> None:
    assert system("check", "--quick") == (
        0,
        "Checked 1 images, 2 layers, 0 containers: no problems\n",
        "",
    )
    assert daemon.answers("system.check") == [{"repair": False, "quick": True}]


@pytest.mark.parametrize(("repaired", "status"), [("", 1), ("fetched again", 0)])
def test_problems_decide_the_exit_status(
    system: System, daemon: Served, repaired: str, status: int
) -> None:
    problem = {**PROBLEM, "repaired": repaired}
    found = {**WHOLE, "problems": [problem], "unverified": ["x"], "quarantined": ["a", "b"]}
    daemon.methods["system.check"] = answer(found, ("v", {"id": "x", "current": 1, "total": 2}))
    code, out, err = system("check", "--repair")
    assert (code, err) == (status, "")
    tail = " [fetched again]" if repaired else ""
    assert out.splitlines()[0] == f"layer sha256:1 (busybox:latest): its tree is gone{tail}"
    assert "1 layers have no recipe" in out
    assert "2 things are in quarantine" in out
    assert out.splitlines()[-1].endswith("no problems" if repaired else "1 problem")
    code, out, _ = system("check", "--format", "json")
    assert (code, json.loads(out)) == (status, found)


@pytest.mark.parametrize(("name", "method"), [("info", "info"), ("events", "events")])
def test_docker_s_names_of_other_commands(
    system: System, daemon: Served, name: str, method: str
) -> None:
    daemon.methods[method] = answer({})
    assert system(name)[0] == 0
    assert len(daemon.answers(method)) == 1


@pytest.mark.parametrize("name", ["df", "prune", "check", "info", "events"])
def test_arguments_are_refused(system: System, name: str) -> None:
    status, out, err = system(name, "extra")
    assert (status, out) == (1, "")
    assert f'"system {name}" requires 0 arguments.' in err
    assert f"See 'isula system {name} --help'." in err


def test_common_flags_stand_anywhere(system: System, daemon: Served) -> None:
    assert system("-D", "df", "--format", "{{.Type}}")[0] == 0
    assert len(daemon.answers("system.df")) == 1
