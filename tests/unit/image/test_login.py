"""Login at a registry: which credentials it accepts, and what is said when it does not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.image.credentials import Credentials
from isula_edge.image.login import login, verify
from isula_edge.image.pull import PullRequest, pull
from isula_edge.image.transport import Settings
from tests.fakes.images import FakeLayer, make_image
from tests.fakes.jobs import FakeDaemon
from tests.fakes.token_server import TokenServer
from tests.fakes.workers import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from isula_edge.snapshot import LayerStore
    from tests.fakes.registry import FakeRegistry

USERS = {"me": "right"}
GOOD, WRONG = Credentials("me", "right"), Credentials("me", "wrong")
IMAGE = make_image([FakeLayer.of({"a": os.urandom(20_000)})])


def ask(host: str, credentials: Credentials) -> str:
    return verify(host, credentials, Settings(), FakeDaemon().job)


@pytest.fixture
def tokens(registry: FakeRegistry) -> Iterator[TokenServer]:
    """A token server of its own for ``registry``."""

    def issue(_user: str, service: str, _scopes: Sequence[str]) -> dict[str, Any]:
        assert service == "fake"
        return registry.issue_token()

    with TokenServer(issue, USERS) as server:
        registry.faults.auth = "bearer"
        registry.faults.realm = server.url
        yield server


def test_basic(registry: FakeRegistry) -> None:
    registry.faults.auth = "basic"
    registry.faults.users = USERS
    assert ask(registry.host, GOOD) == ""
    with pytest.raises(errors.PermissionDenied) as caught:
        ask(registry.host, WRONG)
    assert str(caught.value) == (
        f"login to registry for {registry.host} failed: invalid username/password"
    )
    assert {item.path for item in registry.requests} == {"/v2/"}


def test_a_registry_that_wants_nothing(registry: FakeRegistry) -> None:
    assert ask(registry.host, WRONG) == ""
    assert all("authorization" not in item.headers for item in registry.requests)


def test_a_token_server(registry: FakeRegistry, tokens: TokenServer) -> None:
    assert ask(registry.host, GOOD) == ""
    (asked,) = tokens.asked
    assert asked.words == {
        "service": ["fake"],
        "account": ["me"],
        "client_id": ["isula-edge"],
        "offline_token": ["true"],
    }
    with pytest.raises(errors.PermissionDenied, match="invalid username/password"):
        ask(registry.host, WRONG)
    assert registry.tokens_issued == 1


def test_an_identity_token_is_kept_and_pulls(
    registry: FakeRegistry, tokens: TokenServer, store: LayerStore, graph: Path
) -> None:
    registry.add("a/b", "latest", IMAGE)
    tokens.offline = True
    token = ask(registry.host, GOOD)
    assert tokens.identity_tokens == {token: "me"}
    for post_status, methods in ((0, ["POST"]), (404, ["POST", "GET"]), (405, ["POST", "GET"])):
        tokens.asked.clear()
        tokens.post_status = post_status
        wanted = PullRequest(
            ref=f"{registry.host}/a/b",
            tmpdir=str(graph / "tmp"),
            auths={registry.host: Credentials("me", identity_token=token)},
        )
        pull(wanted, store, FakeDaemon(set(IMAGE.chain_ids) if post_status else set()).job)
        assert [asked.method for asked in tokens.asked] == methods
        assert tokens.asked[-1].words["scope"] == ["repository:a/b:pull"]
    tokens.post_status = 0
    tokens.identity_tokens.clear()
    with pytest.raises(errors.PermissionDenied, match="authentication failed"):
        pull(wanted, store, FakeDaemon(set(IMAGE.chain_ids)).job)


@pytest.mark.parametrize("status", [403, 404, 500])
def test_another_answer_is_named(registry: FakeRegistry, status: int) -> None:
    registry.faults.always = {"/v2/": status}
    with pytest.raises(errors.Unavailable) as caught:
        ask(registry.host, GOOD)
    assert str(caught.value) == (
        f"login to registry for {registry.host} failed: server response code {status}"
    )


def test_nobody_there() -> None:
    with pytest.raises(errors.Unavailable, match=r"cannot connect to 127\.0\.0\.1:1"):
        ask("127.0.0.1:1", GOOD)


def test_a_registry_that_fails_for_a_moment(registry: FakeRegistry) -> None:
    registry.faults.auth = "basic"
    registry.faults.users = USERS
    registry.faults.statuses = {
        "/v2/": [(503, {}), (401, {"WWW-Authenticate": "Basic"}), (502, {})]
    }
    assert ask(registry.host, GOOD) == ""


def test_a_mirror_in_plain_http_is_asked_so(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isula_edge.image.proxies.LOOPBACK", ())
    registry.faults.auth = "basic"
    registry.faults.users = USERS
    request = {"server": registry.host, "auth": GOOD.to_wire()}
    with pytest.raises(errors.Unavailable, match="TLS"):
        login(request, FakeDaemon().job)
    assert login({**request, "mirrors": [registry.url]}, FakeDaemon().job) == {"identity_token": ""}


def test_in_a_worker(registry: FakeRegistry, graph: Path) -> None:
    registry.faults.auth = "basic"
    registry.faults.users = USERS
    request = {"op": "login", "server": registry.host, "auth": GOOD.to_wire()}
    with WorkerProcess(request, graph) as worker:
        assert worker.result() == {"identity_token": ""}
    with (
        WorkerProcess({**request, "auth": WRONG.to_wire()}, graph) as worker,
        pytest.raises(errors.PermissionDenied, match="invalid username/password"),
    ):
        worker.result()
