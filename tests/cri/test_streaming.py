"""Exec, attach and port forwarding into real containers, over SPDY and WebSockets."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.cri.client import refused
from tests.fakes.streaming_clients import SpdyClient, WebSocketClient
from tests.rig import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.cri.node import Container, Machine, Node, Pod

pytestmark = [pytest.mark.root, pytest.mark.lxc]
_V4, _V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"
_PORTS = "portforward.k8s.io"
_SUCCESS = "Success"
_PATIENCE_S = 60


@pytest.fixture
def pod(node: Node) -> Pod:
    return node.pod()


@pytest.fixture
def websockets(machine: Machine) -> None:
    """The server speaks WebSocket, as not every engine's does."""
    if machine.engine is None:
        pytest.skip("whether another engine speaks WebSocket is not known")


def talk(machine: Machine, work: Callable[[], Awaitable[Any]]) -> Any:
    """What ``work`` gives in the engine's network namespace."""

    async def bounded() -> Any:
        async with asyncio.timeout(_PATIENCE_S):
            return await work()

    return machine.inside(lambda: asyncio.run(bounded()))


def exec_url(container: Container, *command: str, **flags: bool) -> str:
    values = {"stdout": True, "stderr": not flags.get("tty"), **flags}
    call = container.pod.node.call
    return str(call("Exec", container_id=container.id, cmd=command, **values).url)


def attach_url(container: Container, **flags: bool) -> str:
    values = {"stdout": True, "stderr": not flags.get("tty"), **flags}
    return str(container.pod.node.call("Attach", container_id=container.id, **values).url)


def forward_url(pod: Pod, *ports: int) -> str:
    return str(pod.node.call("PortForward", pod_sandbox_id=pod.id, port=ports).url)


async def over_spdy(url: str, *, stdin: bytes | None = None, tty: bool = False) -> tuple[Any, ...]:
    """Standard output, standard error and status of what is behind ``url``."""
    client = await SpdyClient.connect(url, [_V4])
    (error,) = await client.open("error")
    into = await client.open(*([] if stdin is None else ["stdin"]))
    outs = await client.open("stdout", *([] if tty else ["stderr"]))
    if tty:
        (resize,) = await client.open("resize")
        await resize.send(b'{"Width":90,"Height":30}')
    for stream in into:
        await stream.send(stdin or b"")
        if not tty:
            await stream.end()
    found = [await client.all_of(stream) for stream in outs]
    status = json.loads(await client.all_of(error))
    await client.close()
    return (*found, status)


async def over_websocket(url: str, *, stdin: bytes | None = None) -> tuple[Any, ...]:
    client = await WebSocketClient.connect(url, [_V5])
    if stdin is not None:
        await client.send(0, stdin)
        await client.send(255, b"\0")
    found = await client.channels()
    await client.close()
    return found[1], found[2], json.loads(found[3])


def code_of(status: dict[str, Any]) -> int:
    """The exit code in a status object."""
    if status["status"] == _SUCCESS:
        return 0
    assert status["reason"] == "NonZeroExitCode"
    return int(status["details"]["causes"][0]["message"])


def test_exec(pod: Pod) -> None:
    """Spec: runtime should support exec with tty=false and stdin=false."""
    container = pod.run()
    url = exec_url(container, "sh", "-c", "echo out; echo err >&2; exit 42")
    out, err, status = talk(pod.node.machine, lambda: over_spdy(url))
    assert (out, err, code_of(status)) == (b"out\n", b"err\n", 42)
    url = exec_url(container, "true")
    assert talk(pod.node.machine, lambda: over_spdy(url))[2]["status"] == _SUCCESS


def test_exec_with_a_terminal(pod: Pod) -> None:
    """Spec: runtime should support exec with tty=true and stdin=true."""
    container = pod.run()
    url = exec_url(container, "sh", stdin=True, tty=True)
    script = b"stty size; tty; exit 7\n"
    out, status = talk(pod.node.machine, lambda: over_spdy(url, stdin=script, tty=True))
    assert b"30 90" in out
    assert b"/dev/pts/" in out
    assert code_of(status) == 7


def test_the_end_of_standard_input(pod: Pod) -> None:
    data = b"\0some \xff bytes\n" * 20000
    url = exec_url(pod.run(), "cat", stdin=True)
    out, err, status = talk(pod.node.machine, lambda: over_spdy(url, stdin=data))
    assert out == data
    assert (err, status["status"]) == (b"", _SUCCESS)


@pytest.mark.parametrize("child", ["sleep 1000", "yes"], ids=["silent", "writing"])
@pytest.mark.parametrize("talker", ["spdy", "websocket"])
def test_a_child_in_the_background_holds_nothing_up(pod: Pod, talker: str, child: str) -> None:
    """Case A26."""
    url = exec_url(pod.run(), "sh", "-c", f"echo begin; {child} & exit 3")
    over = {"spdy": over_spdy, "websocket": over_websocket}[talker]
    out, _, status = talk(pod.node.machine, lambda: over(url))
    assert out.startswith(b"begin\n")
    assert code_of(status) == 3


@pytest.mark.usefixtures("websockets")
def test_exec_over_a_websocket(pod: Pod) -> None:
    data = b"\0some \xff bytes\n" * 20000
    container = pod.run()
    url = exec_url(container, "sh", "-c", "cat; echo err >&2; exit 3", stdin=True)
    out, err, status = talk(pod.node.machine, lambda: over_websocket(url, stdin=data))
    assert out == data
    assert (err, code_of(status)) == (b"err\n", 3)


