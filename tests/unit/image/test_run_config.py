"""Configurations of images that no container can be made of."""

from __future__ import annotations

from typing import Any

import pytest

from isula_edge import errors
from isula_edge.image.run_config import check_run_config


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"User": None, "Env": None, "Cmd": None, "Entrypoint": None},
        {"User": "1:1", "Env": ["A=ü"], "Entrypoint": ["/x"], "Cmd": [], "StopSignal": "SIGFOO"},
        {"Labels": 5, "Whatever": "\0"},
    ],
)
def test_right(config: dict[str, Any]) -> None:
    check_run_config(config, "busybox")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("User", 5),
        ("User", ["root"]),
        ("WorkingDir", "/a\0b"),
        ("StopSignal", 15),
        ("Env", {"A": "1"}),
        ("Env", "A=1"),
        ("Env", ["A=1", None]),
        ("Entrypoint", "sh"),
        ("Entrypoint", ["sh\0"]),
        ("Cmd", ["\ud800"]),
    ],
)
def test_wrong(field: str, value: object) -> None:
    with pytest.raises(errors.InvalidArgument, match=f"{field} in the .* image busybox"):
        check_run_config({field: value}, "busybox")
