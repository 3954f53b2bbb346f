"""Plugins at the engine's socket: registration, synchronization, requests, and being dropped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import struct
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from isula_cri.nri import ContainerInfo, Nri, Resources, from_settings, messages
from isula_cri.nri.plugin import NRI_VERSION
from isula_edge import errors
from isula_edge.oci.options import Settings
from isula_edge.runtime.ttrpc import Request, Response
from isula_edge.sys.process import Reaper
from tests.fakes.nri import OLD, POD, FakeView, Plugin, plugin, soon

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

CONTAINER = replace(from_settings(Settings(env=["A=1"])), id="c1", pod_id="pod1", name="web")


class Bench:
    """An engine's NRI with a socket, and plugins that are closed with it."""

    def __init__(self, path: Path, **limits: float) -> None:
        self.view = FakeView()
        self.path = str(path / "nri" / "nri.sock")
        self.nri = Nri(
            self.path,
            self.view,
            plugin_dir="",
            config_dir="",
            reaper=Reaper(),
            **{"registration_s": 30.0, "request_s": 30.0, **limits},
        )
        self.stack = AsyncExitStack()

    async def join(self, name: str = "test", index: str = "10", **options: Any) -> Plugin:
        """A plugin that the engine knows."""
        made = await self.stack.enter_async_context(plugin(self.path, name, index, **options))
        await soon(lambda: f"{index}-{name}" in self.nri.plugins, f"{name} is connected")
        return made


def run(path: Path, work: Callable[[Bench], Awaitable[None]], **limits: float) -> None:
    async def main() -> None:
        bench = Bench(path, **limits)
        async with asyncio.timeout(60), bench.stack:
            await bench.nri.start()
            try:
                await work(bench)
            finally:
                await bench.nri.close()
        await soon(lambda: len(asyncio.all_tasks()) == 1, "every task ends")
        await asyncio.sleep(0)  # connections are closed by callbacks

    asyncio.run(main())


async def events(bench: Bench) -> None:
    """All that the engine can say of a pod and a container."""
    nri, limits = bench.nri, Resources(memory_limit=5)
    await nri.run_pod(POD)
    await nri.create_container(POD, CONTAINER)
    await nri.post_create(POD, CONTAINER)
    await nri.start_container(POD, CONTAINER)
    await nri.post_start(POD, CONTAINER)
    assert await nri.update(POD, CONTAINER, limits) == limits
    await nri.post_update(POD, CONTAINER)
    await nri.update_pod(POD, limits, None)
    await nri.post_update_pod(POD)
    await nri.stop_container(POD, CONTAINER)
    await nri.remove_container(POD, CONTAINER)
    await nri.stop_pod(POD)
    await nri.remove_pod(POD)


EVENTS = [
    "RunPodSandbox", "CreateContainer", "PostCreateContainer", "StartContainer",
    "PostStartContainer", "UpdateContainer", "PostUpdateContainer", "UpdatePodSandbox",
    "PostUpdatePodSandbox", "StopContainer", "RemoveContainer", "StopPodSandbox",
    "RemovePodSandbox",
]  # fmt: skip


