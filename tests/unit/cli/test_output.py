"""What commands print for what the daemon answers: texts, formats, and exit statuses."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from isula_cli import listing
from isula_cli.human import table
from isula_edge import errors
from tests.unit.cli.answers import answer, refusal

if TYPE_CHECKING:
    from isula_edge.daemon.server import Session
    from tests.unit.cli.conftest import Isula
    from tests.unit.daemon.served import Served

INSPECTED = {
    "Id": "x",
    "State": {"Pid": 5, "Running": True, "Error": "", "Name": "ü"},
    "List": [1, "a"],
}


def test_inspect_prints_an_array(daemon: Served, isula: Isula) -> None:
    daemon.methods["inspect"] = answer({"kind": "container", "object": INSPECTED})
    done = isula("inspect", "a", "b")
    assert json.loads(done.out) == [INSPECTED, INSPECTED]
    assert done.out.startswith('[\n    {\n        "Id": "x",')
    asked = [{"ref": name, "kind": "any", "timeout_s": 120} for name in "ab"]
    assert daemon.answers("inspect") == asked


TEMPLATES = [
    ("{{.Id}}", "x\n"),
    ("{{.State.Pid}}", "5\n"),
    ("{{ .State.Running }}", "true\n"),
    ("{{json .Id}}", '"x"\n'),
    ("{{json .State}}", '{"Pid":5,"Running":true,"Error":"","Name":"ü"}\n'),
    ("{{.List}}", '[1,"a"]\n'),
    ("{{.Id}}={{.State.Pid}}", "x=5\n"),
    ("{{.Id}} {{.State.Pid}}", "x\n5\n"),
    ("text", "text\n"),
]


@pytest.mark.parametrize(("template", "out"), TEMPLATES)
def test_formats_of_inspect(daemon: Served, isula: Isula, template: str, out: str) -> None:
    daemon.methods["inspect"] = answer({"kind": "container", "object": INSPECTED})
    assert isula("inspect", "-f", template, "a") == (0, out, "")


def test_a_field_that_is_not_there(daemon: Served, isula: Isula) -> None:
    daemon.methods["inspect"] = answer({"kind": "container", "object": INSPECTED})
    done = isula("inspect", "-f", "{{.State.Nothing}}", "a")
    assert (done.status, done.out) == (1, "")
    assert 'map has no entry for key "Nothing"' in done.err


@pytest.mark.parametrize("template", ["{{Id}}", "{{range .List}}", "{{.Id", "{{.Id | json}}"])
def test_a_template_of_another_form(daemon: Served, isula: Isula, template: str) -> None:
    daemon.methods["inspect"] = answer({"kind": "container", "object": INSPECTED})
    done = isula("inspect", "-f", template, "a")
    assert done.status == 1
    assert "invalid format" in done.err


def test_inspect_prints_what_it_found_and_fails_in_the_end(daemon: Served, isula: Isula) -> None:
    async def some(params: dict[str, Any], _session: Session) -> dict[str, Any]:
        if params["ref"] == "absent":
            raise errors.NotFound("No such image or container:absent")
        return {"kind": "container", "object": {"Id": params["ref"]}}

    daemon.methods["inspect"] = some
    done = isula("inspect", "a", "absent", "b")
    assert done.status == 1
    assert [item["Id"] for item in json.loads(done.out)] == ["a", "b"]
    assert "No such image or container:absent" in done.err


TARGETS = ["start", "stop", "restart", "kill", "rm", "pause", "unpause"]


@pytest.mark.parametrize("command", TARGETS)
def test_commands_of_several_targets_go_on_and_fail_in_the_end(
    daemon: Served, isula: Isula, command: str
) -> None:
    async def some(params: dict[str, Any], _session: Session) -> dict[str, Any]:
        if params["ref"] == "bad":
            raise errors.FailedPrecondition("bad is bad", hint="be good")
        return {"id": params["ref"]}

    method = "container.remove" if command == "rm" else f"container.{command}"
    daemon.methods[method] = some
    done = isula(command, "a", "bad", "b")
    assert done.status == 1
    assert done.out == ("" if command == "start" else "a\nb\n")
    assert done.err == "Error response from daemon: bad is bad\nHint: be good\n"
    assert [params["ref"] for params in daemon.answers(method)] == ["a", "bad", "b"]
    assert isula(command, "a").status == 0


def test_a_thousand_targets_are_the_limit(isula: Isula) -> None:
    done = isula("rm", *["x"] * 1001)
    assert done.status == 1
    assert "too many" in done.err


def test_wait_prints_a_code_per_line(daemon: Served, isula: Isula) -> None:
    daemon.methods["container.wait"] = answer({"exit_code": 137})
    assert isula("wait", "a", "b") == (0, "137\n137\n", "")


def test_logs_keep_their_streams_apart(daemon: Served, isula: Isula) -> None:
    daemon.methods["container.logs"] = answer({}, ("o", b"out\n"), ("E", b"err\n"), ("o", b"end"))
    assert isula("logs", "--tail", "2", "web") == (0, "out\nend", "err\n")
    (asked,) = daemon.answers("container.logs")
    assert (asked["tail"], asked["follow"], asked["timestamps"]) == (2, False, False)


@pytest.mark.parametrize("tail", ["all", "-5", "x", ""])
def test_a_tail_that_is_no_number_is_everything(daemon: Served, isula: Isula, tail: str) -> None:
    daemon.methods["container.logs"] = answer({})
    isula("logs", "--tail", tail, "web")
    assert daemon.answers("container.logs")[0]["tail"] == -1


def test_a_line_per_event(daemon: Served, isula: Isula) -> None:
    event = {"time_ns": 123456789, "kind": "container", "action": "die", "id": "x"}
    daemon.methods["events"] = answer(
        {}, ("v", event), ("v", {**event, "attributes": {"exitCode": "1", "name": "web"}})
    )
    lines = isula("events").out.splitlines()
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.123456789(Z|[+-]\d\d:\d\d)"
    assert re.fullmatch(f"{stamp} container die x", lines[0])
    assert re.fullmatch(f"{stamp} container die x \\(exitCode=1, name=web\\)", lines[1])


def test_pull_speaks_on_standard_error(daemon: Served, isula: Isula) -> None:
    result = {"ref": "docker.io/library/busybox:latest", "id": "x"}
    daemon.methods["image.pull"] = answer(result)
    done = isula("pull", "busybox")
    assert done == (0, "", 'Image "busybox" pulling\nImage "busybox" pulled\n')
    assert isula("pull", "-q", "busybox") == (0, "docker.io/library/busybox:latest\n", "")


def test_other_commands_on_images(daemon: Served, isula: Isula) -> None:
    daemon.methods["image.load"] = answer({"images": ["a:1", "b:2"]})
    daemon.methods["image.import"] = answer({"id": "x"})
    daemon.methods["image.remove"] = answer({"removed": "a", "deleted": True})
    daemon.methods["image.tag"] = answer({})
    assert isula("load", "-i", "/a.tar").out == "Loaded image: a:1\nLoaded image: b:2\n"
    assert isula("import", "/a.tar", "b").out == "x\n"
    assert isula("rmi", "a", "b").out == 'Image "a" removed\nImage "b" removed\n'
    assert isula("tag", "a", "b") == (0, "", "")
    assert isula("load").status == 1


EXITS = [
    (errors.NotFound("No such container:x"), "top", ["x"], 1),
    (errors.InvalidArgument("bad flag"), "top", ["x"], 125),
    (errors.NotFound("No such container:x"), "exec", ["x", "ls"], 125),
    (errors.CommandNotFound("not there"), "exec", ["x", "ls"], 127),
    (errors.CommandNotExecutable("may not"), "exec", ["x", "ls"], 126),
]


@pytest.mark.parametrize(("error", "command", "words", "status"), EXITS)
def test_exit_statuses_of_errors(
    daemon: Served,
    isula: Isula,
    error: errors.EngineError,
    command: str,
    words: list[str],
    status: int,
) -> None:
    daemon.methods[f"container.{command}"] = refusal(error)
    done = isula(command, *words)
    assert done.status == status
    assert done.err == f"Error response from daemon: {error}\n"


EVIL = "a\x1b]0;title\x07\u202e\udcff"
SPELT = r"a\x1b]0;title\x07\u202e\udcff"


def test_errors_and_warnings_do_not_reach_the_terminal_as_they_are(
    daemon: Served, isula: Isula
) -> None:
    daemon.methods["inspect"] = refusal(errors.NotFound(f"no {EVIL[:-1]}\nline", hint=EVIL[:-1]))
    done = isula("inspect", "x")
    spelt = SPELT.removesuffix(r"\udcff")
    assert done.err == f"Error response from daemon: no {spelt}\nline\nHint: {spelt}\n"


def test_cells_of_tables_are_on_one_line_without_control_characters() -> None:
    assert table([["x", f"{EVIL}\n\u00e9"], ["y", "z"]]) == f"x   {SPELT}\\n\u00e9\ny   z\n"
    parts = listing.parse("table {{.Image}}\t{{.Names}}\\n-")
    rows = [{"Image": "i\tj\n", "Names": EVIL}]
    lines = listing.fill(parts, rows).splitlines()
    assert lines == ["IMAGE    NAMES", "-", f"i\\tj\\n   {SPELT}", "-"]
