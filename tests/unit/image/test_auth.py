"""Challenges, Basic, and tokens with their expiry (case A09)."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from isula_edge import errors
from isula_edge.image.auth import Authorizer, Challenge, Credentials, parse_challenges
from tests.fakes.jobs import FakeClock

BEARER = {"WWW-Authenticate": 'Bearer realm="http://t/token",service="s",scope="repository:r:pull"'}


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", []),
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        ("BASIC", [("basic", {})]),
        ('Bearer realm="a,b",Scope=plain', [("bearer", {"realm": "a,b", "scope": "plain"})]),
        (r'Bearer realm="a\"b"', [("bearer", {"realm": 'a"b'})]),
        ('Negotiate abc==, Basic', [("negotiate", {"abc": "="}), ("basic", {})]),
        ('Bearer realm="u" , service = "s"', [("bearer", {"realm": "u", "service": "s"})]),
        ("\x00", []),
        ('Basic, Bearer realm="u"', [("basic", {}), ("bearer", {"realm": "u"})]),
        (' , ,Basic realm="x",, ,Bearer a=b', [("basic", {"realm": "x"}), ("bearer", {"a": "b"})]),
        (
            'Bearer realm="https://t/x?a=b&c",scope="repository:r:pull repository:s:pull,push"',
            [
                (
                    "bearer",
                    {
                        "realm": "https://t/x?a=b&c",
                        "scope": "repository:r:pull repository:s:pull,push",
                    },
                )
            ],
        ),
        (r'Bearer realm="\\",x="\"', [("bearer", {"realm": "\\"})]),
        ('Bearer realm="never ends', [("bearer", {})]),
        ('Bearer realm="",realm="second"', [("bearer", {"realm": ""})]),
        (", ".join(f"S{i} a=b" for i in range(20)), [(f"s{i}", {"a": "b"}) for i in range(8)]),
    ],
)  # fmt: skip
def test_challenges(header: str, found: list[tuple[str, dict[str, str]]]) -> None:
    assert parse_challenges(header) == [Challenge(*item) for item in found]


class TokenServer:
    """Counts what it is asked."""

    def __init__(self, **answer: object) -> None:
        self.answer: dict[str, object] = answer
        self.asked: list[tuple[str, str]] = []

    def __call__(self, url: str, authorization: str) -> bytes:
        self.asked.append((url, authorization))
        return json.dumps({"token": f"t{len(self.asked)}", **self.answer}).encode()


def authorizer(
    server: TokenServer, clock: FakeClock, credentials: Credentials | None = None
) -> Authorizer:
    return Authorizer("h", "r", credentials, server, clock)


@pytest.mark.parametrize(
    ("answer", "requests"),
    [
        # every second of five minutes, 0 to 299
        ({}, 5),
        ({"expires_in": 0}, 5),
        ({"expires_in": 60}, 5),
        ({"expires_in": 3600}, 1),
        ({"expires_in": 120}, 3),
        ({"expires_in": -5}, 5),
        ({"expires_in": "3600"}, 5),
        ({"expires_in": None}, 5),
        ({"expires_in": float("nan")}, 5),
        ({"expires_in": 1e300}, 1),
        ({"expires_in": 10**400}, 1),
        ({"expires_in": float("inf")}, 1),
        ({"expires_in": True}, 5),
        ({"expires_in": [3600]}, 5),
        ({"expires_in": 59.9}, 5),
        # dates of a server whose clock, or ours, is wrong play no part
        ({"expires_in": 3600, "issued_at": "1999-01-01T00:00:00Z"}, 1),
    ],
)
def test_a09_a_token_lives_as_long_as_it_says(answer: dict[str, Any], requests: int) -> None:
    server, clock = TokenServer(**answer), FakeClock()
    auth = authorizer(server, clock)
    assert auth.header() == ""
    assert auth.challenged(BEARER, "")
    for _ in range(300):
        assert auth.header() == f"Bearer t{len(server.asked)}"
        clock.now += 1
    assert len(server.asked) == requests


def test_a_header_of_spaces_is_read_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work grows with the length, not with its square: that would not come to an end."""
    monkeypatch.setattr("isula_edge.image.auth._MAX_HEADER", 10**6)
    assert parse_challenges("Basic" + " " * 10**6) == [Challenge("basic")]
    assert parse_challenges("Basic a=b" + " " * 10**6) == [Challenge("basic", {"a": "b"})]


