"""Maps of user namespaces, read."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from isula_edge.sys import process
from isula_edge.sys.userns import host_id, new_user_namespace, why_none

if TYPE_CHECKING:
    from collections.abc import Callable

MAPS = [(0, 1000, 10), (10, 5000, 5)]


@pytest.mark.parametrize(
    ("number", "expected"), [(0, 1000), (9, 1009), (10, 5000), (14, 5004), (15, -1)]
)
def test_an_id_on_the_host(number: int, expected: int) -> None:
    assert host_id(MAPS, number) == expected


def test_nothing_is_mapped_without_maps() -> None:
    assert host_id([]) == -1


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.EINVAL, "CONFIG_USER_NS"),
        (errno.ENOSYS, "CONFIG_USER_NS"),
        (errno.ENOSPC, "user.max_user_namespaces"),
        (errno.EUSERS, "user.max_user_namespaces"),
        (errno.EPERM, "forbidden"),
        (errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_why_there_is_none(number: int, text: str) -> None:
    assert text in why_none(number)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a program in the place of the helper, which answers so."""

    def instead(answer: str) -> None:
        words = ["/bin/sh", "-c", f"printf '{answer}'"]
        monkeypatch.setattr(process, "python_command", lambda _module: words)

    return instead


@pytest.mark.parametrize(
    ("answer", "number", "text"),
    [
        (f"failed {errno.EINVAL} the kernel has none\\n", errno.EINVAL, "the kernel has none"),
        (f"failed {errno.ENOSPC} a limit\\n", errno.ENOSPC, "a limit"),
        ("", errno.ECHILD, "its helper has ended"),
    ],
)
def test_what_the_helper_says_is_told(
    answers: Callable[[str], None], answer: str, number: int, text: str
) -> None:
    answers(answer)
    with pytest.raises(OSError, match=f"no user namespace: {text}") as why:
        new_user_namespace(MAPS, MAPS)
    assert why.value.errno == number
