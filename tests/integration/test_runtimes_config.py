"""``runtimes`` of daemon.json in a running engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.rig import Engine

pytestmark = [pytest.mark.root, pytest.mark.lxc]


def test_each_runtime_is_listed_with_what_is_wrong_with_it(
    make_engine: Callable[..., Engine], tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    plain.write_text("not executable\n")
    engine = make_engine(
        config={
            "runtimes": {
                "mine": {"path": "runc", "runtimeArgs": ["--debug"]},
                "gone": {"path": "/no/such/runtime"},
                "plain": {"path": str(plain)},
                "kata": {"runtimeType": "io.containerd.kata.v2"},
            }
        },
        load=False,
    )
    lines = engine.isula("info").lines
    at = lines.index(next(line for line in lines if line.startswith("Runtimes: ")))
    shown = dict(line.strip().partition(": ")[::2] for line in lines[at + 1 : at + 10])
    assert shown["lxc"] == "lxc, /usr/bin/lxc-start"
    assert shown["mine"].startswith("oci, /usr/")
    assert shown["gone"] == "oci, unusable: /no/such/runtime does not exist"
    assert shown["plain"] == f"oci, unusable: {plain} is not executable"
    assert shown["runc"].startswith("oci, /")


def test_a_name_with_capitals_is_found(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(config={"runtimes": {"Mine": {"path": "runc"}}})
    for name in ("Mine", "mine", "MINE"):
        assert engine.ok("run", "--rm", "--runtime", name, "busybox", "echo", "it") == "it"
    engine.ok("create", "--name", "box", "--runtime", "mine", "busybox", "true")
    assert engine.inspect("box")["HostConfig"]["Runtime"] == "Mine"


def test_a_wrong_entry_keeps_the_daemon_from_starting(
    make_engine: Callable[..., Engine],
) -> None:
    with pytest.raises(AssertionError, match=r"runtimes: odd: unknown key pth"):
        make_engine(config={"runtimes": {"odd": {"pth": "/usr/bin/runc"}}}, load=False)
    with pytest.raises(AssertionError, match=r"runtime odd is not supported"):
        make_engine(config={"default-runtime": "odd"}, load=False)
