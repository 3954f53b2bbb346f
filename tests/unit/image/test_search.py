"""Search: where it is asked, what is shown of the answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from isula_edge import errors
from isula_edge.image import search as searching
from isula_edge.image.reference import split_term
from isula_edge.image.search import search
from isula_edge.image.transport import Settings
from tests.fakes.jobs import FakeDaemon
from tests.fakes.registry import FakeRegistry

RESULTS = [
    {"name": "busybox", "description": "Busybox base image.", "star_count": 3200,
     "is_official": True, "is_automated": False},
    {"name": "me/busybox", "description": "mine", "star_count": 7, "is_official": False,
     "is_automated": True},
    {"name": "you/busybox", "description": "", "star_count": 0, "is_official": False,
     "is_automated": False},
]  # fmt: skip


def offer(registry: FakeRegistry, results: object = RESULTS) -> None:
    body = {"query": "x", "num_results": 3, "results": results}
    registry.put_document("/v1/search", json.dumps(body).encode())


def names(term: str, *mirrors: str, **request: Any) -> list[str]:
    found = search({"term": term, "mirrors": mirrors, **request}, FakeDaemon().job)
    return [item["name"] for item in found["results"]]


def test_the_mirrors_are_asked_in_order(registry: FakeRegistry) -> None:
    with FakeRegistry() as without, FakeRegistry() as last:
        offer(registry)
        offer(last)
        found = search(
            {"term": "a b&n=1", "mirrors": [without.url, registry.url, last.url], "limit": 7},
            FakeDaemon().job,
        )
        assert last.requests == []
    assert found["results"][0] == {
        "name": "busybox",
        "description": "Busybox base image.",
        "stars": 3200,
        "official": True,
        "automated": False,
    }
    (seen,) = registry.requests
    assert seen.path == "/v1/search?q=a+b%26n%3D1&n=7"


def test_a_host_in_the_term_is_asked_alone(registry: FakeRegistry) -> None:
    offer(registry)
    assert len(names(f"{registry.host}/me/busy", "http://127.0.0.1:1")) == 3
    assert registry.requests[0].path.startswith("/v1/search?q=me%2Fbusy&")


def test_the_index_of_docker_hub_is_at_another_host() -> None:
    settings = Settings()
    for host, mirrors in (("docker.io", ()), ("", ("https://registry-1.docker.io",))):
        (place,) = searching._places(host, mirrors, settings)
        assert place.host == "index.docker.io"


@pytest.mark.parametrize(
    ("term", "parts"),
    [
        ("busybox", ("", "busybox")),
        ("me/busybox", ("", "me/busybox")),
        ("index.docker.io/library/busybox", ("docker.io", "busybox")),
        ("h:5000/a", ("h:5000", "a")),
        (" two words ", ("", "two words")),
    ],
)
def test_terms(term: str, parts: tuple[str, str]) -> None:
    assert split_term(term) == parts


@pytest.mark.parametrize("term", ["", "  ", "h.io/", "h_.io:x/a", "a" * 300])
def test_no_terms(term: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="Invalid search term"):
        split_term(term)


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        ({"stars": ["7"]}, ["busybox", "me/busybox"]),
        ({"stars": ["1", "8"]}, ["busybox"]),
        ({"is-official": ["true"]}, ["busybox"]),
        ({"is-official": ["False"]}, ["me/busybox", "you/busybox"]),
        ({"is-automated": ["1"]}, ["me/busybox"]),
        ({"is-automated": ["0"], "stars": ["1"]}, ["busybox"]),
    ],
)
def test_filters(registry: FakeRegistry, filters: dict[str, list[str]], left: list[str]) -> None:
    offer(registry)
    assert names("x", registry.url, filters=filters) == left


@pytest.mark.parametrize(
    "filters", [{"name": ["x"]}, {"stars": ["-1"]}, {"stars": [""]}, {"is-official": ["maybe"]}]
)
def test_bad_filters_are_named(registry: FakeRegistry, filters: dict[str, list[str]]) -> None:
    with pytest.raises(errors.InvalidArgument, match="Invalid filter '") as found:
        names("x", registry.url, filters=filters)
    assert next(iter(filters)) in str(found.value)
    assert registry.requests == []


@pytest.mark.parametrize("limit", [0, -1, 101])
def test_the_limit_has_limits(limit: int) -> None:
    with pytest.raises(errors.InvalidArgument, match=rf"Limit {limit} is outside .*\[1, 100\]"):
        names("x", "http://127.0.0.1:1", limit=limit)


def test_no_more_than_asked_for(registry: FakeRegistry) -> None:
    offer(registry)
    assert names("x", registry.url, limit=2) == ["busybox", "me/busybox"]


def test_no_registry() -> None:
    with pytest.raises(errors.InvalidArgument, match="no registry to search") as found:
        names("x")
    assert "registry-mirrors" in found.value.hint


def test_a_registry_without_search(registry: FakeRegistry) -> None:
    with pytest.raises(errors.Unimplemented, match=f"{registry.host} offers no search"):
        names("x", registry.url)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"results": 5}', b"<html>", b"[" * 100_000])
def test_something_else_than_results(registry: FakeRegistry, body: bytes) -> None:
    registry.put_document("/v1/search", body)
    with pytest.raises(errors.Unavailable, match="something else than results"):
        names("x", registry.url)


def test_odd_results(registry: FakeRegistry) -> None:
    odd: list[object] = [
        5,
        {},
        {"name": 5},
        {"name": "a\x1b[2Jb\n", "description": "one\r\n\ttwo\u202e", "star_count": True},
        {"name": "b", "star_count": -5, "is_official": "yes"},
        {"name": "c", "star_count": 10**30},
    ]
    offer(registry, odd)
    found = search({"term": "x", "mirrors": [registry.url]}, FakeDaemon().job)["results"]
    assert [item["name"] for item in found] == ["a [2Jb", "b", "c"]
    assert found[0]["description"] == "one two"
    assert [item["stars"] for item in found] == [0, 0, 0]
    assert found[1]["official"] is False


def test_credentials(registry: FakeRegistry) -> None:
    offer(registry)
    registry.faults.auth = "basic"
    registry.faults.users = {"u": "p"}
    with pytest.raises(errors.PermissionDenied):
        names("x", registry.url)
    assert names("x", registry.url, auths={registry.host: {"username": "u", "password": "p"}})
