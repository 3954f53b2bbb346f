"""Values of a wrong type are refused before anything is made of them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from isula_edge import errors
from isula_edge.daemon.methods import call
from isula_edge.oci import options
from isula_edge.service.containers import size_of

ENGINE: Any = SimpleNamespace(containers=None)
"""Whoever asks something of it has gone too far."""


@pytest.mark.parametrize("method", ["container.create", "container.run"])
@pytest.mark.parametrize(
    "params", [{"command": 5}, {"command": [5]}, {"image": 5}, {"name": []}, {"size": ["a", None]}]
)
def test_creation(method: str, params: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidArgument):
        asyncio.run(call(ENGINE, method, params, cast("Any", None)))


@pytest.mark.parametrize("method", ["container.attach", "container.exec"])
def test_sizes(method: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="size"):
        asyncio.run(call(ENGINE, method, {"size": [1, 2.5]}, cast("Any", None)))


@pytest.mark.parametrize("size", [5, "ab", [1], [1, "2"], [True, 1], {}])
def test_a_size_that_is_none(size: Any) -> None:
    with pytest.raises(errors.InvalidArgument):
        size_of({"size": size})


def test_a_size() -> None:
    assert size_of({}) is None
    assert size_of({"size": None}) is None
    assert size_of({"size": [24, 80]}) == (24, 80)


@pytest.mark.parametrize("name", sorted({*options._PLAIN, *options._READERS, *options._RESOURCES}))
def test_options(name: str) -> None:
    with pytest.raises((errors.InvalidArgument, errors.Unimplemented)):
        options.parse({name: [5]}, cpus=1)


@pytest.mark.parametrize("name", ["storage_opt", "env", "volume", "ulimit", "label"])
def test_lists(name: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        options.parse({name: 5}, cpus=1)