def test_a_token_request_says_what_is_wanted() -> None:
    server = TokenServer()
    auth = authorizer(server, FakeClock(), Credentials("me", "pa:ss"))
    auth.challenged(BEARER, "")
    auth.header()
    (url, authorization) = server.asked[0]
    assert parse_qs(urlsplit(url).query) == {
        "service": ["s"],
        "scope": ["repository:r:pull"],
        "account": ["me"],
    }
    assert authorization == "Basic bWU6cGE6c3M="


def test_every_scope_of_a_challenge_is_asked_for_by_itself() -> None:
    server = TokenServer()
    auth = authorizer(server, FakeClock())
    scope = "repository:other:pull repository:r:pull registry:catalog:*"
    challenge = f'Bearer realm="http://t/token?a=b#c",scope="{scope}"'
    auth.challenged({"WWW-Authenticate": challenge}, "")
    auth.header()
    ((url, _),) = server.asked
    assert url.startswith("http://t/token?a=b&scope=")
    assert parse_qs(urlsplit(url).query)["scope"] == [
        "repository:r:pull",
        "repository:other:pull",
        "registry:catalog:*",
    ]


def test_the_scope_that_a_registry_names_for_itself_is_not_asked_for() -> None:
    """ghcr.io answers /v2/ with the scope of a repository that is nobody's."""
    server = TokenServer()
    auth = authorizer(server, FakeClock())
    challenge = 'Bearer realm="http://t/token",scope="repository:user/image:pull"'
    assert auth.challenged({"WWW-Authenticate": challenge}, "", probe=True)
    auth.header()
    assert parse_qs(urlsplit(server.asked[0][0]).query) == {"scope": ["repository:r:pull"]}


def test_threads_that_find_a_token_expired_ask_once() -> None:
    server, clock = TokenServer(expires_in=60), FakeClock()
    auth = authorizer(server, clock)
    auth.challenged(BEARER, "")
    assert auth.header() == "Bearer t1"
    clock.now += 60
    start = threading.Barrier(8)

    def header() -> str:
        start.wait(10)
        return auth.header()

    with ThreadPoolExecutor(8) as pool:
        found = [future.result(10) for future in [pool.submit(header) for _ in range(8)]]
    assert set(found) == {"Bearer t2"}
    assert len(server.asked) == 2


class Exchange:
    """A token server's POST; ``answer`` None stands for 404 and 405."""

    def __init__(self, answer: dict[str, object] | None) -> None:
        self.answer = answer
        self.forms: list[tuple[str, dict[str, list[str]]]] = []

    def __call__(self, url: str, form: bytes) -> bytes | None:
        self.forms.append((url, parse_qs(form.decode())))
        return None if self.answer is None else json.dumps(self.answer).encode()


def test_an_identity_token_is_exchanged() -> None:
    get, clock = TokenServer(), FakeClock()
    post = Exchange({"access_token": "x", "expires_in": 100, "refresh_token": "next"})
    credentials = Credentials("me", identity_token="first")
    auth = Authorizer("h", "r", credentials, get, clock, post=post)
    auth.challenged(BEARER, "")
    assert auth.header() == "Bearer x"
    assert auth.header() == "Bearer x"
    clock.now += 100
    auth.header()
    assert get.asked == []
    form = {
        "grant_type": ["refresh_token"],
        "service": ["s"],
        "client_id": ["isula-edge"],
        "scope": ["repository:r:pull"],
        "refresh_token": ["first"],
    }
    assert post.forms == [
        ("http://t/token", form),
        ("http://t/token", {**form, "refresh_token": ["next"]}),
    ]