def test_without_plugins_nothing_happens(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        assert bench.nri.idle
        await events(bench)
        assert await bench.nri.create_container(POD, CONTAINER) is None
        assert bench.view.updates == []

    run(tmp_path, work)


def test_the_socket_belongs_to_root_alone_and_goes_with_the_engine(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        assert os.stat(bench.path).st_mode & 0o777 == 0o600
        assert os.stat(os.path.dirname(bench.path)).st_mode & 0o777 == 0o700

    run(tmp_path, work)
    assert os.listdir(tmp_path / "nri") == []


def test_the_socket_of_an_engine_that_died_and_of_one_that_lives(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        with pytest.raises(errors.Unavailable, match="in use"):
            await Bench(tmp_path).nri.start()

    (tmp_path / "nri").mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "nri" / "nri.sock"))
    run(tmp_path, work)
    (tmp_path / "nri" / "nri.sock").write_text("a file")
    with pytest.raises(errors.Unavailable, match="no socket"):
        run(tmp_path, work)


def test_a_plugin_is_configured_and_hears_everything(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        one = await bench.join()
        assert not bench.nri.idle
        asked = one.last("Configure")
        assert (asked.runtime_name, asked.NRI_version) == ("isula-edge", NRI_VERSION)
        assert (asked.registration_timeout, asked.request_timeout) == (30_000, 30_000)
        await events(bench)
        heard = [name for name in one.names if name != "ValidateContainerAdjustment"]
        assert heard == ["Configure", "Synchronize", *EVENTS]
        request = one.last("CreateContainer")
        assert (request.pod.id, request.pod.uid, request.pod.namespace) == (
            POD.id,
            POD.uid,
            POD.namespace,
        )
        assert (request.container.id, list(request.container.env)) == ("c1", ["A=1"])
        assert one.last("UpdatePodSandbox").overhead_linux_resources.memory.limit.value == 5
        assert not one.last("UpdatePodSandbox").HasField("linux_resources")

    run(tmp_path, work)


def test_only_what_a_plugin_subscribes_to(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        mask = 1 << 10 - 1 | 1 << 1 - 1  # STOP_CONTAINER, RUN_POD_SANDBOX
        one = await bench.join(Configure=lambda _: messages.ConfigureResponse(events=mask))
        await events(bench)
        assert one.names == ["Configure", "Synchronize", "RunPodSandbox", "StopContainer"]

    run(tmp_path, work)


def test_a_plugin_of_before_gets_state_changes(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        one = await bench.join(calls={*OLD, "StateChange"})
        await events(bench)
        await bench.nri.start_container(POD, CONTAINER)
        changes = [request for name, request in one.heard if name == "StateChange"]
        names = {number: name for name, number in messages.EVENTS.items()}
        assert [names[change.event] for change in changes] == [
            "RUN_POD_SANDBOX", "POST_CREATE_CONTAINER", "START_CONTAINER", "POST_START_CONTAINER",
            "POST_UPDATE_CONTAINER", "POST_UPDATE_POD_SANDBOX", "REMOVE_CONTAINER",
            "STOP_POD_SANDBOX", "REMOVE_POD_SANDBOX", "START_CONTAINER",
        ]  # fmt: skip
        assert (changes[-1].pod.id, changes[-1].container.id) == ("pod1", "c1")
        assert not changes[0].HasField("container")

    run(tmp_path, work)


def test_plugins_are_asked_in_order_of_their_index(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        order: list[str] = []
        for name, index in (("late", "90"), ("early", "05"), ("middle", "50")):
            await bench.join(name, index, RunPodSandbox=lambda _, name=name: order.append(name))
        assert bench.nri.plugins == ["05-early", "50-middle", "90-late"]
        await bench.nri.run_pod(POD)
        assert order == ["early", "middle", "late"]

    run(tmp_path, work)


@pytest.mark.parametrize(("name", "index"), [("", "10"), ("a/b", "10"), ("a", "1"), ("a", "ab")])
def test_a_registration_that_is_refused(tmp_path: Path, name: str, index: str) -> None:
    async def work(bench: Bench) -> None:
        made = Plugin(await asyncio.open_unix_connection(bench.path))
        with pytest.raises((errors.InvalidArgument, errors.Unavailable)):
            await made.register(name, index)
        await made.client.wait_closed()
        await made.close()
        assert bench.nri.plugins == []

    run(tmp_path, work)


@pytest.mark.parametrize("hook", ["Configure", "Synchronize"])
def test_a_plugin_that_fails_to_join(tmp_path: Path, hook: str) -> None:
    async def work(bench: Bench) -> None:
        hooks: Any = {hook: refuse}
        async with plugin(bench.path, **hooks) as one:
            await one.client.wait_closed()
        assert bench.nri.plugins == []

    run(tmp_path, work)


def test_a_subscription_to_events_that_do_not_exist(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        answer = messages.ConfigureResponse(events=1 << 14)
        async with plugin(bench.path, Configure=lambda _: answer) as one:
            await one.client.wait_closed()
        assert one.names == ["Configure"]

    run(tmp_path, work)


def test_a_plugin_that_does_not_register(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        reader, writer = await asyncio.open_unix_connection(bench.path)
        assert await reader.read() == b""
        writer.close()

    run(tmp_path, work, registration_s=0.05)


def refuse(_: Any) -> None:
    raise errors.Internal("not with me")


@pytest.mark.parametrize(
    ("hook", "work", "after"),
    [
        ("RunPodSandbox", lambda nri: nri.run_pod(POD), ["StopPodSandbox", "RemovePodSandbox"]),
        (
            "CreateContainer",
            lambda nri: nri.create_container(POD, CONTAINER),
            ["StopContainer", "RemoveContainer"],
        ),
        ("StartContainer", lambda nri: nri.start_container(POD, CONTAINER), []),
        ("UpdateContainer", lambda nri: nri.update(POD, CONTAINER, Resources()), []),
        ("UpdatePodSandbox", lambda nri: nri.update_pod(POD, None, None), []),
    ],
)
def test_what_a_plugin_may_refuse(
    tmp_path: Path, hook: str, work: Callable[[Nri], Awaitable[Any]], after: list[str]
) -> None:
    async def main(bench: Bench) -> None:
        first = await bench.join("first", "01")
        one = await bench.join("no", "10", **{hook: refuse})
        with pytest.raises(errors.Internal) as caught:
            await work(bench.nri)
        assert str(caught.value) == f'NRI plugin "10-no" refuses {hook}: not with me'
        assert first.names == one.names == ["Configure", "Synchronize", hook, *after]
        one.hooks.clear()
        await work(bench.nri)

    run(tmp_path, main)


def test_what_a_plugin_cannot_stop_any_more(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        late = set(EVENTS) - {
            "RunPodSandbox", "CreateContainer", "StartContainer", "UpdateContainer",
            "UpdatePodSandbox",
        }  # fmt: skip
        one = await bench.join("no", "10", **dict.fromkeys(late, refuse))
        two = await bench.join("yes", "20")
        await events(bench)
        assert late <= set(one.names)
        assert late <= set(two.names)

    run(tmp_path, work)


async def hang(_: Any) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("answer", [lambda _: hang(_), lambda _: b"\x0a\x05"])
def test_a_plugin_that_hangs_or_talks_nonsense_is_dropped(
    tmp_path: Path, answer: Callable[[Any], Any]
) -> None:
    async def work(bench: Bench) -> None:
        bad = await bench.join("bad", "10", CreateContainer=answer)
        good = await bench.join("good", "20")
        assert await bench.nri.create_container(POD, CONTAINER) is None
        await bad.client.wait_closed()
        await soon(lambda: bench.nri.plugins == ["20-good"], "the plugin is forgotten")
        await bench.nri.run_pod(POD)
        assert good.names[-2:] == ["ValidateContainerAdjustment", "RunPodSandbox"]

    run(tmp_path, work, request_s=1.0)


def test_a_plugin_that_dies_in_the_middle(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        one = await bench.join()
        one.hooks["RunPodSandbox"] = lambda _: one.mux.writer.close()
        await bench.nri.run_pod(POD)
        await soon(lambda: bench.nri.idle, "the plugin is forgotten")

    run(tmp_path, work)


def test_adjustments_of_two_plugins(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        def env(key: str) -> Any:
            return messages.CreateContainerResponse(
                adjust={"env": [{"key": key, "value": "1"}]},
                update=[{"container_id": "c2", "linux": {"resources": {"pids": {"limit": 5}}}}],
            )

        await bench.join("a", "10", CreateContainer=lambda _: env("A"))
        two = await bench.join(
            "b",
            "20",
            CreateContainer=lambda _: messages.CreateContainerResponse(
                adjust={"annotations": {"x": "1"}}
            ),
        )
        found = await bench.nri.create_container(POD, CONTAINER)
        assert found is not None
        assert [item.key for item in found.message.env] == ["A"]
        assert dict(found.message.annotations) == {"x": "1"}
        assert list(two.last("CreateContainer").container.env) == ["A=1"]
        assert bench.view.updates == [("c2", Resources(pids_limit=5))]
        checked = two.last("ValidateContainerAdjustment")
        assert checked.adjust == found.message
        assert list(checked.container.env) == ["A=1"]
        assert [item.container_id for item in checked.update] == ["c2"]
        assert [(item.index, item.name) for item in checked.plugins] == [("10", "a"), ("20", "b")]
        owners = checked.owners.owners["c1"].compound[messages.FIELDS["Env"]].owners
        assert dict(owners) == {"A": "10-a"}
        await bench.join("c", "30", CreateContainer=lambda _: env("A"))
        with pytest.raises(errors.FailedPrecondition, match='"10-a" and "30-c"'):
            await bench.nri.create_container(POD, CONTAINER)

    run(tmp_path, work)


def test_an_adjustment_that_is_rejected(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        answer = messages.ValidateContainerAdjustmentResponse(reject=True, reason="too bold")
        await bench.join(ValidateContainerAdjustment=lambda _: answer)
        with pytest.raises(errors.FailedPrecondition, match="too bold"):
            await bench.nri.create_container(POD, CONTAINER)

    run(tmp_path, work)


def test_a_check_that_did_not_happen_is_no_check(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        await bench.join(ValidateContainerAdjustment=hang)
        with pytest.raises(errors.Unavailable):
            await bench.nri.create_container(POD, CONTAINER)

    run(tmp_path, work, request_s=0.2)


def pids(name: str, limit: int, **more: Any) -> Any:
    return {
        "container_id": name,
        "linux": {"resources": {"pids": {"limit": limit}}},
        **more,
    }


def test_an_update_is_changed_on_its_way(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        answer = messages.UpdateContainerResponse(update=[pids("c1", 7), pids("c2", 8)])
        await bench.join("a", "10", UpdateContainer=lambda _: answer)
        two = await bench.join("b", "20")
        found = await bench.nri.update(POD, CONTAINER, Resources(memory_limit=1, pids_limit=3))
        assert found == Resources(memory_limit=1, pids_limit=7)
        assert Resources.of(two.last("UpdateContainer").linux_resources) == found
        assert bench.view.updates == [("c2", Resources(pids_limit=8))]

    run(tmp_path, work)


def test_updates_that_fail(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        bench.view.failing = {"c2"}
        updates = [pids("c2", 1, ignore_failure=True), pids("c3", 2)]
        one = await bench.join(
            CreateContainer=lambda _: messages.CreateContainerResponse(update=updates),
            StopContainer=lambda _: messages.StopContainerResponse(
                update=[pids("c2", 1), pids("c1", 1)]
            ),
        )
        assert await bench.nri.create_container(POD, CONTAINER) is None
        assert bench.view.updates == [("c3", Resources(pids_limit=2))]
        await bench.nri.stop_container(POD, CONTAINER)
        assert len(bench.view.updates) == 1
        updates[0]["ignore_failure"] = False
        with pytest.raises(errors.Aborted, match="c2"):
            await bench.nri.create_container(POD, CONTAINER)
        assert one.names[-2:] == ["StopContainer", "RemoveContainer"]

    run(tmp_path, work)


def test_what_a_plugin_asks_for_on_its_own(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        bench.view.failing = {"c2", "c3"}
        one = await bench.join()
        updates = [pids("c1", 1), pids("c2", 2), pids("c3", 3, ignore_failure=True)]
        request = messages.UpdateContainersRequest(update=updates)
        found = messages.UpdateContainersResponse.FromString(
            await one.call("UpdateContainers", request)
        )
        assert [item.container_id for item in found.failed] == ["c2"]
        assert bench.view.updates == [("c1", Resources(pids_limit=1))]
        with pytest.raises(errors.Unimplemented, match="evicts"):
            await one.call(
                "UpdateContainers",
                messages.UpdateContainersRequest(evict=[{"container_id": "c1"}]),
            )
        with pytest.raises(errors.Unimplemented):
            await one.call("Dance", messages.Empty())
        with pytest.raises(errors.FailedPrecondition, match="once"):
            await one.register("again", "10")

    run(tmp_path, work)


def test_an_update_out_of_a_request(tmp_path: Path) -> None:
    """A plugin that is being asked may ask itself: neither waits for the other."""

    async def work(bench: Bench) -> None:
        async def ask(_: Any) -> None:
            request = messages.UpdateContainersRequest(update=[pids("c1", 1)])
            await one.call("UpdateContainers", request)

        one = await bench.join(RunPodSandbox=ask)
        await bench.nri.run_pod(POD)
        assert bench.view.updates == [("c1", Resources(pids_limit=1))]

    run(tmp_path, work)


def test_synchronization_has_everything_and_may_ask_for_updates(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        bench.view.found, bench.view.made = [POD], [CONTAINER]
        answer = messages.SynchronizeResponse(update=[pids("c1", 4)])
        one = await bench.join(Synchronize=lambda _: answer)
        request = one.last("Synchronize")
        assert [pod.id for pod in request.pods] == ["pod1"]
        assert [container.id for container in request.containers] == ["c1"]
        assert not request.more
        await soon(lambda: bench.view.updates, "the update")
        assert bench.view.updates == [("c1", Resources(pids_limit=4))]

    run(tmp_path, work)


def test_synchronization_in_parts(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        bench.view.found = [replace(POD, id=f"p{number}") for number in range(3)]
        bench.view.made = [
            ContainerInfo(f"c{number}", "p1", labels={"long": "x" * 100_000})
            for number in range(60)
        ]
        one = await bench.join(
            Synchronize=lambda request: messages.SynchronizeResponse(more=request.more)
        )
        parts = [request for name, request in one.heard if name == "Synchronize"]
        assert [part.more for part in parts] == [True] * (len(parts) - 1) + [False]
        assert all(part.ByteSize() < 4 << 20 for part in parts)
        assert [pod.id for part in parts for pod in part.pods] == ["p0", "p1", "p2"]
        names = [container.id for part in parts for container in part.containers]
        assert names == [f"c{number}" for number in range(60)]
        async with plugin(bench.path, "simple", "20") as simple:
            await simple.client.wait_closed()
        assert bench.nri.plugins == ["10-test"]

    run(tmp_path, work)


def test_a_container_that_is_made_while_a_plugin_is_synchronized(tmp_path: Path) -> None:
    """It is in the synchronization, or a request of its own: once, never lost."""

    async def create(bench: Bench, name: str) -> None:
        async with bench.nri.block():
            container = replace(CONTAINER, id=name)
            await bench.nri.create_container(POD, container)
            await asyncio.sleep(0)
            bench.view.made.append(container)
            await bench.nri.post_create(POD, container)

    async def work(bench: Bench) -> None:
        reached, go = asyncio.Event(), asyncio.Event()

        async def slow(_: Any) -> None:
            reached.set()
            await go.wait()

        await bench.join("first", "00")
        before = asyncio.create_task(create(bench, "before"))
        joining = asyncio.create_task(bench.join("second", "10", Synchronize=slow))
        await reached.wait()
        during = [asyncio.create_task(create(bench, f"during{number}")) for number in range(3)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in during)
        go.set()
        second = await joining
        await asyncio.gather(before, *during)
        await create(bench, "after")
        synced = [item.id for item in second.last("Synchronize").containers]
        asked = [one.container.id for name, one in second.heard if name == "CreateContainer"]
        made = [item.id for item in bench.view.made]
        assert sorted(synced + asked) == sorted(made)

    run(tmp_path, work)


def test_the_engine_says_that_it_ends(tmp_path: Path) -> None:
    seen: list[Plugin] = []

    async def work(bench: Bench) -> None:
        seen.append(await bench.join())
        seen.append(await bench.join("rude", "20", Shutdown=refuse))

    run(tmp_path, work)
    assert [one.names[-1] for one in seen] == ["Shutdown", "Shutdown"]


def test_bytes_that_make_no_sense_disturb_nobody(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        one = await bench.join()
        chance = random.Random(7)
        envelope = Request(messages.RUNTIME, "RegisterPlugin", b"\x0a\x01x").encode()
        message = struct.pack(">IIBB", len(envelope), 1, 1, 0) + envelope
        whole = struct.pack(">II", 2, len(message)) + message
        for _ in range(100):
            data = bytearray(whole)
            for _ in range(chance.randint(1, 4)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            reader, writer = await asyncio.open_unix_connection(bench.path)
            writer.write(data)
            writer.write_eof()
            with contextlib.suppress(ConnectionResetError):
                await reader.read()
            writer.close()
        assert bench.nri.plugins == ["10-test"]
        await bench.nri.run_pod(POD)
        assert one.names[-1] == "RunPodSandbox"

    run(tmp_path, work)


def test_the_bytes_of_a_registration(tmp_path: Path) -> None:
    """Written by hand, as the documents have them: header of the mux, of ttrpc, protobuf."""

    async def work(bench: Bench) -> None:
        reader, writer = await asyncio.open_unix_connection(bench.path)
        envelope = (
            b"\x0a\x1cnri.pkg.api.v1alpha1.Runtime\x12\x0eRegisterPlugin"
            b"\x1a\x09\x0a\x03raw\x12\x0242"
        )
        message = struct.pack(">IIBB", len(envelope), 1, 1, 0) + envelope
        writer.write(struct.pack(">II", 2, len(message)) + message)
        # on connection 2 the answer, on connection 1 Configure, in any order
        found: dict[int, bytes] = {}
        for _ in range(2):
            number, size = struct.unpack(">II", await reader.readexactly(8))
            found[number] = await reader.readexactly(size)
        assert found[2] == struct.pack(">IIBB", 0, 1, 2, 0)
        length, stream, kind, flags = struct.unpack(">IIBB", found[1][:10])
        assert (length, stream, kind, flags) == (len(found[1]) - 10, 1, 1, 0)
        request = Request.decode(found[1][10:])
        assert (request.service, request.method) == ("nri.pkg.api.v1alpha1.Plugin", "Configure")
        assert request.timeout_ns == 30_000_000_000
        answer = Response(messages.ConfigureResponse(events=1).SerializeToString()).encode()
        answer = struct.pack(">IIBB", len(answer), 1, 2, 0) + answer
        writer.write(struct.pack(">II", 1, len(answer)) + answer)
        number, size = struct.unpack(">II", await reader.readexactly(8))
        request = Request.decode((await reader.readexactly(size))[10:])
        assert (number, request.method) == (1, "Synchronize")
        writer.close()

    run(tmp_path, work)
