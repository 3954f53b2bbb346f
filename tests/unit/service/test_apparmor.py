"""AppArmor profiles that a container may be given."""

from __future__ import annotations

import pytest

from isula_edge import errors
from isula_edge.cgroup import Host
from isula_edge.oci.options import Settings
from isula_edge.service.limits import HostLimits
from isula_edge.sys import lsm


def check(**given: object) -> None:
    HostLimits(Host("1", {})).check(Settings(**given))  # type: ignore[arg-type]


@pytest.mark.parametrize("there", [True, False])
def test_what_needs_no_profile(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(lsm, "apparmor_enabled", lambda: there)
    monkeypatch.setattr(lsm, "apparmor_has", lambda _: False)
    check()
    check(apparmor="unconfined")
    check(apparmor="edge", privileged=True)


@pytest.mark.parametrize(
    ("there", "loaded", "why"),
    [(False, True, "the kernel has no AppArmor"), (True, False, "it is not loaded")],
)
def test_a_profile_that_cannot_be_applied(
    monkeypatch: pytest.MonkeyPatch, there: bool, loaded: bool, why: str
) -> None:
    monkeypatch.setattr(lsm, "apparmor_enabled", lambda: there)
    monkeypatch.setattr(lsm, "apparmor_has", lambda _: loaded)
    with pytest.raises(errors.FailedPrecondition) as found:
        check(apparmor="edge")
    assert str(found.value) == f"AppArmor profile edge cannot be applied: {why}"


def test_a_profile_that_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lsm, "apparmor_enabled", lambda: True)
    monkeypatch.setattr(lsm, "apparmor_has", lambda name: bool(name == "edge"))
    check(apparmor="edge")
