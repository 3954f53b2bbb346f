"""Case A12: times are right in every zone, around daylight saving too."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from isula_edge.service.inspect import _stamp
from isula_edge.store.records import read_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.rig import Engine

ZONES = ["Pacific/Kiritimati", "Asia/Kolkata", "Pacific/Chatham", "America/St_Johns", "Etc/GMT"]


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Sets the zone of this process."""

    def enter(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield enter
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("name", ZONES)
# the hour around both changes of 2024 in Newfoundland and Chatham, and a day far from them
@pytest.mark.parametrize(
    "instant", [1710052200, 1710055800, 1730604600, 1730608200, 1712412000, 1727533800, 1718000000]
)
def test_the_stamp_is_the_instant(zone: Callable[[str], None], name: str, instant: int) -> None:
    zone(name)
    text = _stamp(instant * 10**9 + 123456789)
    found = datetime.fromisoformat(text[:26] + text[29:])
    assert found.timestamp() == pytest.approx(instant + 0.123456)
    assert text[19:29] == ".123456789"


@pytest.mark.root
@pytest.mark.lxc
@pytest.mark.parametrize("name", ["Pacific/Kiritimati", "America/St_Johns"])
def test_an_engine_in_another_zone(make_engine: Callable[..., Engine], name: str) -> None:
    engine = make_engine(env={"TZ": name})
    before = time.time()
    container = engine.ok("run", "-d", "--name", "zoned", "busybox", "sleep", "1000")
    after = time.time()
    text = engine.state_of("zoned")["StartedAt"]
    started = datetime.fromisoformat(text[:26] + text[29:])
    assert before - 1 <= started.timestamp() <= after + 1
    path = engine.graph / "engines" / "lxc" / container / "container.cbor"
    stored = read_record(str(path), "container")["state"]["started_ns"] / 1e9
    assert stored == pytest.approx(started.timestamp(), abs=1e-3)
