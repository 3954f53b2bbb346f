"""The library of the client against a server: results, streams, errors, and no daemon."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors, wire
from isula_edge.client import DEFAULT_HOST, Client
from tests.unit.daemon.served import Served, Waiting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from isula_edge.daemon.server import Session


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path) as found:
        yield found
    assert found.problems == []


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.host, timeout_s=20) as found:
        yield found


def test_a_call_gives_its_result_and_the_next_one_too(client: Client) -> None:
    for number in range(3):
        assert client.call("echo", {"n": number}) == {"n": number}


def test_many_clients_at_once(served: Served) -> None:
    clients = [Client(served.host, timeout_s=20) for _ in range(30)]
    streams = [one.stream("echo", {"n": number}) for number, one in enumerate(clients)]
    assert [stream.wait()["n"] for stream in reversed(streams)] == list(reversed(range(30)))
    for one in clients:
        one.close()


SENT = sorted(set(errors.BY_CODE.values()), key=lambda cls: cls.__name__)


@pytest.mark.parametrize("cls", SENT, ids=lambda cls: cls.__name__)
def test_an_error_comes_back_as_the_same_class(
    served: Served, client: Client, cls: type[errors.EngineError]
) -> None:
    async def refuse(_params: dict[str, Any], _session: Session) -> dict[str, Any]:
        raise cls("text", kind="image", ref="a", hint="do", retryable=True)

    served.methods["refuse"] = refuse
    with pytest.raises(cls, match=r"^text$") as caught:
        client.call("refuse")
    assert type(caught.value) is cls
    assert (caught.value.kind, caught.value.ref, caught.value.hint) == ("image", "a", "do")
    assert client.call("echo") == {}


async def speak(_params: dict[str, Any], session: Session) -> dict[str, Any]:
    await session.item({"id": "x"})
    await session.out(b"out")
    await session.err(b"err")
    await session.out(b"x" * 200_000)
    return {"exit_code": 7}


def test_a_stream_gives_frames_and_then_its_result(served: Served, client: Client) -> None:
    served.methods["speak"] = speak
    stream = client.stream("speak")
    frames = [("v", {"id": "x"}), ("o", b"out"), ("E", b"err"), ("o", b"x" * 200_000)]
    assert list(stream) == frames
    assert stream.result == {"exit_code": 7}
    assert list(stream) == []


def test_waiting_drops_what_comes_before_the_result(served: Served, client: Client) -> None:
    served.methods["speak"] = speak
    assert client.stream("speak").wait() == {"exit_code": 7}


async def cat(params: dict[str, Any], session: Session) -> dict[str, Any]:
    size = 0
    async for kind, value in session.input():
        if kind == "eof":
            return {"exit_code": size % 251}
        if kind == "data" and isinstance(value, bytes):
            size += len(value)
            await session.out(value)
            await session.err(params.get("err", b""))
        else:
            await session.item([kind, *(value if isinstance(value, tuple) else [value])])
    raise errors.Aborted("the client left")


@pytest.mark.parametrize("size", [0, 1, 32768, 3_000_000])
def test_communicating_writes_and_reads_at_once(served: Served, client: Client, size: int) -> None:
    served.methods["container.exec"] = cat
    data = os.urandom(size)
    stream = client.exec("web", ["cat"], stdin=True)
    assert stream.communicate(data) == (size % 251, data, b"")
    assert client.call("echo", {"n": 1}) == {"n": 1}


def test_input_size_and_signals_reach_the_request(served: Served, client: Client) -> None:
    served.methods["cat"] = cat
    stream = client.stream("cat", {"err": b"e"})
    frames = iter(stream)
    stream.resize(24, 80)
    assert next(frames) == ("v", ["resize", 24, 80])
    stream.signal(15)
    assert next(frames) == ("v", ["signal", 15])
    stream.send_input(b"data")
    assert [next(frames), next(frames)] == [("o", b"data"), ("E", b"e")]
    stream.end_input()
    assert list(frames) == []
    assert stream.result == {"exit_code": 4}


def test_one_request_at_a_time(served: Served, client: Client) -> None:
    waiting = Waiting(served)
    client.stream("wait")
    with pytest.raises(RuntimeError, match="in progress"):
        client.call("echo")
    waiting.go_on()
    assert waiting.wait() == "finished"


@pytest.mark.parametrize("how", ["client", "stream"])
def test_leaving_the_block_cancels_the_request(served: Served, how: str) -> None:
    waiting = Waiting(served, only_waiting=True)
    with Client(served.host, timeout_s=20) as client:
        stream = client.stream("wait")
        assert waiting.begun.wait(20)
        if how == "stream":
            with stream:
                pass
            assert waiting.wait() == "cancelled"
            assert client.call("echo") == {}
    assert waiting.wait() == "cancelled"


def test_a_client_can_be_used_again_after_closing(client: Client) -> None:
    assert client.fileno() == -1
    client.call("echo")
    assert client.fileno() >= 0
    client.close()
    client.close()
    assert client.fileno() == -1
    assert client.call("echo") == {}


def test_time_runs_out(served: Served) -> None:
    waiting = Waiting(served, only_waiting=True)
    with Client(served.host, timeout_s=0.01) as client:
        stream = client.stream("wait")
        assert waiting.begun.wait(20)
        with pytest.raises(errors.DeadlineExceeded, match="did not answer in time"):
            stream.wait()
        assert client.fileno() == -1
    assert waiting.wait() == "cancelled"


def test_a_daemon_that_ends_in_the_middle_is_unavailable(served: Served, client: Client) -> None:
    waiting = Waiting(served)
    stream = client.stream("wait")
    assert waiting.begun.wait(20)
    client._socket.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
    with pytest.raises(errors.Unavailable, match="closed the connection") as caught:
        stream.wait()
    assert caught.value.kind == "daemon"
    assert caught.value.retryable
    waiting.go_on()


# no daemon, or something else


def test_a_daemon_that_does_not_run_is_said_clearly(tmp_path: Path) -> None:
    host = f"unix://{tmp_path}/absent.sock"
    with pytest.raises(errors.Unavailable, match=r"Is the daemon running\?") as caught:
        Client(host).version()
    assert str(caught.value) == (
        f"Cannot connect to the daemon at {host}: No such file or directory. Is the daemon running?"
    )
    assert (caught.value.kind, caught.value.ref, caught.value.retryable) == ("daemon", host, True)


def test_a_socket_that_nobody_listens_on_is_said_clearly(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "d.sock"))
    with pytest.raises(errors.Unavailable, match="Connection refused"):
        Client(f"unix://{tmp_path}/d.sock").version()


def test_a_socket_that_may_not_be_opened_is_permission_denied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed:
        def __init__(self, *_args: object) -> None:
            pass

        def settimeout(self, _seconds: float | None) -> None:
            pass

        def connect(self, path: str) -> None:
            raise PermissionError(13, "Permission denied", path)

        def close(self) -> None:
            pass

    monkeypatch.setattr("_socket.socket", Closed)
    with pytest.raises(errors.PermissionDenied, match=r"Permission denied$") as caught:
        Client(f"unix://{tmp_path}/d.sock").version()
    assert "group" in caught.value.hint
    assert not caught.value.retryable


class Fake:
    """Something that listens, reads the request and says ``answer``."""

    def __init__(self, folder: Path, answer: bytes) -> None:
        self.host = f"unix://{folder}/fake.sock"
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self.host[7:])
        self._socket.listen()
        self._answer = answer
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(self._answer)

    def __enter__(self) -> Fake:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._thread.join()
        self._socket.close()


NOT_OURS = {
    "a web server": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a frame too large": (wire.MAX_ANSWER + 1).to_bytes(4, "big"),
    "no CBOR": b"\0\0\0\1\xff",
    "a list": wire.pack([1]),
    "a map of two": wire.pack({"r": {}, "v": 1}),
    "an empty map": wire.pack({}),
}


@pytest.mark.parametrize("case", NOT_OURS)
def test_an_answer_that_is_not_the_daemons(tmp_path: Path, case: str) -> None:
    with (
        Fake(tmp_path, NOT_OURS[case]) as fake,
        Client(fake.host, timeout_s=20) as client,
        pytest.raises(errors.Unavailable, match="is not isulad's") as caught,
    ):
        client.version()
    assert "another program" in caught.value.hint


@pytest.mark.parametrize("answer", [b"", b"\0", wire.pack({"r": {"x": "y" * 100}})[:50]])
def test_an_answer_that_is_cut_off(tmp_path: Path, answer: bytes) -> None:
    with (
        Fake(tmp_path, answer) as fake,
        Client(fake.host, timeout_s=20) as client,
        pytest.raises(errors.Unavailable, match="before it had answered"),
    ):
        client.version()


def test_a_request_that_is_too_large_is_said_to_be(client: Client) -> None:
    with pytest.raises(errors.InvalidArgument):
        client.call("echo", {"data": b"x" * (wire.MAX_REQUEST + 1)})


HOSTS = ["unix://", "unix://relative", "unix:/one", "/run/x.sock", "tcp://", "tcp://host"]
HOSTS += ["tcp://host:", "tcp://:1", "tcp://host:65536", "tcp://host:x", "http://x", "unix:///a\0b"]


@pytest.mark.parametrize("host", HOSTS)
def test_a_malformed_host_is_refused_before_anything_is_sent(host: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="Invalid socket name") as caught:
        Client(host)
    assert caught.value.kind == "daemon"
    assert "unix:///absolute/path" in caught.value.hint


def test_the_host_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISULAD_HOST", "unix:///from/environment")
    assert Client().host == "unix:///from/environment"
    assert Client("unix:///given").host == "unix:///given"
    monkeypatch.setenv("ISULAD_HOST", "")
    assert Client().host == DEFAULT_HOST


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost"])
def test_a_tcp_host_is_connected_to(address: str) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        Client(f"tcp://{address}:{server.getsockname()[1]}", timeout_s=20) as client,
    ):
        stream = client.stream("version")
        connection, _ = server.accept()
        with connection:
            connection.sendall(wire.pack({"r": {"version": "1"}}))
            assert stream.wait() == {"version": "1"}


def test_only_what_is_needed_is_imported() -> None:
    code = "import isula_edge.client; print(*sorted(sys.modules))"
    root = os.path.abspath(f"{os.path.dirname(__file__)}/../..")
    found = subprocess.run(
        [sys.executable, "-IS", "-c", f"import sys; sys.path.insert(0, {root!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    heavy = {"socket", "asyncio", "ssl", "json", "subprocess", "isula_edge.errors", "cbor2"}
    assert heavy.isdisjoint(found.stdout.split())
