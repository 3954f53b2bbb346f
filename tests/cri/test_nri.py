"""NRI plug-ins that follow, and hold up, what a kubelet asks for."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from tests.cri import node as nodes
from tests.cri.client import refused
from tests.cri.leavings import leavings
from tests.fakes.nri import Plugin, plugin, soon

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

pytestmark = [pytest.mark.root, pytest.mark.lxc]


@pytest.fixture(scope="module")
def machine(images: Path) -> Iterator[nodes.Machine]:
    """An engine that takes plug-ins."""
    with tempfile.TemporaryDirectory(prefix="isula-nri-", dir="/var/tmp") as folder:
        os.chmod(folder, 0o711)
        socket: dict[str, Any] = {"nri-support": True, "nri-socket-path": f"{folder}/nri.sock"}
        with nodes.machine(Path(folder), images, **socket) as found:
            yield found


def with_plugin(
    node: nodes.Node,
    work: Callable[[Plugin], Awaitable[None]],
    **hooks: Any,
) -> Plugin:
    """Does ``work`` while a plug-in is connected; gives the plug-in, for what it heard."""

    async def connected() -> Plugin:
        path = str(node.machine.folder / "nri.sock")
        async with asyncio.timeout(90), plugin(path, **hooks) as found:
            await soon(lambda: "Synchronize" in found.names, "the synchronization")
            await work(found)
        return found

    return asyncio.run(connected())


async def later(work: Callable[..., Any], *args: Any, **fields: Any) -> Any:
    """A blocking call in a thread."""
    return await asyncio.to_thread(lambda: work(*args, **fields))


def failing(*_: object) -> None:
    raise errors.FailedPrecondition("the plug-in does not want it")


def calls(found: Plugin, of: str) -> list[str]:
    """What the plug-in heard of a pod or a container, in order, but for plain notes."""
    heard = []
    for name, request in found.heard:
        if name in ("Configure", "Synchronize", "Shutdown") or name.startswith("Post"):
            continue
        own = request.container.id if "Container" in name else request.pod.id
        if own == of and name != "ValidateContainerAdjustment":
            heard.append(name)
    return heard


def test_a_pod_and_its_container_in_order(node: nodes.Node) -> None:
    """Specs: pod sandbox and container lifecycle should receive … in strict order."""
    made: list[Any] = []

    async def work(found: Plugin) -> None:
        pod = await later(node.pod, labels={"a": "b"})
        container = await later(pod.run)
        made.extend((pod, container))
        for step in (container.stop, container.remove, pod.stop, pod.remove):
            await later(step)

    heard = with_plugin(node, work)
    pod, container = made
    assert calls(heard, pod.id) == ["RunPodSandbox", "StopPodSandbox", "RemovePodSandbox"]
    assert calls(heard, container.id) == [
        "CreateContainer", "StartContainer", "StopContainer", "RemoveContainer",
    ]  # fmt: skip
    request = heard.last("RunPodSandbox")
    metadata = pod.config.metadata
    assert (request.pod.name, request.pod.uid) == (metadata.name, metadata.uid)
    assert request.pod.namespace == metadata.namespace
    assert dict(request.pod.labels) == {"a": "b"}
    assert heard.last("StopContainer").container.pod_sandbox_id == pod.id


def test_a_container_that_fails(node: nodes.Node) -> None:
    """Spec: container lifecycle (failed container)."""
    made: list[Any] = []

    async def work(found: Plugin) -> None:
        pod = await later(node.pod)
        container = await later(pod.run, "sh", "-c", "exit 3")
        made.append(container)
        assert (await later(container.wait)).exit_code == 3
        await soon(lambda: "StopContainer" in found.names, "the news of its end")
        await later(container.remove)

    heard = with_plugin(node, work)
    assert calls(heard, made[0].id) == [
        "CreateContainer", "StartContainer", "StopContainer", "RemoveContainer",
    ]  # fmt: skip


def test_a_plugin_that_comes_late(node: nodes.Node) -> None:
    """Spec: synchronize a newly connected plugin with existing pods and containers."""
    pod = node.pod()
    container = pod.run()

    async def work(found: Plugin) -> None:
        del found

    request = with_plugin(node, work).last("Synchronize")
    assert pod.id in [item.id for item in request.pods]
    assert container.id in [item.id for item in request.containers]


def test_containers_made_while_a_plugin_synchronizes(node: nodes.Node) -> None:
    """Specs: a callback for a container created during Synchronize, without a race."""
    pod = node.pod()
    seen: set[str] = set()
    told: set[str] = set()
    begun: list[asyncio.Task[Any]] = []

    async def synchronize(request: Any) -> None:
        seen.update(item.id for item in request.containers)
        begun.extend(asyncio.create_task(later(pod.create, "true")) for _ in range(4))
        await asyncio.sleep(0.3)

    async def work(found: Plugin) -> None:
        await soon(lambda: begun, "the synchronization")
        made = {container.id for container in await asyncio.gather(*begun)}
        told.update(
            request.container.id for name, request in found.heard if name == "CreateContainer"
        )
        assert made <= seen | told
        assert not seen & told

    with_plugin(node, work, Synchronize=synchronize)


@pytest.mark.parametrize("step", ["RunPodSandbox", "CreateContainer"])
def test_a_refusal_leaves_nothing_and_the_retry_is_fine(node: nodes.Node, step: str) -> None:
    """Specs: should fail … when the NRI hook errors, leak nothing, and allow retry."""
    pod = node.pod() if step == "CreateContainer" else None
    config = node.pod_config()
    wanted = node.container_config("true", name="again")

    def ask() -> Any:
        if pod is None:
            return node.run_pod(config)
        fields = {"pod_sandbox_id": pod.id, "config": wanted, "sandbox_config": pod.config}
        return node.call("CreateContainer", **fields)

    before = sorted(leavings(node.machine))

    async def work(found: Plugin) -> None:
        with refused():
            await later(ask)
        assert sorted(await later(leavings, node.machine)) == before
        found.hooks.clear()
        assert await later(ask)

    with_plugin(node, work, **{step: failing})


@pytest.mark.parametrize("step", ["RunPodSandbox", "CreateContainer"])
def test_nobody_sees_what_a_plugin_has_not_let_through(node: nodes.Node, step: str) -> None:
    """Specs: should not expose … while the hook is in progress."""
    pod = node.pod() if step == "CreateContainer" else None
    asked: list[str] = []
    go: list[asyncio.Event] = []

    async def hold(request: Any) -> None:
        go.append(asyncio.Event())
        asked.append(request.pod.id if pod is None else request.container.id)
        await go[0].wait()

    async def work(found: Plugin) -> None:
        del found
        making = asyncio.create_task(later(node.pod if pod is None else pod.create))
        await soon(lambda: asked, "the plug-in's turn")
        if pod is None:
            assert not list((await later(node.call, "ListPodSandbox")).items)
            with refused("NOT_FOUND"):
                await later(node.call, "PodSandboxStatus", pod_sandbox_id=asked[0])
            wanted = {"pod_sandbox_id": asked[0], "config": node.container_config("true")}
            with refused("NOT_FOUND"):
                await later(node.call, "CreateContainer", **wanted)
        else:
            assert not list((await later(node.call, "ListContainers")).containers)
            with refused("NOT_FOUND"):
                await later(node.call, "ContainerStatus", container_id=asked[0])
        go[0].set()
        assert (await making).id == asked[0]

    with_plugin(node, work, **{step: hold})


def test_a_pod_that_a_plugin_sees_stopping(node: nodes.Node) -> None:
    """Specs: StopPodSandbox stops all containers first, is idempotent, and final."""
    pod = node.pod()
    container = pod.run()
    go: list[asyncio.Event] = []

    async def hold(request: Any) -> None:
        del request
        go.append(asyncio.Event())
        await go[0].wait()

    async def work(found: Plugin) -> None:
        stopping = asyncio.create_task(later(pod.stop))
        await soon(lambda: go, "the plug-in's turn")
        assert (await later(container.status)).state == nodes.EXITED
        assert (await later(pod.status)).id == pod.id
        go[0].set()
        await stopping
        await later(pod.stop)
        assert (await later(pod.status)).state == nodes.NOT_READY
        with refused():
            await later(pod.create, "true")
        assert found.names.count("StopPodSandbox") == 1

    with_plugin(node, work, StopPodSandbox=hold)
