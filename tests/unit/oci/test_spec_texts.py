"""Texts of a document that no container can be given."""

from __future__ import annotations

from typing import Any

import pytest

from isula_edge import errors
from isula_edge.oci.spec import check_texts


def document(**changes: Any) -> dict[str, Any]:
    return {"process": {"args": ["sh"], "env": ["A=1"]}, "mounts": [], **changes}


TEXT = "é \U0001f600 \n\r\t\" ' \\ $(id)"
FINE = document(
    hostname=TEXT,
    annotations={TEXT: TEXT, "long": "x" * 300_000},
    mounts=[{"destination": "/" + "d" * 4094, "options": [TEXT, 5, None, True]}],
)


@pytest.mark.parametrize("utf8", [True, False])
def test_what_can_be_given(utf8: bool) -> None:
    check_texts(FINE, utf8=utf8)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"hostname": "a\0"}, "hostname"),
        ({"annotations": {"a.b": "\0"}}, "annotations.a.b"),
        ({"annotations": {"\0": "a"}}, "annotations"),
        ({"process": {"args": ["a", "b\0"]}}, "process.args[1]"),
        ({"mounts": [{}, {"source": "\0"}]}, "mounts[1].source"),
        ({"linux": {"sysctl": {"net.x": "\0"}}}, "linux.sysctl.net.x"),
    ],
)
@pytest.mark.parametrize("utf8", [True, False])
def test_a_nul_is_refused_where_it_is(changes: dict[str, Any], place: str, utf8: bool) -> None:
    with pytest.raises(errors.InvalidArgument) as found:
        check_texts(document(**changes), utf8=utf8)
    assert found.value.ref == place
    assert place in str(found.value)


@pytest.mark.parametrize("text", ["\udcff", "a\udc80b"])
def test_json_holds_no_other_bytes(text: str) -> None:
    given = document(process={"args": ["sh"], "env": [f"A={text}"]})
    check_texts(given, utf8=False)
    with pytest.raises(errors.InvalidArgument, match="no UTF-8") as found:
        check_texts(given, utf8=True)
    assert found.value.ref == "process.env[0]"
    assert "--runtime lxc" in found.value.hint


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"process": {"args": ["x" * (1 << 21)]}}, "process.args[0]"),
        ({"process": {"env": ["A=1", "A=" + "é" * (1 << 20)]}}, "process.env[1]"),
        ({"mounts": [{"source": "/" + "x" * 4095}]}, "mounts[0].source"),
        ({"mounts": [{"destination": "/" + "é" * 2048}]}, "mounts[0].destination"),
    ],
)
def test_what_the_kernel_does_not_take(changes: dict[str, Any], place: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="is longer than") as found:
        check_texts(document(**changes), utf8=False)
    assert found.value.ref == place
