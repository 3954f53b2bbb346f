"""The streaming server's HTTP: who gets a session, and who does not."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from isula_cri import messages
from isula_cri.streaming import Streaming
from isula_cri.streaming.requests import Tokens, Wanted
from isula_edge import errors
from tests.fakes.local_commands import LocalCommands
from tests.fakes.streaming_clients import (
    SpdyClient,
    WebSocketClient,
    eventually,
    raw,
    shut,
    streaming,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isula_edge.container.streams import Session

SPDY = ("Connection: Upgrade", "Upgrade: SPDY/3.1", "X-Stream-Protocol-Version: v4.channel.k8s.io")
WEBSOCKET = (
    "Connection: keep-alive, Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec-WebSocket-Version: 13",
)


class Waiting(LocalCommands):
    """Every command runs until its client leaves."""

    async def exec(
        self, container_id: str, argv: list[str], tty: bool, stdin: bool, session: Session
    ) -> int:
        async for _ in session.input():
            pass
        self.ended.append(0)
        return 0


def exec_request(*argv: str, **flags: bool) -> object:
    flags.setdefault("stdout", True)
    return messages.ExecRequest(container_id="abc", cmd=argv, **flags)


async def status(url: str, lines: Sequence[str], method: str = "POST") -> int:
    head, (reader, writer) = await raw(url, lines, method=method)
    if not head.startswith("HTTP/1.1 101 "):
        assert "Connection: close" in head
        await reader.read()  # it closes
    await shut(writer)
    return int(head.split(" ")[1])


@pytest.mark.parametrize(
    ("lines", "method", "code"),
    [
        (SPDY, "PUT", 405),
        ((), "POST", 400),
        (("Connection: Upgrade",), "POST", 400),
        (("Upgrade: SPDY/3.1",), "POST", 400),
        (("Connection: Upgrade", "Upgrade: h2c"), "POST", 400),
        (WEBSOCKET, "POST", 400),
        (WEBSOCKET[:2], "GET", 400),
        ((*WEBSOCKET[:3], "Sec-WebSocket-Version: 8"), "GET", 400),
        ((*WEBSOCKET, "Sec-WebSocket-Protocol: chat, v9.channel.k8s.io"), "GET", 403),
        ((*SPDY[:2], "X-Stream-Protocol-Version: v9.channel.k8s.io"), "POST", 403),
        ((*SPDY, "Content-Length: 3", "", "abc"), "POST", 400),
        ((*SPDY, "Cookie: " + "x" * 40_000), "POST", 400),
        (("no header",), "POST", 400),
        (SPDY, "POST", 101),
        (SPDY, "GET", 101),
        (WEBSOCKET, "GET", 101),
    ],
)
def test_only_a_proper_upgrade_is_switched(lines: Sequence[str], method: str, code: int) -> None:
    async def work() -> None:
        async with streaming(Waiting()) as server:
            url = server.url("exec", exec_request("true"))
            assert await status(url, lines, method) == code
            # a request that was refused has not used the token
            assert await status(url, SPDY) == (404 if code == 101 else 101)

    asyncio.run(work())


def test_a_token_is_for_its_own_kind_and_once() -> None:
    async def work() -> None:
        async with streaming(Waiting()) as server:
            url = server.url("exec", exec_request("true"))
            assert url.startswith(f"http://127.0.0.1:{server.port}/exec/")
            assert await status(url.replace("/exec/", "/attach/"), SPDY) == 404
            assert await status(url + "x", SPDY) == 404
            assert await status(url.rpartition("/")[0], SPDY) == 404
            assert await status(url, SPDY) == 101
            assert await status(url, SPDY) == 404

    asyncio.run(work())


def test_tokens_are_good_for_a_minute_and_the_oldest_of_a_thousand_goes() -> None:
    now = [0.0]
    tokens = Tokens(clock=lambda: now[0])
    first = tokens.add(Wanted("exec", "a"))
    now[0] = 59.9
    second = tokens.add(Wanted("exec", "b"))
    assert tokens.find("exec", first) == Wanted("exec", "a")
    now[0] = 60.1
    assert tokens.find("exec", first) is None
    assert tokens.find("exec", second) == Wanted("exec", "b")
    many = [tokens.add(Wanted("exec", str(number))) for number in range(999)]
    assert tokens.find("exec", second) is not None
    many.append(tokens.add(Wanted("exec", "999")))
    assert tokens.find("exec", second) is None
    assert all(tokens.find("exec", token) for token in many)
    assert len(set(many)) == 1000
    assert min(map(len, many)) == 64


def test_the_url_has_the_clients_view_of_the_server() -> None:
    async def work() -> None:
        server = Streaming(LocalCommands(), base_url="https://node.example:10250/cri/")
        url = server.url("attach", messages.AttachRequest(container_id="abc", stdin=True))
        assert url.startswith("https://node.example:10250/cri/attach/")
        six = Streaming(LocalCommands(), address="::", port=99)
        url = six.url("portforward", messages.PortForwardRequest(pod_sandbox_id="pod", port=[80]))
        assert url.startswith("http://[::1]:99/portforward/")

    asyncio.run(work())


def test_an_address_that_is_taken_is_an_error() -> None:
    async def work() -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            sock.listen()
            with pytest.raises(errors.FailedPrecondition, match="cannot listen"):
                await Streaming(LocalCommands(), port=sock.getsockname()[1]).start()

    asyncio.run(work())


def test_there_are_128_sessions_at_most() -> None:
    async def work() -> None:
        backend = Waiting()
        async with streaming(backend) as server:
            url = [server.url("exec", exec_request("x", stdin=True)) for _ in range(129)]
            clients = [await WebSocketClient.connect(one, []) for one in url[:128]]
            assert await status(url[128], SPDY) == 503
            await clients[0].close()
            await eventually(lambda: len(backend.ended) >= 1)
            assert await status(url[128], SPDY) == 101
            for client in clients[1:]:
                await client.close()

    asyncio.run(work())


def test_a_client_that_says_nothing_is_not_waited_for_when_the_server_ends() -> None:
    async def work() -> None:
        async with streaming(Waiting()) as server:
            silent = await asyncio.open_connection("127.0.0.1", server.port)
            url = server.url("exec", exec_request("x"))
            client = await SpdyClient.connect(url, ["v4.channel.k8s.io"])
            await eventually(lambda: len(server._connections) >= 2)
        assert await silent[0].read() == b""
        await client.reading
        await shut(silent[1])
        await client.close()

    asyncio.run(work())


def test_streams_that_do_not_come_end_the_session() -> None:
    async def work() -> None:
        async with streaming(Waiting()) as server:
            server.creation_s = 0.05
            url = server.url("exec", exec_request("x", stderr=True))
            client = await SpdyClient.connect(url, ["v4.channel.k8s.io"])
            [error] = await client.open("error")
            assert b"timed out waiting for streams" in await client.all_of(error)
            await client.reading
            await client.close()

    asyncio.run(work())


def test_a_session_in_which_nothing_happens_ends() -> None:
    async def work() -> None:
        async with streaming(Waiting()) as server:
            server.idle_s = 0.05
            url = server.url("exec", exec_request("x"))
            client = await WebSocketClient.connect(url, [])
            assert await client.channels() == {1: b""}
            await client.close()

    asyncio.run(work())
