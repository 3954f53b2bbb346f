"""Where namespaces of pods are pinned, and what is left when they cannot be made."""

from __future__ import annotations

import errno
import io
import os
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.pod import namespaces
from isula_edge.pod.namespaces import Request
from isula_edge.sys import process

if TYPE_CHECKING:
    from pathlib import Path

ID = "ab" * 32


def request(folder: Path, **fields: Any) -> Request:
    return Request(ID, str(folder), ("network", "ipc", "uts"), "box", {}, **fields)


def test_places() -> None:
    found = namespaces.paths(ID, "/s/pods/x")
    assert found == {
        "network": f"/var/run/netns/isulacni-{ID[:32]}",
        "ipc": "/s/pods/x/ns/ipc",
        "uts": "/s/pods/x/ns/uts",
        "user": "/s/pods/x/ns/user",
    }
    assert namespaces.network_path(ID) == found["network"]


def test_what_is_pinned(tmp_path: Path) -> None:
    file = tmp_path / "ns"
    assert not namespaces.pinned(str(file))
    file.write_text("")
    assert not namespaces.pinned(str(file))
    assert namespaces.pinned("/proc/self/ns/net")


def test_the_hosts_network_needs_no_thread() -> None:
    assert namespaces.connect(None, threading.get_ident) == threading.get_ident()
    assert namespaces.in_thread(threading.get_ident) != threading.get_ident()


def test_what_a_thread_raises_is_raised() -> None:
    def fail() -> None:
        raise errors.Unavailable("nobody")

    with pytest.raises(errors.Unavailable, match="nobody"):
        namespaces.in_thread(fail)
    with pytest.raises(FileNotFoundError):
        namespaces.connect("/nowhere/net", lambda: None)


def test_what_is_gone_is_released_already(tmp_path: Path) -> None:
    file = tmp_path / "ipc"
    file.write_text("")
    paths = {"ipc": str(file), "network": str(tmp_path / "absent"), "uts": None}
    namespaces.release(paths, None)
    assert not file.exists()
    namespaces.release(paths, None)


FAILURES: list[tuple[BaseException, type[BaseException], str]] = [
    (PermissionError(1, "Operation not permitted"), errors.Internal, f"of pod {ID[:12]}: .*permit"),
    (errors.InvalidArgument("sysctl net.x"), errors.InvalidArgument, "sysctl net.x"),
]


@pytest.mark.parametrize(("failure", "kind", "text"), FAILURES)
def test_what_fails_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    kind: type[BaseException],
    text: str,
) -> None:
    pinned = tmp_path / "ns-ipc"

    def half(_request: Request, made: namespaces.Made) -> int:
        pinned.write_text("")
        made.paths["ipc"] = str(pinned)
        raise failure

    monkeypatch.setattr(namespaces, "_in_thread", half)
    with pytest.raises(kind, match=text):
        namespaces.make(request(tmp_path))
    assert not pinned.exists()


def helper(*lines: str) -> Any:
    return SimpleNamespace(stdout=io.BytesIO("".join(f"{line}\n" for line in lines).encode()))


def test_steps_of_the_helper() -> None:
    found = helper("user", "made", "42")
    assert [namespaces._next(found) for _ in range(3)] == ["user", "made", "42"]
    # its end
    with pytest.raises(OSError, match=r"its helper has ended"):
        namespaces._next(found)


def test_what_the_helper_says_of_a_failure() -> None:
    with pytest.raises(errors.InvalidArgument, match=r"^sysctl a=b is refused$"):
        namespaces._next(helper("refused sysctl a=b is refused"))
    with pytest.raises(OSError, match="no user namespace: a limit is reached") as why:
        namespaces._next(helper("failed 28 a limit is reached"))
    assert why.value.errno == errno.ENOSPC


def test_only_the_pods_own_pause_process_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proc = {"5": f"/pause\0{ID}\0", "6": "/pause\0other\0", "7": f"sh\0/pause\0{ID}\0", "self": ""}
    for name, words in proc.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "cmdline").write_text(words)
    (tmp_path / "8").mkdir()
    opened, ended = open, []

    def fake(path: str, *args: Any) -> Any:
        return opened(path.replace("/proc", str(tmp_path)), *args)

    monkeypatch.setattr(process, "open", fake, raising=False)
    monkeypatch.setattr(os, "listdir", lambda _: [*proc, "8"])
    monkeypatch.setattr(process, "identify", lambda pid: pid)
    monkeypatch.setattr(process, "signal_process", lambda pid, _: ended.append(pid))
    namespaces.end_pause(ID)
    assert ended == [5]
