"""Several places: their order, which are remembered as down, and what is said at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.image.clock import ClockWait
from isula_edge.image.places import mirror, try_each
from isula_edge.image.pull import PullRequest, pull
from isula_edge.image.registry import Endpoint
from isula_edge.image.transport import CannotConnect, Settings, Transient
from tests.fakes.images import FakeLayer, make_image
from tests.fakes.jobs import FakeDaemon
from tests.fakes.registry import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from isula_edge.snapshot import LayerStore

IMAGE = make_image([FakeLayer.of({"a": b"1"})])
DOWN = CannotConnect("cannot connect", "h")


class Asked:
    """Places that fail as they are told to, and how they were asked."""

    def __init__(self, **failures: errors.EngineError) -> None:
        self.daemon = FakeDaemon()
        self.failures = failures
        self.order: list[tuple[str, bool]] = []

    def __call__(self, endpoint: Endpoint, *, patient: bool) -> str:
        self.order.append((endpoint.host, patient))
        if endpoint.host in self.failures:
            raise self.failures[endpoint.host]
        return endpoint.host

    def all(self, hosts: Sequence[str], unreachable: Sequence[str] = ()) -> str:
        job = self.daemon.job
        places = [Endpoint(("https",), host) for host in hosts]
        return try_each(places, self, job, ClockWait(job, 0, 0), unreachable)


def test_the_first_that_answers() -> None:
    asked = Asked(a=DOWN)
    assert asked.all("abc") == "b"
    # only the last one is asked again and again
    assert asked.order == [("a", False), ("b", False)]
    assert asked.daemon.events == [{"unreachable": "a"}]


def test_the_last_one_is_waited_for() -> None:
    asked = Asked(a=DOWN)
    assert asked.all("ab") == "b"
    assert asked.order[-1] == ("b", True)


def test_what_was_down_is_asked_last_and_forgotten_when_it_answers() -> None:
    asked = Asked(b=DOWN, c=DOWN)
    assert asked.all("abc", ["a"]) == "a"
    assert [host for host, _ in asked.order] == ["b", "c", "a"]
    assert asked.daemon.events == [{"unreachable": "b"}, {"unreachable": "c"}, {"reachable": "a"}]


def test_a_refusal_is_no_outage() -> None:
    refusals = {
        "a": errors.NotFound("none"),
        "b": errors.PermissionDenied("no"),
        "c": Transient("busy", "c", status=503),
    }
    asked = Asked(**refusals)
    assert asked.all("abcd") == "d"
    assert asked.daemon.events == []


def test_a_single_place_is_not_remembered() -> None:
    asked = Asked(a=DOWN)
    with pytest.raises(errors.Unavailable, match=r"^cannot connect$"):
        asked.all("a")
    assert asked.daemon.events == []


def test_the_last_of_the_list_speaks_and_tells_of_the_others() -> None:
    asked = Asked(
        a=CannotConnect("cannot connect to a", "a"),
        b=errors.PermissionDenied("b says no"),
        c=errors.NotFound("Image not found", kind="image", ref="x", hint="check"),
    )
    with pytest.raises(errors.NotFound) as found:
        asked.all("abc", ["b"])
    assert str(found.value) == (
        "Image not found; asked before: a: cannot connect to a; b: b says no"
    )
    assert found.value.hint == "check"


@pytest.mark.parametrize("kind", [errors.NoSpace, errors.Aborted])
def test_what_is_not_a_places_fault_ends_it(kind: type[errors.EngineError]) -> None:
    asked = Asked(a=kind("x"))
    with pytest.raises(kind):
        asked.all("ab")
    assert asked.order == [("a", False)]


def test_the_same_place_twice_is_asked_once() -> None:
    asked = Asked(a=DOWN)
    with pytest.raises(errors.Unavailable):
        asked.all("aa")
    assert asked.order == [("a", True)]


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("r.io", Endpoint(("https",), "r.io")),
        ("https://r.io:5000/path/", Endpoint(("https",), "r.io:5000", "/path")),
        ("http://r.io", Endpoint(("http",), "r.io")),
        ("lab:5000", Endpoint(("https", "http"), "lab:5000")),
        ("https://lab:5000", Endpoint(("https", "http"), "lab:5000")),
        ("[::1]:5000", Endpoint(("https", "http"), "[::1]:5000")),
    ],
)
def test_mirrors(text: str, endpoint: Endpoint) -> None:
    assert mirror(text, Settings(insecure=("http://lab:5000/",))) == endpoint


def test_a_pull_tells_of_every_place(
    registry: FakeRegistry, store: LayerStore, graph: Path
) -> None:
    with FakeRegistry() as busy:
        busy.faults.always = {"/v2/": 503}
        mirrors = ["http://127.0.0.1:1", busy.url, registry.url]
        wanted = PullRequest(ref="a/b", tmpdir=str(graph / "tmp"), mirrors=mirrors)
        with pytest.raises(errors.NotFound, match="not found") as found:
            pull(wanted, store, FakeDaemon().job)
        assert "127.0.0.1:1: cannot connect" in str(found.value)
        assert f"{busy.host}: registry response invalid status code 503" in str(found.value)
        # no back-off of five tries where another place follows
        assert len(busy.requests) == 2


def test_a_pull_asks_a_host_before_its_mirrors_that_are_down(
    registry: FakeRegistry, store: LayerStore, graph: Path
) -> None:
    registry.add("a/b", "latest", IMAGE)
    daemon = FakeDaemon()
    wanted = PullRequest(
        ref=f"{registry.host}/a/b",
        tmpdir=str(graph / "tmp"),
        host_mirrors={registry.host: ["http://127.0.0.1:1"]},
        unreachable=["127.0.0.1:1"],
    )
    pull(wanted, store, daemon.job)
    assert not [event for event in daemon.events if "unreachable" in event]
