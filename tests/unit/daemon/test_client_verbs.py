"""The verbs of the client's library: what each one sends, and what it makes of the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from isula_edge.client import Client
from tests.unit.daemon.served import Served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from isula_edge.daemon.server import Session


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path) as found:
        yield found
    assert found.problems == []


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.host, timeout_s=20) as found:
        yield found


VERBS: list[tuple[str, Callable[[Client], object], dict[str, Any]]] = [
    ("version", lambda client: client.version(), {}),
    ("info", lambda client: client.info(), {}),
    (
        "image.pull",
        lambda client: client.pull("a/b", all_tags=True),
        {"ref": "a/b", "all_tags": True},
    ),
    ("image.tag", lambda client: client.tag("a", "b"), {"source": "a", "target": "b"}),
    (
        "image.login",
        lambda client: client.login("a.io", "u", "p"),
        {"server": "a.io", "username": "u", "password": "p"},
    ),
    ("image.logout", lambda client: client.logout("a.io"), {"server": "a.io"}),
    (
        "image.pull",
        lambda client: client.pull("a.io/b", auth={"username": "u", "password": "p"}),
        {"ref": "a.io/b", "auth": {"username": "u", "password": "p"}},
    ),
    (
        "image.remove",
        lambda client: client.remove_image("a", force=True),
        {"ref": "a", "force": True},
    ),
    (
        "container.start",
        lambda client: client.start("a"),
        {"ref": "a", "attach": False, "stdin": False},
    ),
    ("container.stop", lambda client: client.stop("a"), {"ref": "a", "force": False}),
    (
        "container.stop",
        lambda client: client.stop("a", timeout_s=-1, force=True),
        {"ref": "a", "force": True, "timeout_s": -1},
    ),
    ("container.kill", lambda client: client.kill("a"), {"ref": "a", "signal": "SIGKILL"}),
    ("container.pause", lambda client: client.pause("a"), {"ref": "a"}),
    ("container.unpause", lambda client: client.unpause("a"), {"ref": "a"}),
    (
        "container.restart",
        lambda client: client.restart("a", timeout_s=0),
        {"ref": "a", "timeout_s": 0},
    ),
    ("container.rename", lambda client: client.rename("a", "b"), {"ref": "a", "new_name": "b"}),
    (
        "container.create",
        lambda client: client.create("img", ["sh"], name="n", options={"memory": "64m"}),
        {"image": "img", "command": ["sh"], "name": "n", "options": {"memory": "64m"}},
    ),
    (
        "container.run",
        lambda client: client.run("img", detach=True).wait(),
        {"image": "img", "command": [], "options": {}, "detach": True, "stdin": False},
    ),
    (
        "container.logs",
        lambda client: client.logs("a", tail=3, since_ns=0).wait(),
        {"ref": "a", "follow": False, "tail": 3, "timestamps": False, "since_ns": 0},
    ),
]


@pytest.mark.parametrize(("method", "verb", "params"), VERBS)
def test_a_verb_sends_its_method_and_parameters(
    served: Served,
    client: Client,
    method: str,
    verb: Callable[[Client], object],
    params: dict[str, Any],
) -> None:
    served.methods[method] = served.methods["echo"]
    verb(client)
    assert served.seen == [(method, params)]


def test_lists_codes_and_texts_are_taken_out_of_results(served: Served, client: Client) -> None:
    answers: dict[str, dict[str, Any]] = {
        "container.list": {"containers": [{"id": "1"}]},
        "image.list": {"images": [{"id": "2"}]},
        "image.load": {"images": ["a:1"]},
        "image.import": {"id": "3"},
        "container.wait": {"exit_code": 9},
        "container.top": {"text": "PID"},
        "container.remove": {"id": "4"},
    }
    for name, answer in answers.items():

        async def method(
            _params: dict[str, Any], _session: Session, answer: dict[str, Any] = answer
        ) -> dict[str, Any]:
            return answer

        served.methods[name] = method
    assert client.containers() == [{"id": "1"}]
    assert client.images() == [{"id": "2"}]
    assert client.load("/a.tar") == ["a:1"]
    assert client.import_image("/a.tar", "b") == "3"
    assert client.wait("a") == 9
    assert client.top("a") == "PID"
    assert client.remove("a") == "4"


def test_events_and_progress_are_given_as_they_come(served: Served, client: Client) -> None:
    async def items(_params: dict[str, Any], session: Session) -> dict[str, Any]:
        for number in range(3):
            await session.item({"n": number})
        return {"ref": "a:1", "id": "x"}

    served.methods.update({"events": items, "image.pull": items})
    assert [event["n"] for event in client.events(name="web")] == [0, 1, 2]
    assert served.answers("events") == [{"name": "web"}]
    seen: list[dict[str, Any]] = []
    assert client.pull("a:1", progress=seen.append) == {"ref": "a:1", "id": "x"}
    assert seen == [{"n": 0}, {"n": 1}, {"n": 2}]
