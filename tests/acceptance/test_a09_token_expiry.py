"""Case A09: tokens are asked for as often as they expire, whatever the server says of that.

A pull of five minutes on a fake clock: ten layers one after another, each of which the
registry has ready thirty seconds after it was first asked for.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from isula_edge.image.pull import PullRequest, pull
from isula_edge.snapshot import LayerStore
from tests.fakes.images import FakeLayer, make_image
from tests.fakes.jobs import FakeDaemon
from tests.fakes.registry import MISSING, FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LAYERS = 10
WAIT_S = 30
IMAGE = make_image([FakeLayer.of({f"file{n}": os.urandom(64)}) for n in range(LAYERS)])


class Pull:
    """One pull; the registry's clock is the daemon's."""

    def __init__(self, graph: Path) -> None:
        for name in ("layers", "quarantine", "storage/vfs", "tmp"):
            (graph / name).mkdir(parents=True)
        self.graph = graph
        self.daemon = FakeDaemon()
        self.registry = FakeRegistry(clock=self.daemon.clock)
        self.registry.add("a/b", "latest", IMAGE)
        faults = self.registry.faults
        faults.auth = "bearer"
        busy = {layer.digest: [(429, {"Retry-After": str(WAIT_S)})] for layer in IMAGE.layers}
        faults.statuses = busy

    def run(self, max_concurrent: int = 1) -> None:
        """Pulls; the image must arrive."""
        request = PullRequest(
            ref=f"{self.registry.host}/a/b",
            tmpdir=str(self.graph / "tmp"),
            max_concurrent=max_concurrent,
        )
        store = LayerStore(str(self.graph), "vfs")
        assert pull(request, store, self.daemon.job)["id"] == IMAGE.id

    @property
    def refusals(self) -> int:
        """How many requests the registry refused for want of a good token."""
        return sum(item.status == 401 for item in self.registry.seen("/v2/"))


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Pull]:
    found = Pull(tmp_path)
    with found.registry:
        yield found


@pytest.mark.parametrize(
    ("expires_in", "life_s"),
    [
        (MISSING, 60),
        (0, 60),
        (60, 60),
        (3600, 3600),
        (90, 90),
        (-1, 60),
        (None, 60),
        (True, 60),
        ("soon", 60),
        ("3600", 60),
        ([], 60),
        ({"a": 1}, 60),
        (float("nan"), 60),
        (10**30, 3600),
        (10**400, 3600),
        (1e300, 3600),
        (float("inf"), 3600),
    ],
    ids=str,
)
def test_as_many_tokens_as_lives(slow: Pull, expires_in: object, life_s: int) -> None:
    """Tokens really live as long as the specification says they do for this answer."""
    slow.registry.faults.expires_in = expires_in
    slow.registry.faults.token_life_s = life_s
    begin = slow.daemon.clock.now
    slow.run()
    whole_s = slow.daemon.clock.now - begin
    assert whole_s == LAYERS * WAIT_S
    # at 0, at the end of each life, and at the last request of all
    assert slow.registry.tokens_issued == whole_s // life_s + 1
    # the one that says where tokens come from
    assert slow.refusals == 1


@pytest.mark.parametrize("step_s", [50 * 365 * 86400, -50 * 365 * 86400])
def test_a_jump_of_the_wall_clock_changes_nothing(
    slow: Pull, monkeypatch: pytest.MonkeyPatch, step_s: int
) -> None:
    real, begin = time.time, slow.daemon.clock.now

    def wall() -> float:
        return real() + (step_s if slow.daemon.clock.now > begin + 100 else 0)

    monkeypatch.setattr(time, "time", wall)
    slow.registry.faults.expires_in = 60
    slow.registry.faults.token_life_s = 60
    slow.run()
    assert slow.registry.tokens_issued == 6
    assert slow.refusals == 1


def test_a_date_of_issue_plays_no_part(slow: Pull, monkeypatch: pytest.MonkeyPatch) -> None:
    issue = slow.registry.issue_token
    monkeypatch.setattr(
        slow.registry, "issue_token", lambda: {**issue(), "issued_at": "1970-01-01T00:00:00Z"}
    )
    slow.registry.faults.expires_in = 3600
    slow.run()
    assert slow.registry.tokens_issued == 1


def test_a_token_that_is_revoked_in_the_middle_is_replaced_once(
    slow: Pull, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three layers are asked for at once when the token dies; they share the next one."""
    slow.registry.faults.expires_in = 3600
    slow.registry.faults.statuses = {}
    token_is_good = slow.registry.token_is_good
    served: list[str] = []

    def until_the_tenth(token: str) -> bool:
        served.append(token)
        if len(served) == 10:
            slow.registry.revoke_tokens()
        return token_is_good(token)

    monkeypatch.setattr(slow.registry, "token_is_good", until_the_tenth)
    slow.run(max_concurrent=3)
    assert slow.registry.tokens_issued == 2
    assert 2 <= slow.refusals <= 4
