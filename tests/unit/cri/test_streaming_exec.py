"""Exec and attach through every protocol, with real processes behind them."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
import urllib.parse
from typing import TYPE_CHECKING, Any

import pytest

from isula_cri import messages
from tests.fakes.certificates import Authority
from tests.fakes.local_commands import MISSING, LocalCommands
from tests.fakes.streaming_clients import SpdyClient, WebSocketClient, eventually, shut, streaming

if TYPE_CHECKING:
    from pathlib import Path

    from isula_cri.streaming import Streaming

V = [f"{version}channel.k8s.io" for version in ("", "v2.", "v3.", "v4.", "v5.")]
V1, V2, V3, V4, V5 = V
SUCCESS = {"metadata": {}, "status": "Success"}


def exit_status(code: int) -> dict[str, Any]:
    cause = {"reason": "ExitCode", "message": str(code)}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [cause]},
    }


def exec_url(server: Streaming, *argv: str, ref: str = "abc", **flags: bool) -> str:
    flags = {"stdout": True, "stderr": not flags.get("tty"), **flags}
    return server.url("exec", messages.ExecRequest(container_id=ref, cmd=argv, **flags))


def script(text: str) -> tuple[str, str, str]:
    return "sh", "-c", text


async def spdy_run(client: SpdyClient, stdin: bytes | None = None) -> tuple[bytes, bytes, bytes]:
    """What the command wrote on stdout and stderr, and what the error stream says."""
    [error] = await client.open("error")
    inputs = await client.open(*(["stdin"] if stdin is not None else []))
    out, err = await client.open("stdout", "stderr")
    for stream in inputs:
        await stream.send(stdin or b"")
        await stream.end()
    found = await client.all_of(out), await client.all_of(err), await client.all_of(error)
    # the server is the one to end stdin too
    assert all(stream.number in client.handler.over for stream in inputs)
    assert not client.handler.resets
    await client.close()
    return found


@pytest.mark.parametrize("protocol", [V4, V5])
@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_over_spdy_the_exit_code_is_a_status(protocol: str, code: int) -> None:
    async def work() -> None:
        async with streaming(LocalCommands()) as server:
            url = exec_url(server, *script(f"echo out; echo err >&2; exit {code}"))
            client = await SpdyClient.connect(url, [protocol, V1])
            assert client.protocol == protocol
            out, err, error = await spdy_run(client)
            assert (out, err) == (b"out\n", b"err\n")
            assert json.loads(error) == (exit_status(code) if code else SUCCESS)

    asyncio.run(work())


@pytest.mark.parametrize("protocols", [[V3, V2], [V2], [V1], []])
def test_old_protocols_have_a_text_or_nothing(protocols: list[str]) -> None:
    async def work() -> None:
        async with streaming(LocalCommands()) as server:
            for code, text in ((0, b""), (7, b"command terminated with non-zero exit code: 7")):
                url = exec_url(server, *script(f"echo out; exit {code}"))
                client = await SpdyClient.connect(url, protocols)
                assert client.protocol == (protocols[0] if protocols else "")
                assert await spdy_run(client) == (b"out\n", b"", text)

    asyncio.run(work())


@pytest.mark.parametrize("protocol", [V2, V3, V4, V5])
def test_over_spdy_the_end_of_stdin_ends_cat(protocol: str) -> None:
    async def work() -> None:
        async with streaming(LocalCommands()) as server:
            client = await SpdyClient.connect(exec_url(server, "cat", stdin=True), [protocol])
            out, _, error = await spdy_run(client, b"\0hello\xff" * 30_000)
            assert out == b"\0hello\xff" * 30_000
            assert error in {b"", json.dumps(SUCCESS, separators=(",", ":")).encode()}

    asyncio.run(work())


def test_v1_has_no_end_of_stdin() -> None:
    async def work() -> None:
        backend = LocalCommands()
        async with streaming(backend) as server:
            url = exec_url(server, *script("read a; echo $a; read b; echo $b; exit 3"), stdin=True)
            client = await SpdyClient.connect(url, [V1])
            _, stdin, out, _ = await client.open("error", "stdin", "stdout", "stderr")
            await stdin.send(b"one\n")
            await client.handler.until(lambda: client.got(out) == b"one\n")
            await stdin.end()
            assert backend.ended == []
            await client.close()

    asyncio.run(work())


def test_the_size_of_a_terminal_follows_the_client() -> None:
    async def work() -> None:
        async with streaming(LocalCommands()) as server:
            command = script("read a; stty size; read a; stty size; tty; exit 5")
            url = exec_url(server, *command, tty=True, stdin=True)
            client = await SpdyClient.connect(url, [V4])
            names = ("error", "stdin", "stdout", "resize")
            error, stdin, out, resize = await client.open(*names)
            await resize.send(b'{"Width":77,"Hei')
            await resize.send(b'ght":33}{"Width":132,"Height":44}\n')
            # both are read before the line that follows on another stream
            await stdin.send(b"\n")
            await client.handler.until(lambda: b"44 132" in client.got(out))
            await resize.send(b'{"Width":10,"Height":20} nonsense {"Width":1,"Height":1}')
            await stdin.send(b"\n")
            written = await client.all_of(out)
            assert b"20 10" in written
            assert b"/dev/pts/" in written
            assert json.loads(await client.all_of(error)) == exit_status(5)
            await client.close()

    asyncio.run(work())


@pytest.mark.parametrize("protocol", [V4, V2])
def test_what_cannot_be_run_is_told_as_text_or_status(protocol: str) -> None:
    async def work() -> None:
        async with streaming(LocalCommands()) as server:
            client = await SpdyClient.connect(exec_url(server, "x", ref=MISSING), [protocol])
            out, err, error = await spdy_run(client)
            text = f"error executing command in container: No such container:{MISSING}"
            assert out == err == b""
            if protocol == V2:
                assert error == text.encode()
            else:
                status = json.loads(error)
                assert (status["status"], status["reason"]) == ("Failure", "InternalError")
                assert (status["message"], status["code"]) == (text, 500)

    asyncio.run(work())


def test_a_fault_of_the_engines_ends_one_session_only(caplog: pytest.LogCaptureFixture) -> None:
    class Faulty(LocalCommands):
        async def attach(self, *_: object) -> int:
            raise KeyError("fault")

    async def work() -> None:
        async with streaming(Faulty()) as server:
            request = messages.AttachRequest(container_id="a", stdout=True, stderr=True)
            client = await SpdyClient.connect(server.url("attach", request), [V4])
            assert b"attaching to container: 'fault'" in (await spdy_run(client))[2]
            client = await SpdyClient.connect(exec_url(server, "echo", "on"), [V4])
            assert (await spdy_run(client))[0] == b"on\n"

    asyncio.run(work())
    assert "a streamed command failed" in caplog.text


def test_an_attach_is_a_success_whatever_the_containers_exit_code() -> None:
    async def work() -> None:
        backend = LocalCommands()
        backend.attach_argv = ["sh", "-c", "cat; exit 9"]
        async with streaming(backend) as server:
            request = messages.AttachRequest(container_id="a", stdin=True, stdout=True, stderr=True)
            client = await SpdyClient.connect(server.url("attach", request), [V4])
            out, _, error = await spdy_run(client, b"typed")
            assert out == b"typed"
            assert json.loads(error) == SUCCESS
            assert backend.ended == [9]

    asyncio.run(work())


@pytest.mark.parametrize("kind", ["spdy", "websocket"])
def test_input_for_a_process_that_has_ended_is_no_harm(kind: str) -> None:
    """The end must reach a client that has sent what nobody will ever read."""

    async def work() -> None:
        async with streaming(LocalCommands()) as server:
            url = exec_url(server, *script("exec <&-; echo done; exit 2"), stdin=True)
            junk = b"x" * 300_000
            if kind == "spdy":
                client = await SpdyClient.connect(url, [V4])
                names = ("error", "stdin", "stdout", "stderr")
                error, stdin, out, _ = await client.open(*names)
                sending = asyncio.create_task(stdin.send(junk * 10))
                assert await client.all_of(out) == b"done\n"
                assert json.loads(await client.all_of(error)) == exit_status(2)
                await sending
                await client.close()
                return
            socket_client = await WebSocketClient.connect(url, [V5])
            for _ in range(5):
                await socket_client.send(0, junk)
            found = await socket_client.channels()
            assert found[1] == b"done\n"
            assert json.loads(found[3]) == exit_status(2)
            await socket_client.close()

    asyncio.run(work())


@pytest.mark.parametrize("protocol", [V5, V4, V1, ""])
def test_over_a_websocket_channels_are_bytes(protocol: str) -> None:
    async def work() -> None:
        async with streaming(LocalCommands()) as server:
            url = exec_url(server, *script("printf 'a\\0b'; echo err >&2; exit 6"))
            client = await WebSocketClient.connect(url, [protocol] if protocol else [])
            assert client.protocol == protocol
            found = await client.channels()
            assert (found[1], found[2]) == (b"a\0b", b"err\n")
            if protocol in {V4, V5}:
                assert json.loads(found[3]) == exit_status(6)
            else:
                assert found[3] == b"command terminated with non-zero exit code: 6"
            await client.close()

    asyncio.run(work())


@pytest.mark.parametrize("protocol", ["base64.channel.k8s.io", "v4.base64.channel.k8s.io"])
def test_base64_channels_are_text(protocol: str) -> None:
    async def work() -> None:
        async with streaming(LocalCommands()) as server:
            url = exec_url(server, *script("read a; printf \"<$a>\""), stdin=True)
            client = await WebSocketClient.connect(url, [protocol])
            await client.websocket.send(b"0" + base64.b64encode(b"hello\n"), text=True)
            found = await client.channels()
            assert base64.b64decode(found[ord("1")]) == b"<hello>"
            ends_with_status = protocol.startswith("v4")
            assert bool(found[ord("3")]) is ends_with_status
            await client.close()

    asyncio.run(work())


def test_v5_closes_stdin_and_the_others_do_not_know_how() -> None:
    async def work() -> None:
        async with streaming(LocalCommands()) as server:
            client = await WebSocketClient.connect(exec_url(server, "cat", stdin=True), [V5])
            await client.send(0, b"some ")
            await client.send(9, b"unknown channel")
            await client.send(255, b"\x01")
            await client.send(0, b"text")
            await client.send(255, b"\0")
            await client.send(0, b"too late")
            found = await client.channels()
            assert found[1] == b"some text"
            assert json.loads(found[3]) == SUCCESS
            await client.close()
            url = exec_url(server, *script("read a; read b; echo $a$b"), stdin=True)
            client = await WebSocketClient.connect(url, [V4])
            await client.send(0, b"some\n")
            await client.send(255, b"\0")
            await client.send(0, b"more\n")
            assert (await client.channels())[1] == b"somemore\n"
            await client.close()

    asyncio.run(work())


def test_all_of_it_works_with_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.sign("node")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    trust = ssl.create_default_context(cafile=authority.certificate)

    async def work() -> None:
        async with streaming(LocalCommands(), context) as server:
            url = exec_url(server, *script("cat; exit 4"), stdin=True)
            assert url.startswith("https://127.0.0.1:")
            client = await SpdyClient.connect(url, [V4], trust)
            out, _, error = await spdy_run(client, b"secret" * 100_000)
            assert out == b"secret" * 100_000
            assert json.loads(error) == exit_status(4)
            with pytest.raises(ssl.SSLError):
                await SpdyClient.connect(url, [V4], ssl.create_default_context())
            url = exec_url(server, "cat", "/dev/zero", stderr=False)
            client = await SpdyClient.connect(url, [V4], trust)
            await client.open("error", "stdout")
            await client.handler.until(lambda: len(client.handler.data) > 0)
            client.tcp.abort()
            await eventually(lambda: not server._sessions)
            await client.close()

    asyncio.run(work())


def test_a_websocket_resizes_and_pings() -> None:
    async def work() -> None:
        async with streaming(LocalCommands()) as server:
            url = exec_url(server, *script("read a; stty size"), stdin=True, tty=True)
            client = await WebSocketClient.connect(url, [V5])
            await client.send(4, b'{"Width":91,"Height":19}')
            await client.tcp.write(b"\x89\x83\0\0\0\0abc")  # a ping, masked with zeros
            await client.send(0, b"\n")
            answers = b""
            while b"\x8a\x03abc" not in answers or b"19 91" not in answers:
                answers += await client.tcp.read()
            await client.close()

    asyncio.run(work())


@pytest.mark.parametrize("kind", ["spdy", "websocket"])
def test_a_hundred_megabytes_pass_in_little_memory(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, peak = 100_000_000, [0]
    drain = asyncio.StreamWriter.drain

    async def counted(self: asyncio.StreamWriter) -> None:
        peak[0] = max(peak[0], self.transport.get_write_buffer_size())
        await drain(self)

    async def work() -> None:
        async with streaming(LocalCommands()) as server:
            url = exec_url(server, "head", "-c", str(size), "/dev/zero", stderr=False)
            client: SpdyClient | WebSocketClient
            if kind == "spdy":
                client = await SpdyClient.connect(url, [V4])
                client.handler.counts = True
                with client.tcp_paused():
                    error, out = await client.open("error", "stdout")
                    await eventually(lambda: peak[0] > 0)
                await client.all_of(out)
                await client.all_of(error)
                assert client.handler.sizes[out.number] == size
            else:
                client, got = await WebSocketClient.connect(url, [V5]), 0
                with client.tcp_paused():
                    await eventually(lambda: peak[0] > 0)
                while (pieces := await client.websocket.read()) is not None:
                    got += sum(len(piece) for piece, _ in pieces)
                assert got >= size
            await client.close()

    monkeypatch.setattr(asyncio.StreamWriter, "drain", counted)
    asyncio.run(work())
    assert peak[0] < 300_000


def test_a_slow_client_gets_all_although_the_command_has_ended_long_ago() -> None:
    async def work() -> None:
        backend = LocalCommands()
        async with streaming(backend) as server:
            server.grace_s = 0
            url = exec_url(server, "head", "-c", "800000", "/dev/zero", stderr=False)
            client = await WebSocketClient.connect(url, [V5])
            with client.tcp_paused():
                await eventually(lambda: bool(backend.ended))
            found = await client.channels()
            assert found[1] == bytes(800_000)
            assert json.loads(found[3]) == SUCCESS
            await client.close()

    asyncio.run(work())


@pytest.mark.parametrize("kind", ["spdy", "websocket"])
def test_a_client_that_never_reads_stops_the_command_and_frees_all_when_it_leaves(
    kind: str,
) -> None:
    async def work() -> None:
        backend = LocalCommands()
        async with streaming(backend) as server:
            url = exec_url(server, "cat", "/dev/zero", stderr=False)
            if kind == "spdy":
                client = await SpdyClient.connect(url, [V4])
                await client.open("error", "stdout")
                await client.handler.until(lambda: len(client.handler.data) > 0)
                client.reading.cancel()
            else:
                client = await WebSocketClient.connect(url, [V5])  # type: ignore[assignment]
            # others are served meanwhile
            other = await SpdyClient.connect(exec_url(server, "echo", "x"), [V4])
            assert (await spdy_run(other))[0] == b"x\n"
            assert backend.ended == [0]
            client.tcp.abort()
            await eventually(lambda: len(backend.ended) == 2 and not server._sessions)
            assert backend.ended[1] == 128 + 13  # SIGPIPE

    asyncio.run(work())


def test_a_client_that_leaves_is_noticed_although_its_input_is_not_read() -> None:
    async def work() -> None:
        backend = LocalCommands()
        async with streaming(backend) as server:
            url = exec_url(server, "sleep", "60", stdin=True, tty=True)
            client = await SpdyClient.connect(url, [V4])
            _, stdin, *_ = await client.open("error", "stdin", "stdout", "resize")
            for _ in range(6):  # more than the budget, less than all buffers
                await stdin.send(b"x" * 65536)
            client.tcp._writer.get_extra_info("socket").shutdown(socket.SHUT_WR)
            await eventually(lambda: not server._sessions)
            await client.close()

    asyncio.run(work())


def test_a_terminals_command_gets_a_hangup_when_the_client_leaves() -> None:
    async def work() -> None:
        backend = LocalCommands()
        async with streaming(backend) as server:
            url = exec_url(server, "sleep", "60", stdin=True, tty=True)
            client = await WebSocketClient.connect(url, [V5])
            await eventually(lambda: bool(server._works))
            await client.websocket.close()
            await eventually(lambda: bool(backend.ended))
            assert backend.ended == [129]
            await client.close()

    asyncio.run(work())


def test_what_came_with_the_request_is_not_lost() -> None:
    async def work() -> None:
        async with streaming(LocalCommands()) as server:
            url = exec_url(server, "cat", stdin=True, stderr=False)
            place = urllib.parse.urlsplit(url)
            reader, writer = await asyncio.open_connection(place.hostname, place.port)
            head = [
                f"GET {place.path} HTTP/1.1",
                f"Host: {place.netloc}",
                "Connection: Upgrade",
                "Upgrade: websocket",
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
                "Sec-WebSocket-Version: 13",
                f"Sec-WebSocket-Protocol: {V5}",
                "",
                "",
            ]
            # two messages masked with zeros: stdin, and its end
            early = b"\x82\x86\0\0\0\0\0early\x82\x82\0\0\0\0\xff\0"
            writer.write("\r\n".join(head).encode() + early)
            assert b"\x82\x06\x01early" in await reader.readuntil(b"early")
            await reader.readuntil(b'"Success"')
            await shut(writer)

    asyncio.run(work())
