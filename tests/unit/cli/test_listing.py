"""What lists show: columns, formats and filters of ps and images, version and info."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.cli.answers import answer

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Isula
    from tests.unit.daemon.served import Served

SECOND = 10**9
DAY = 86400 * SECOND


def container(**values: Any) -> dict[str, Any]:
    now = time.time_ns()
    return {
        "id": "0123456789ab" + "c" * 52,
        "image": "busybox:latest",
        "command": "sleep 1000",
        "created_ns": now - 5 * DAY,
        "started_ns": now - 3 * 3600 * SECOND - SECOND,
        "finished_ns": 0,
        "state": "running",
        "exit_code": 0,
        "ports": "",
        "name": "web",
        "pid": 42,
        "restart_count": 2,
        "runtime": "lxc",
        **values,
    }


@pytest.fixture
def two(daemon: Served) -> None:
    ended = container(
        id="f" * 64,
        name="a-longer-name",
        command="a command of more than twenty two",
        state="exited",
        exit_code=137,
        finished_ns=time.time_ns() - 100 * SECOND,
    )
    daemon.methods["container.list"] = answer({"containers": [container(), ended]})


def columns(text: str) -> list[list[str]]:
    return [re.split(r" {3,}", line) for line in text.splitlines()]


@pytest.mark.usefixtures("two")
def test_columns_of_ps(isula: Isula) -> None:
    done = isula("ps", "-a")
    assert (done.status, done.err) == (0, "")
    heads, running, ended = done.out.splitlines()
    assert heads.split("   ")[0] == "CONTAINER ID"
    assert re.split(r" {2,}", heads) == [
        "CONTAINER ID",
        "IMAGE",
        "COMMAND",
        "CREATED",
        "STATUS",
        "PORTS",
        "NAMES",
    ]
    for title, cell in (
        ("CONTAINER ID", "0123456789ab "),
        ("IMAGE", "busybox:latest "),
        ("COMMAND", '"sleep 1000" '),
        ("CREATED", "5 days ago "),
        ("STATUS", "Up 3 hours "),
        ("NAMES", "web"),
    ):
        assert running[heads.index(title) :].startswith(cell), title
    assert ended[heads.index("COMMAND") :].startswith('"a command of more t..." ')
    assert ended[heads.index("STATUS") :].startswith("Exited (137) About a minute ago ")


@pytest.mark.usefixtures("two")
def test_whole_ids_and_commands(isula: Isula) -> None:
    out = isula("ps", "--no-trunc").out
    assert container()["id"] in out
    assert '"a command of more than twenty two"' in out
    assert isula("ps", "-q").out == f"{container()['id']}\n{'f' * 64}\n"


FORMATS = [
    ("{{.ID}}", "0123456789ab\nffffffffffff\n"),
    ("{{ .Names }}: {{.State}}", "web: running\na-longer-name: exited\n"),
    ("{{.Names}}\\t{{.ExitCode}}", "web\t0\na-longer-name\t137\n"),
    (
        "table {{.Names}}\\t{{.Pid}}",
        "NAMES           PID\nweb             42\na-longer-name   42\n",
    ),
    ("table {{.Runtime}}", "RUNTIME\nlxc\nlxc\n"),
    ("{{.Names}}\\\\n", "web\\n\na-longer-name\\n\n"),
    ("{{.RestartCount}} {{.Command}}", '2 "sleep 1000"\n2 "a command of more t..."\n'),
    ("text", "text\ntext\n"),
    ("", "\n\n"),
]


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize(("template", "out"), FORMATS)
def test_formats_of_ps(isula: Isula, template: str, out: str) -> None:
    assert isula("ps", "-a", "--format", template) == (0, out, "")


@pytest.mark.parametrize("template", ["{{.Bogus}}", "{{.id}}", "{{ID}}", "{{.ID", "{{json .ID}}"])
def test_a_format_of_unknown_fields_is_refused_before_asking(
    daemon: Served, isula: Isula, template: str
) -> None:
    done = isula("ps", "--format", template)
    assert (done.status, done.out) == (1, "")
    assert "unknown field" in done.err
    assert daemon.seen == []


ASKED = [
    ([], {}),
    (["-a"], {"all": True}),
    (["-l"], {"latest": True}),
    (["-n", "3"], {"last": 3}),
    (["-n", "-3"], {"last": 0}),
    (["-f", "status=exited"], {"all": True, "filters": {"status": ["exited"]}}),
    (
        ["-f", "Label = a=b", "--filter=label=c", "-f", "name=x"],
        {"filters": {"label": ["a=b", "c"], "name": ["x"]}},
    ),
]


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize(("words", "params"), ASKED)
def test_what_ps_asks_for(
    daemon: Served, isula: Isula, words: list[str], params: dict[str, Any]
) -> None:
    isula("ps", *words)
    asked = {"all": False, "latest": False, "last": 0, "filters": {}, **params}
    assert daemon.answers("container.list") == [asked]


@pytest.mark.parametrize("command", ["ps", "images"])
@pytest.mark.parametrize("word", ["status", "=x", ""])
def test_a_filter_without_a_value(isula: Isula, command: str, word: str) -> None:
    done = isula(command, "-f", word)
    assert done.status == 1
    assert f"Unrecognised filter value: {word}" in done.err


STATES: list[tuple[dict[str, Any], str]] = [
    ({"state": "inited"}, "Created"),
    ({"state": "running"}, "Up 3 hours"),
    ({"state": "running", "health": "healthy"}, "Up 3 hours (healthy)"),
    ({"state": "paused", "health": "healthy"}, "Up 3 hours (Paused)"),
    ({"state": "starting"}, "Starting 5 days ago"),
    ({"state": "exited", "exit_code": 3}, "Exited (3) -"),
    ({"state": "restarting", "exit_code": 1}, "Restarting (1) -"),
    ({"state": "of the future", "exit_code": 1}, "Exited (1) -"),
]


@pytest.mark.parametrize(("values", "text"), STATES)
def test_texts_of_the_status(
    daemon: Served, isula: Isula, values: dict[str, Any], text: str
) -> None:
    daemon.methods["container.list"] = answer({"containers": [container(**values)]})
    assert isula("ps", "--format", "{{.Status}}").out == f"{text}\n"


def test_columns_of_images(daemon: Served, isula: Isula) -> None:
    created = 1700000000 * SECOND
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(1700000000))
    digest = "sha256:" + "d" * 64
    images = [
        {
            "id": "sha256:" + "a" * 64,
            "names": [["docker.io/library/busybox", "1"], ["reg.example/x", "2"]],
            "digests": [f"docker.io/library/busybox@{digest}"],
            "created_ns": created,
            "size": 1234567,
        },
        {"id": "b" * 64, "names": [], "digests": [], "created_ns": created, "size": 999},
    ]
    daemon.methods["image.list"] = answer({"images": images})
    assert columns(isula("images").out) == [
        ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"],
        ["busybox", "1", "a" * 12, when, "1.23MB"],
        ["reg.example/x", "2", "a" * 12, when, "1.23MB"],
        ["<none>", "<none>", "b" * 12, when, "999B"],
    ]
    assert isula("images", "-q").out == f"{'a' * 12}\n{'b' * 12}\n"
    assert isula("images", "-q", "--no-trunc").out == f"{'a' * 64}\n{'b' * 64}\n"
    shown = columns(isula("images", "--digests").out)
    assert shown[1][:4] == ["busybox", "1", digest, "a" * 12]
    assert shown[3][2] == "<none>"


def test_version_shows_client_and_server(daemon: Served, isula: Isula) -> None:
    daemon.methods["version"] = answer(
        {"version": "9.9", "commit": "abc", "oci": {"version": "1.0.2", "default_file": "/x"}}
    )
    done = isula("version")
    assert (done.status, done.err) == (0, "")
    client, server = done.out.split("\n\n")[:2]
    assert re.match(r"Client:\n  Version:\t\d", client)
    assert server == "Server:\n  Version:\t9.9\n  Git commit:\tabc\n  Built:\tunknown"
    assert done.out.endswith("OCI config:\n  Version:\t1.0.2\n  Default file:\t/x\n")


def test_info_shows_lines_and_warnings(daemon: Served, isula: Isula) -> None:
    daemon.methods["info"] = answer(
        {
            "containers": 3,
            "running": 1,
            "storage_driver": "overlay",
            "storage_status": [["Backing Filesystem", "ext4"]],
            "total_memory": 3 << 29,
            "runtimes": ["lxc", "runc"],
            "http_proxy": "",
            "quarantined": 0,
            "emulators": [{"arch": "arm64", "path": "/usr/bin/qemu"}],
            "degraded": [{"feature": "swap", "state": "absent", "without": "no limit"}],
            "warnings": ["no swap"],
        }
    )
    done = isula("info")
    lines = done.out.splitlines()
    for line in (
        "Containers: 3",
        " Running: 1",
        "Storage Driver: overlay",
        " Backing Filesystem: ext4",
        "Total Memory: 1.5GiB",
        "Runtimes: lxc, runc",
        "Quarantined: 0",
        "Emulator: arm64 (/usr/bin/qemu)",
        "Degraded: swap: absent; without it: no limit",
    ):
        assert line in lines
    assert not any(line.startswith("Http Proxy") for line in lines)
    assert done.err == "WARNING: no swap\n"
