"""Lists, lookups and checks of the calls, and the events, over an engine of fakes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

pytest.importorskip("google.protobuf")

from isula_cri import messages, streams
from isula_cri.containers import ContainerCalls
from isula_cri.events import EventCalls
from isula_cri.info import InfoCalls
from isula_cri.node import Node
from isula_cri.pods import PodCalls
from isula_cri.streams import StreamCalls
from isula_edge import errors
from isula_edge.container.record import Container, State, Status
from isula_edge.container.staging import Features
from isula_edge.oci.options import Settings
from isula_edge.pod.record import Pod, PodSpec
from isula_edge.service.events import Events
from isula_edge.types import ContainerId, ImageId
from tests.fakes.table import Table

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine

    from isula_cri.streaming import Streaming
    from isula_edge.service.engine import Engine

MODES = {"network": "pod", "ipc": "pod", "pid": "container"}
TYPES = messages.enum("ContainerEventType")
IMAGE = messages.ImageSpec(image="busybox").SerializeToString()


class Things(Table):
    """Containers or pods by id; the network of pods."""

    def __init__(self, items: list[Any], others: Things | tuple[()] = ()) -> None:
        super().__init__(*items)
        self.others = others
        self.reason = ""
        self.cidrs: list[str] = []
        self.stopped: list[str] = []

    def containers(self, pod: Pod) -> list[Any]:
        return [item for item in self.others if item.pod == pod.id]

    async def stop(self, item: Any, *how: Any, **more: Any) -> None:
        del how, more
        self.stopped.append(item.id)

    @property
    def network(self) -> Any:
        async def status() -> str:
            return self.reason

        return SimpleNamespace(
            status=status, set_pod_cidr=self.cidrs.extend, networks=list
        )


def pod(own_id: str, *, ready: bool = True, **labels: str) -> Pod:
    spec = PodSpec(own_id, "u", "n", labels=labels, modes=MODES)
    return Pod(own_id, int(own_id[1:]), "boot", spec, ready=ready)


def container(own_id: str, of: str, status: Status = Status.RUNNING, **labels: str) -> Container:
    return Container(
        *(ContainerId(own_id), f"k8s_{own_id}", int(own_id[1:]), "busybox", ImageId(""), {}, []),
        *("lxc", ["true"], Settings(labels=labels), State(status)),
        pod=of,
        cri={"name": own_id, "attempt": 0, "image": IMAGE, "annotations": {}, "mounts": []},
    )


class Rig:
    """All calls over two pods with three containers, and one container without a pod."""

    def __init__(self) -> None:
        self.containers = Things(
            [
                container("c3", "p2", Status.EXITED),
                container("c2", "p1", Status.CREATED, app="a"),
                container("c1", "p1", app="a", tier="x"),
                container("d1", ""),
            ]
        )
        pods = [pod("p2", ready=False, app="a", tier="x"), pod("p1", app="a")]
        self.pods = Things(pods, self.containers)
        self.events = Events()
        self.refused: list[str] = []
        self.lacking: list[Any] = []
        fake = SimpleNamespace(
            table=self.containers,
            containers=self.containers,
            pods=self.pods,
            events=self.events,
            life=SimpleNamespace(refuse_exec=self.refuse),
            config=SimpleNamespace(
                systemd_cgroup=False, cri=SimpleNamespace(handlers={"fast": "runc", "x": "kata"})
            ),
            default_runtime="lxc",
            runtimes={"lxc": None, "runc": SimpleNamespace(program="/usr/bin/runc")},
            degraded=lambda: self.lacking,
        )
        self.node = Node(cast("Engine", fake))
        self.node._features = Features(recursive_read_only=True, user_namespaces=False)
        self.opened = 0

    def refuse(self, container: Container) -> None:
        if container.id in self.refused:
            raise errors.FailedPrecondition("it does not run")

    async def open(self) -> Streaming:
        self.opened += 1
        await asyncio.sleep(0)
        urls = SimpleNamespace(url=lambda kind, _: f"http://here/{kind}")
        return cast("Streaming", urls)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def done(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


# lists


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, ["p1", "p2"]),
        ({"id": "p1"}, ["p1"]),
        ({"id": "p"}, ["p1", "p2"]),
        ({"id": "x"}, []),
        ({"state": {"state": 0}}, ["p1"]),
        ({"state": {"state": 1}}, ["p2"]),
        ({"label_selector": {"app": "a"}}, ["p1", "p2"]),
        ({"label_selector": {"app": "a", "tier": "x"}}, ["p2"]),
        ({"label_selector": {"app": ""}}, []),
        ({"id": "p2", "state": {"state": 0}}, []),
    ],
)
def test_pods_that_a_filter_fits(rig: Rig, wanted: Any, expected: list[str]) -> None:
    request = messages.ListPodSandboxRequest(filter=wanted)
    answer = done(PodCalls(rig.node).ListPodSandbox(request, None))
    assert [item.id for item in answer.items] == expected
    streamed = done(collected(PodCalls(rig.node).StreamPodSandboxes(request, None)))
    assert [item.id for part in streamed for item in part.pod_sandboxes] == expected


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, ["c1", "c2", "c3"]),
        ({"id": "c2"}, ["c2"]),
        ({"id": "d1"}, []),
        ({"pod_sandbox_id": "p1"}, ["c1", "c2"]),
        ({"pod_sandbox_id": "p2"}, ["c3"]),
        ({"state": {"state": 0}}, ["c2"]),
        ({"state": {"state": 1}}, ["c1"]),
        ({"state": {"state": 2}}, ["c3"]),
        ({"state": {"state": 3}}, []),
        ({"label_selector": {"app": "a"}}, ["c1", "c2"]),
        ({"label_selector": {"app": "a"}, "state": {"state": 1}}, ["c1"]),
    ],
)
def test_containers_that_a_filter_fits(rig: Rig, wanted: Any, expected: list[str]) -> None:
    request = messages.ListContainersRequest(filter=wanted)
    calls = ContainerCalls(rig.node)
    answer = done(calls.ListContainers(request, None))
    assert [item.id for item in answer.containers] == expected
    streamed = done(collected(calls.StreamContainers(request, None)))
    assert [item.id for part in streamed for item in part.containers] == expected


async def collected(items: Any) -> list[Any]:
    return [item async for item in items]


def test_the_status_of_a_pod_has_its_containers(rig: Rig) -> None:
    request = messages.PodSandboxStatusRequest(pod_sandbox_id="p1")
    answer = done(PodCalls(rig.node).PodSandboxStatus(request, None))
    assert [item.id for item in answer.containers_statuses] == ["c1", "c2"]
    assert answer.timestamp > 0
    assert not answer.info


def test_what_is_gone_is_stopped_and_removed_already(rig: Rig) -> None:
    pods, containers = PodCalls(rig.node), ContainerCalls(rig.node)
    for ref in ("p9", ""):
        done(pods.StopPodSandbox(messages.StopPodSandboxRequest(pod_sandbox_id=ref), None))
        done(pods.RemovePodSandbox(messages.RemovePodSandboxRequest(pod_sandbox_id=ref), None))
    # one without a pod is none of the CRI's
    for ref in ("c9", "", "d1"):
        done(containers.StopContainer(messages.StopContainerRequest(container_id=ref), None))
        done(containers.RemoveContainer(messages.RemoveContainerRequest(container_id=ref), None))
    assert rig.containers.stopped == rig.pods.stopped == []


def test_calls_that_need_something(rig: Rig) -> None:
    pods, containers = PodCalls(rig.node), ContainerCalls(rig.node)
    with pytest.raises(errors.InvalidArgument, match="a pod needs a config"):
        done(pods.RunPodSandbox(messages.RunPodSandboxRequest(), None))
    with pytest.raises(errors.InvalidArgument, match="a container needs a config"):
        done(containers.CreateContainer(messages.CreateContainerRequest(pod_sandbox_id="p1"), None))
    with pytest.raises(errors.FailedPrecondition, match="p2 is not ready"):
        done(containers.CreateContainer(messages.CreateContainerRequest(pod_sandbox_id="p2"), None))
    with pytest.raises(errors.FailedPrecondition, match="cannot be started, it is running"):
        done(containers.StartContainer(messages.StartContainerRequest(container_id="c1"), None))
    reopen = messages.ReopenContainerLogRequest(container_id="c1")
    with pytest.raises(errors.FailedPrecondition, match="has no log_path"):
        done(containers.ReopenContainerLog(reopen, None))
    for name, kind in (("PodSandboxStatus", pods), ("ContainerStatus", containers)):
        with pytest.raises(errors.NotFound):
            done(getattr(kind, name)(getattr(messages, f"{name}Request")(), None))
    for name in ("CheckpointPod", "RestorePod"):
        with pytest.raises(errors.Unimplemented, match=name):
            done(getattr(containers, name)(None, None))


# streams


def test_the_streaming_server_is_opened_once(rig: Rig) -> None:
    calls = StreamCalls(rig.node, rig.open)

    async def work() -> list[str]:
        execs = messages.ExecRequest(container_id="c1", cmd=["a"], stdout=True)
        attach = messages.AttachRequest(container_id="c1", stdin=True)
        forward = messages.PortForwardRequest(pod_sandbox_id="p1")
        answers = await asyncio.gather(
            calls.Exec(execs, None), calls.Attach(attach, None), calls.PortForward(forward, None)
        )
        return [answer.url for answer in answers]

    urls = done(work())
    assert urls == ["http://here/exec", "http://here/attach", "http://here/portforward"]
    assert rig.opened == 1


BAD_STREAMS: list[tuple[str, dict[str, Any], type[errors.EngineError], str]] = [
    ("Exec", {}, errors.InvalidArgument, "missing required container id"),
    ("Attach", {}, errors.InvalidArgument, "missing required container id"),
    ("Exec", {"container_id": "c1", "cmd": ["a"]}, errors.InvalidArgument, "one of stdin"),
    ("Attach", {"container_id": "c1", "tty": True}, errors.InvalidArgument, "one of stdin"),
    (
        "Exec",
        {"container_id": "c1", "tty": True, "stderr": True},
        errors.InvalidArgument,
        "tty and stderr",
    ),
    ("Exec", {"container_id": "c1", "stdout": True}, errors.InvalidArgument, "a command"),
    ("Exec", {"container_id": "c9", "stdout": True, "cmd": ["a"]}, errors.NotFound, "c9"),
    ("Attach", {"container_id": "c3", "stdin": True}, errors.FailedPrecondition, "not run"),
    ("PortForward", {"pod_sandbox_id": "p2"}, errors.FailedPrecondition, "p2 is not ready"),
    ("PortForward", {}, errors.NotFound, "No such"),
]


@pytest.mark.parametrize(("name", "fields", "kind", "text"), BAD_STREAMS)
def test_streams_that_cannot_be(
    rig: Rig, name: str, fields: dict[str, Any], kind: type[errors.EngineError], text: str
) -> None:
    rig.refused = ["c3"]
    calls = StreamCalls(rig.node, rig.open)
    with pytest.raises(kind, match=text):
        done(getattr(calls, name)(getattr(messages, f"{name}Request")(**fields), None))
    assert rig.opened == 0


def test_the_output_of_a_command_fits_into_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_MOST_OUTPUT", 10)
    kept = streams._Collector()

    async def work() -> None:
        await kept.out(b"1234")
        await kept.err(b"56")
        await kept.out(b"789012")
        await kept.err(b"x")
        await kept.out(b"y")

    done(work())
    assert (bytes(kept.stdout), bytes(kept.stderr)) == (b"12347890", b"56")


def test_a_command_is_killed_with_its_children() -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    command = [sys.executable, "-c", f"print(flush=True); {script}"]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as root,
        subprocess.Popen(["sleep", "1000"], start_new_session=True) as other,
    ):
        assert root.stdout is not None
        root.stdout.readline()
        children: list[int] = []
        while not children:
            listed = [int(name) for name in os.listdir("/proc") if name.isdigit()]
            children = [pid for pid in listed if parent(pid) == root.pid]
        streams._kill_tree(root.pid, [root.pid, other.pid, *children, 2**22 + 1])
        # the end of its output is the end of all who hold it
        assert root.stdout.read() == b""
        assert root.wait() == -9
        assert other.poll() is None
        other.kill()


def parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


# events


def test_who_listens_hears_what_is_of_pods(rig: Rig) -> None:
    calls = EventCalls(rig.node)
    heard: list[tuple[str, int]] = []

    async def work() -> None:
        events = listened(calls)
        listening = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        rig.events.container("create", "c1", {})
        first = await listening
        assert first.pod_sandbox_status.id == "p1"
        assert [item.id for item in first.containers_statuses] == ["c1", "c2"]
        heard.append((first.container_id, first.container_event_type))
        # none of the CRI's, and no event of it
        rig.events.container("start", "d1", {})
        rig.events.container("pause", "c1", {})
        rig.events.image("pull", "busybox")
        rig.events.container("die", "c2", {})
        rig.containers.items = [item for item in rig.containers.items if item.id != "c2"]
        rig.events.container("remove", "c2", {})
        rig.events.pod("stop", "p1", {})
        rig.pods.items = [item for item in rig.pods.items if item.id != "p1"]
        rig.events.pod("remove", "p1", {})
        for _ in range(4):
            found = await anext(events)
            heard.append((found.container_id, found.container_event_type))
        assert not found.HasField("pod_sandbox_status")
        await events.aclose()

    done(work())
    assert heard == [
        ("c1", TYPES["CONTAINER_CREATED_EVENT"]),
        ("c2", TYPES["CONTAINER_STOPPED_EVENT"]),
        ("c2", TYPES["CONTAINER_DELETED_EVENT"]),
        ("p1", TYPES["CONTAINER_STOPPED_EVENT"]),
        ("p1", TYPES["CONTAINER_DELETED_EVENT"]),
    ]
    assert calls._queues == set()


def test_who_does_not_read_is_told_to_list(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isula_cri.events._QUEUE", 3)
    calls = EventCalls(rig.node)

    async def work() -> int:
        events = listened(calls)
        listening = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        for _ in range(9):
            rig.events.container("start", "c1", {})
        assert calls._queues == set()
        await listening
        rest: list[Any] = []
        with pytest.raises(errors.Aborted, match="list, then listen again"):
            await into(rest, events)
        return len(rest)

    # no more than the queue held
    assert 0 < done(work()) < 3


def listened(calls: EventCalls) -> AsyncGenerator[Any, None]:
    return cast("AsyncGenerator[Any, None]", calls.GetContainerEvents(None, None))


async def into(found: list[Any], items: Any) -> None:
    async for item in items:
        found.append(item)


def test_two_listeners_hear_the_same(rig: Rig) -> None:
    calls = EventCalls(rig.node)

    async def work() -> None:
        both = [listened(calls) for _ in range(2)]
        firsts = [asyncio.ensure_future(anext(events)) for events in both]
        await asyncio.sleep(0)
        rig.events.container("start", "c1", {})
        first, second = await asyncio.gather(*firsts)
        assert first == second
        for events in both:
            await events.aclose()

    done(work())


def test_the_end_of_the_server_is_the_end_of_events(rig: Rig) -> None:
    calls = EventCalls(rig.node)

    async def work() -> None:
        events = listened(calls)
        listening = asyncio.ensure_future(anext(events, None))
        await asyncio.sleep(0)
        calls.close()
        rig.events.container("start", "c1", {})
        assert await listening is None

    done(work())


# about the engine


def test_who_answers(rig: Rig) -> None:
    answer = done(InfoCalls(rig.node).Version(messages.VersionRequest(), None))
    assert (answer.version, answer.runtime_name) == ("0.1.0", "isula-edge")
    assert answer.runtime_version


def test_whether_pods_can_be_made(rig: Rig) -> None:
    calls = InfoCalls(rig.node)
    answer = done(calls.Status(messages.StatusRequest(), None))
    assert [(item.type, item.status) for item in answer.status.conditions] == [
        *(("RuntimeReady", True), ("NetworkReady", True), ("KernelComplete", True))
    ]
    assert [item.name for item in answer.runtime_handlers] == ["", "lxc", "runc", "fast"]
    rig.pods.reason = "no configuration"
    rig.lacking = [SimpleNamespace(name="memory"), SimpleNamespace(name="pids")]
    answer = done(calls.Status(messages.StatusRequest(), None))
    runtime, network, kernel = answer.status.conditions
    assert runtime.status
    assert (network.status, network.reason) == (False, "NetworkPluginNotReady")
    assert network.message.endswith("no configuration")
    assert (kernel.status, kernel.message) == (False, "memory, pids")


def test_the_cgroup_driver_is_told(rig: Rig) -> None:
    drivers = messages.enum("CgroupDriver")
    for systemd, name in ((False, "CGROUPFS"), (True, "SYSTEMD")):
        rig.node.engine.config.systemd_cgroup = systemd  # type: ignore[misc]
        answer = done(InfoCalls(rig.node).RuntimeConfig(None, None))
        assert answer.linux.cgroup_driver == drivers[name]


def test_addresses_of_pods_are_taken_over(rig: Rig) -> None:
    calls = InfoCalls(rig.node)
    done(calls.UpdateRuntimeConfig(messages.UpdateRuntimeConfigRequest(), None))
    assert rig.pods.cidrs == []
    config = {"network_config": {"pod_cidr": "10.1.0.0/24"}}
    request = messages.UpdateRuntimeConfigRequest(runtime_config=config)
    done(calls.UpdateRuntimeConfig(request, None))
    assert rig.pods.cidrs == ["10.1.0.0/24"]
