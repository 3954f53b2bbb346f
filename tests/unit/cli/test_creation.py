"""What create and run send: options, variables, labels, id files, and missing images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from tests.unit.cli.answers import answer, refusal

if TYPE_CHECKING:
    from pathlib import Path

    from isula_edge.daemon.server import Session
    from tests.unit.cli.conftest import Isula
    from tests.unit.daemon.served import Served


@pytest.fixture
def created(daemon: Served) -> Served:
    daemon.methods["container.create"] = answer({"id": "x" * 64, "warnings": []})
    return daemon


def sent(daemon: Served) -> dict[str, Any]:
    (found,) = daemon.answers("container.create")
    return found


def test_create_prints_the_whole_id(created: Served, isula: Isula) -> None:
    assert isula("create", "busybox") == (0, "x" * 64 + "\n", "")
    assert sent(created) == {"image": "busybox", "command": [], "options": {}}


def test_warnings_go_to_standard_error(daemon: Served, isula: Isula) -> None:
    daemon.methods["container.create"] = answer({"id": "x", "warnings": ["no swap", "no cpu"]})
    assert isula("create", "busybox") == (0, "x\n", "WARNING: no swap\nWARNING: no cpu\n")


def test_options_are_sent_under_their_names(created: Served, isula: Isula) -> None:
    words = "-itm 64m --cpu-shares=5 -v /a:/b -v /c --network host --read-only=false --name web"
    isula("create", *words.split(), "-R", "runc", "busybox", "sh", "-c", "exit")
    assert sent(created) == {
        "image": "busybox",
        "command": ["sh", "-c", "exit"],
        "name": "web",
        "runtime": "runc",
        "options": {
            "interactive": True,
            "tty": True,
            "memory": "64m",
            "cpu_shares": "5",
            "volume": ["/a:/b", "/c"],
            "net": "host",
            "read_only": False,
        },
    }


def test_variables_and_labels_of_files_come_first(
    created: Served, isula: Isula, tmp_path: Path
) -> None:
    (tmp_path / "env").write_bytes(b"A=1\n\n#B=2\r\nC=x=y\nEMPTY=\nISULA_ABSENT\nLAST=z")
    (tmp_path / "label").write_text("one\ntwo=2\n")
    words = ["--env-file", f"{tmp_path}/env", "-e", "A=3", "-e", "ISULA_ABSENT"]
    isula("create", *words, "--label-file", f"{tmp_path}/label", "-l", "three", "busybox")
    assert sent(created)["options"] == {
        "env": ["A=1", "#B=2", "C=x=y", "EMPTY=", "LAST=z", "A=3"],
        "label": ["one=", "two=2", "three="],
    }


def test_a_variable_without_a_value_is_the_clients_own(
    created: Served, isula: Isula, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("posix.environ", {b"ISULA_TEST": b"from \xff here"})
    isula("create", "-e", "ISULA_TEST", "busybox")
    assert sent(created)["options"] == {"env": ["ISULA_TEST=from \udcff here"]}


def test_a_seccomp_profile_is_read_by_the_client(
    created: Served, isula: Isula, tmp_path: Path
) -> None:
    (tmp_path / "profile").write_text('{"a": 1}')
    options = [f"seccomp={tmp_path}/profile", "seccomp=unconfined", "no-new-privileges"]
    isula("create", *[f"--security-opt={option}" for option in options], "busybox")
    assert sent(created)["options"] == {"security_opt": ['seccomp={"a": 1}', *options[1:]]}


MISTAKES = [
    (["-e", "=x"], "the name is empty"),
    (["-l", "=x"], "the name is empty"),
    (["--env-file", "/nowhere/env"], "Cannot read env file /nowhere/env: No such file"),
    (["--label-file", "/nowhere/label"], "Cannot read label file /nowhere/label: No such file"),
    (["--security-opt", "seccomp=/nowhere/x"], "Cannot read seccomp profile /nowhere/x: No such"),
    (["--pull", "sometimes"], "invalid --pull option"),
    (["--env-file", "/dev/zero"], "larger than 10 MB"),
]


@pytest.mark.parametrize("command", ["create", "run"])
@pytest.mark.parametrize(("words", "text"), MISTAKES)
def test_mistakes_are_found_before_asking(
    created: Served, isula: Isula, command: str, words: list[str], text: str
) -> None:
    done = isula(command, *words, "busybox")
    assert (done.status, done.out) == (125, "")
    assert text in done.err
    assert created.seen == []


def test_the_id_is_written_to_a_new_file(created: Served, isula: Isula, tmp_path: Path) -> None:
    path = tmp_path / "cid"
    assert isula("create", "--cidfile", str(path), "busybox").status == 0
    assert path.read_text() == "x" * 64
    done = isula("create", "--cidfile", str(path), "busybox")
    assert done.status == 125
    assert "Container ID file found" in done.err
    assert len(created.seen) == 1


# --pull


class Store:
    """A daemon whose image is missing until it is pulled."""

    def __init__(self, daemon: Served, *, here: bool = False) -> None:
        self.here = here
        daemon.methods["container.create"] = self.create
        daemon.methods["image.pull"] = self.pull

    async def create(self, _params: dict[str, Any], _session: Session) -> dict[str, Any]:
        if not self.here:
            raise errors.NotFound("No such image:busybox", kind="image", ref="busybox")
        return {"id": "x"}

    async def pull(self, _params: dict[str, Any], _session: Session) -> dict[str, Any]:
        self.here = True
        return {"ref": "busybox", "id": "y"}


PULLS = [
    ([], False, ["container.create", "image.pull", "container.create"]),
    ([], True, ["container.create"]),
    (["--pull=missing"], False, ["container.create", "image.pull", "container.create"]),
    (["--pull=always"], True, ["image.pull", "container.create"]),
    (["--pull=never"], True, ["container.create"]),
]


@pytest.mark.parametrize(("words", "here", "methods"), PULLS)
def test_when_an_image_is_pulled(
    daemon: Served, isula: Isula, words: list[str], here: bool, methods: list[str]
) -> None:
    Store(daemon, here=here)
    done = isula("create", *words, "--platform", "linux/arm64", "busybox")
    assert (done.status, done.out) == (0, "x\n")
    assert [name for name, _ in daemon.seen] == methods
    for asked in daemon.answers("image.pull"):
        assert asked == {"ref": "busybox", "platform": "linux/arm64"}


def test_an_image_that_may_not_be_pulled_is_missing(daemon: Served, isula: Isula) -> None:
    Store(daemon)
    done = isula("create", "--pull", "never", "busybox")
    assert (done.status, done.out) == (1, "")
    assert done.err == "Error response from daemon: No such image:busybox\n"


def test_another_thing_that_is_missing_is_not_pulled(daemon: Served, isula: Isula) -> None:
    daemon.methods["container.create"] = refusal(errors.NotFound("No such network:x"))
    assert isula("create", "busybox").status == 1
    assert daemon.answers("image.pull") == []


def test_quiet_pulls_say_nothing(daemon: Served, isula: Isula) -> None:
    Store(daemon)
    assert isula("create", "--quiet", "busybox") == (0, "x\n", "")


def test_run_detached_prints_the_id(daemon: Served, isula: Isula, tmp_path: Path) -> None:
    item = {"id": "x", "warnings": ["no swap"]}
    daemon.methods["container.run"] = answer({"id": "x"}, ("v", item))
    done = isula("run", "-d", "-i", "--cidfile", str(tmp_path / "cid"), "busybox", "ls", "-l")
    assert done == (0, "x\n", "WARNING: no swap\n")
    assert (tmp_path / "cid").read_text() == "x"
    (asked,) = daemon.answers("container.run")
    assert (asked["detach"], asked["stdin"], asked["command"]) == (True, False, ["ls", "-l"])


def test_a_start_that_fails_after_creation(daemon: Served, isula: Isula) -> None:
    async def fail(_params: dict[str, Any], session: Session) -> dict[str, Any]:
        await session.item({"id": "x", "warnings": []})
        raise errors.CommandNotFound("no such program")

    daemon.methods["container.run"] = fail
    assert isula("run", "-d", "busybox").status == 127