def test_an_identity_token_is_a_password_where_there_is_no_post() -> None:
    get = TokenServer()
    auth = Authorizer(
        "h", "r", Credentials("me", identity_token="id"), get, FakeClock(), post=Exchange(None)
    )
    auth.challenged(BEARER, "")
    assert auth.header() == "Bearer t1"
    ((url, authorization),) = get.asked
    assert "account=me" in url
    assert authorization == Credentials("me", "id").basic()


@pytest.mark.parametrize(("offline", "kept"), [(True, "long"), (False, "")])
def test_an_identity_token_is_taken_when_it_was_asked_for(offline: bool, kept: str) -> None:
    get = TokenServer(refresh_token="long")
    auth = Authorizer("h", "", Credentials("me", "pw"), get, FakeClock(), offline=offline)
    auth.challenged(BEARER, "", probe=True)
    auth.header()
    query = parse_qs(urlsplit(get.asked[0][0]).query)
    assert ("offline_token" in query, "client_id" in query) == (offline, offline)
    assert "scope" not in query
    assert auth.identity_token == kept


def test_secrets_are_not_shown() -> None:
    shown = repr(Credentials("me", "secret", "secret", "secret"))
    assert "me" in shown
    assert "secret" not in shown


def test_a_challenge_without_scope_gets_that_of_the_repository() -> None:
    server = TokenServer(access_token="x", token=None)
    auth = authorizer(server, FakeClock())
    auth.challenged({"WWW-Authenticate": 'Bearer realm="http://t/token?a=b"'}, "")
    assert auth.header() == "Bearer x"
    assert server.asked == [("http://t/token?a=b&scope=repository%3Ar%3Apull", "")]


def test_a_refused_token_is_replaced_once_for_all_that_used_it() -> None:
    server = TokenServer(expires_in=3600)
    auth = authorizer(server, FakeClock())
    auth.challenged(BEARER, "")
    used = auth.header()
    assert auth.challenged(BEARER, used)
    assert auth.header() == "Bearer t2"
    # a second thread was refused with the old one as well
    assert auth.challenged(BEARER, used)
    assert auth.header() == "Bearer t2"


@pytest.mark.parametrize(
    "answer", [{"token": ""}, {"token": 5}, {"token": "a\r\nX: y"}, {"token": None}]
)
def test_a_bad_token_is_refused(answer: dict[str, object]) -> None:
    auth = authorizer(TokenServer(**answer), FakeClock())
    auth.challenged(BEARER, "")
    with pytest.raises(errors.PermissionDenied, match="authentication failed at h"):
        auth.header()


@pytest.mark.parametrize("body", [b"", b"[]", b"[" * 100_000, b"\xff"])
def test_an_answer_that_is_no_object_is_refused(body: bytes) -> None:
    auth = Authorizer("h", "r", None, lambda _url, _basic: body, FakeClock())
    auth.challenged(BEARER, "")
    with pytest.raises(errors.PermissionDenied):
        auth.header()


def test_basic_is_tried_once() -> None:
    auth = authorizer(TokenServer(), FakeClock(), Credentials("u", "p"))
    challenge = {"WWW-Authenticate": 'Basic realm="x"'}
    assert auth.challenged(challenge, "")
    assert auth.header() == "Basic dTpw"
    assert not auth.challenged(challenge, "Basic dTpw")


def test_without_credentials_basic_has_no_answer() -> None:
    auth = authorizer(TokenServer(), FakeClock())
    assert not auth.challenged({"WWW-Authenticate": "Basic"}, "")
    assert not auth.challenged({}, "")
    assert auth.header() == ""


def test_a_registry_token_is_used_as_it_is() -> None:
    server = TokenServer()
    auth = authorizer(server, FakeClock(), Credentials(registry_token="ready"))
    assert auth.challenged(BEARER, "")
    assert auth.header() == "Bearer ready"
    assert not auth.challenged(BEARER, "Bearer ready")
    assert server.asked == []
