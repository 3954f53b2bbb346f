"""Messages that are made of a descriptor set, and lists in parts."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("google.protobuf")

from isula_cri import messages
from isula_cri.pages import pages
from isula_cri.protos import ProtoFile
from isula_edge import errors


def test_a_message_is_one_class() -> None:
    assert messages.PodSandbox is messages.PodSandbox
    found = messages.PodSandbox(id="a", labels={"b": "c"})
    assert messages.PodSandbox.FromString(found.SerializeToString()) == found


@pytest.mark.parametrize("name", ["Nothing", "runtime.v1.PodSandbox", "podSandbox", "__path__", ""])
def test_a_message_that_there_is_not(name: str) -> None:
    with pytest.raises(AttributeError, match="has no message"):
        getattr(messages, name)


def test_the_services() -> None:
    assert set(messages.services()) == set(messages.SERVICES)
    for service in messages.services().values():
        for method in service.methods:
            assert getattr(messages, method.input_type.name).DESCRIPTOR is method.input_type
            assert getattr(messages, method.output_type.name).DESCRIPTOR is method.output_type
            assert not method.client_streaming


def test_enumerations() -> None:
    assert messages.enum("NamespaceMode") == {"POD": 0, "CONTAINER": 1, "NODE": 2, "TARGET": 3}
    with pytest.raises(KeyError):
        messages.enum("Nothing")


def test_a_word_of_a_number() -> None:
    words = {0: "a", 1: "b"}
    assert messages.word(words, 1, "kind") == "b"
    with pytest.raises(errors.InvalidArgument, match="kind has the unknown value 7") as caught:
        messages.word(words, 7, "kind")
    assert caught.value.ref == "kind"


def test_two_sets_do_not_meet() -> None:
    first, second = ProtoFile("api"), ProtoFile("api")
    assert first.message("PodSandbox") is not second.message("PodSandbox")
    assert ProtoFile("nri").message("PodSandbox") is not first.message("PodSandbox")


def test_what_a_newer_caller_says_is_not_lost() -> None:
    """An unknown field stays with the bytes, as protobuf has it."""
    data = messages.PodSandboxMetadata(name="a").SerializeToString() + b"\xf8\x3f\x05"
    assert messages.PodSandboxMetadata.FromString(data).SerializeToString() == data


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 250])
def test_pages_hold_all_in_order_and_none_is_empty(count: int) -> None:
    items: list[Any] = list(range(count))
    parts = list(pages(items))
    assert [item for part in parts for item in part] == items
    assert all(0 < len(part) <= 100 for part in parts)
    assert len(parts) == (count + 99) // 100