def test_attach(pod: Pod) -> None:
    """Spec: runtime should support attach."""
    container = pod.run("sh", stdin=True, stdin_once=True)
    url = attach_url(container, stdin=True)
    work = over_spdy(url, stdin=b"echo hello\n")
    out, err, status = talk(pod.node.machine, lambda: work)
    assert (out, err, status["status"]) == (b"hello\n", b"", _SUCCESS)
    assert container.wait().exit_code == 0
    assert container.log_lines() == [("stdout", "F", "hello")]


@pytest.mark.usefixtures("websockets")
def test_attach_over_a_websocket(pod: Pod) -> None:
    container = pod.run("sh", stdin=True, stdin_once=True)
    url = attach_url(container, stdin=True)
    work = over_websocket(url, stdin=b"echo hello; echo err >&2\n")
    out, err, _ = talk(pod.node.machine, lambda: work)
    assert (out, err) == (b"hello\n", b"err\n")


def test_two_attach_one_after_the_other(pod: Pod) -> None:
    container = pod.run("cat", stdin=True)

    async def one(text: bytes) -> bytes:
        client = await SpdyClient.connect(attach_url(container, stdin=True), [_V4])
        _, into, out, _ = await client.open("error", "stdin", "stdout", "stderr")
        await into.send(text)
        await client.handler.until(lambda: text in client.got(out))
        await client.close()
        return client.got(out)

    async def both() -> list[bytes]:
        return [await one(b"one\n"), await one(b"two\n")]

    first, second = talk(pod.node.machine, both)
    assert first == b"one\n"
    assert second.endswith(b"two\n")
    until(lambda: container.printed() == ["one", "two"], "both in the log")


def test_what_is_refused_at_once(pod: Pod) -> None:
    call, container = pod.node.call, pod.run()
    words: dict[str, Any] = {"container_id": container.id, "cmd": ["true"]}
    with refused():
        call("Exec", **words)
    with refused():
        call("Exec", **words, tty=True, stdout=True, stderr=True)
    with refused():
        call("Attach", container_id=container.id)
    with refused("NOT_FOUND", "UNKNOWN"):
        call("Exec", container_id="0" * 64, cmd=["true"], stdout=True)
    with refused("NOT_FOUND", "UNKNOWN"):
        call("PortForward", pod_sandbox_id="0" * 64)
    container.stop()
    with refused():
        call("Exec", **words, stdout=True)
    with refused():
        call("Attach", container_id=container.id, stdout=True)
    pod.stop()
    with refused():
        call("PortForward", pod_sandbox_id=pod.id)


def test_a_program_that_is_missing(pod: Pod) -> None:
    url = exec_url(pod.run(), "/no/such/program")
    status = talk(pod.node.machine, lambda: over_spdy(url))[2]
    assert status["status"] == "Failure"


# ports


def serve(pod: Pod, port: int) -> None:
    """A page on a port of the pod."""
    script = f"mkdir /srv; echo served >/srv/index.html; exec busybox httpd -f -p {port} -h /srv"
    container = pod.run("sh", "-c", script)
    url = f"http://127.0.0.1:{port}/"
    until(lambda: container.exec("wget", "-qO-", url).code == 0, "the server")


async def fetch(client: SpdyClient, port: int, number: int = 0) -> tuple[bytes, bytes]:
    """Answer and error of one connection through a session."""
    headers = {"port": str(port), "requestID": str(number)}
    (error,) = await client.open("error", **headers)
    await error.end()
    (data,) = await client.open("data", **headers)
    await data.send(b"GET / HTTP/1.0\r\n\r\n")
    return await client.all_of(data), await client.all_of(error)


@pytest.mark.parametrize("mode", ["POD", "NODE"])
def test_port(node: Node, mode: str) -> None:
    """Specs: runtime should support portforward, portforward in host network."""
    pod = node.pod(linux={"security_context": {"namespace_options": {"network": mode}}})
    serve(pod, 8123)

    async def work() -> list[tuple[bytes, bytes]]:
        client = await SpdyClient.connect(forward_url(pod, 8123), [_PORTS])
        found = [await fetch(client, 8123, number) for number in range(3)]
        found += await asyncio.gather(*(fetch(client, 8123, number) for number in range(3, 9)))
        await client.close()
        return found

    for answer, error in talk(node.machine, work):
        assert answer.endswith(b"served\n")
        assert error == b""


@pytest.mark.usefixtures("websockets")
def test_port_through_a_websocket(pod: Pod) -> None:
    serve(pod, 80)

    async def work() -> tuple[bytes, bytes]:
        client = await SpdyClient.tunnel(forward_url(pod, 80), f"SPDY/3.1+{_PORTS}")
        found = await fetch(client, 80)
        await client.close()
        return found

    answer, error = talk(pod.node.machine, work)
    assert answer.endswith(b"served\n")
    assert error == b""


def test_a_port_that_nobody_listens_on(pod: Pod) -> None:
    async def work() -> tuple[bytes, bytes]:
        client = await SpdyClient.connect(forward_url(pod, 81), [_PORTS])
        found = await fetch(client, 81)
        await client.close()
        return found

    answer, error = talk(pod.node.machine, work)
    assert answer == b""
    assert b"refused" in error
