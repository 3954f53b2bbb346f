"""Pods and containers as messages of the CRI."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

pytest.importorskip("google.protobuf")

from isula_cri import messages, status
from isula_edge.container.record import Container, State, Status
from isula_edge.oci.options import Settings
from isula_edge.pod.record import Pod, PodSpec
from isula_edge.sys.process import Identity
from isula_edge.types import ContainerId, ImageId

if TYPE_CHECKING:
    from isula_edge.service.engine import Engine

MODES = {"network": "pod", "ipc": "node", "pid": "container"}
STATES = messages.enum("ContainerState")


def pod(**spec: Any) -> Pod:
    fields = {"labels": {"a": "b"}, "annotations": {"c": "d"}, "handler": "fast", "modes": MODES}
    return Pod("p1", 5, "boot", PodSpec("web", "u1", "shop", 3, **{**fields, **spec}), ready=True)


def container(state: State | None = None, **settings: Any) -> Container:
    return Container(
        ContainerId("c1"),
        "k8s_main",
        7,
        "busybox:1",
        ImageId("1" * 64),
        {},
        [],
        "lxc",
        ["true"],
        Settings(labels={"a": "b"}, **settings),
        state or State(),
        "p1",
        {
            "name": "main",
            "attempt": 2,
            "image": messages.ImageSpec(image="busybox").SerializeToString(),
            "annotations": {"c": "d"},
            "mounts": [messages.Mount(container_path="/m", host_path="/h").SerializeToString()],
        },
    )


def engine(user: dict[str, Any] | None = None) -> Engine:
    spec = {"process": {"user": user}} if user is not None else {}
    fake = SimpleNamespace(
        bundles=SimpleNamespace(load=lambda _: SimpleNamespace(spec=spec)),
        table=SimpleNamespace(dir=lambda _: "/graph/engines/lxc/c1"),
        layers=SimpleNamespace(driver=SimpleNamespace(name="overlay2")),
        pods=SimpleNamespace(folder=lambda _: "/state/pods/p1", hostname=lambda _: "box"),
    )
    return cast("Engine", fake)


def described(state: State, **settings: Any) -> Any:
    return status.container_message(engine(), container(state, **settings))


def test_a_pod_in_a_list() -> None:
    found = status.pod_item(pod())
    assert found == messages.PodSandbox(
        id="p1",
        metadata={"name": "web", "uid": "u1", "namespace": "shop", "attempt": 3},
        created_at=5,
        labels={"a": "b"},
        annotations={"c": "d"},
        runtime_handler="fast",
    )


def test_whether_a_pod_is_ready() -> None:
    states = messages.enum("PodSandboxState")
    found = pod()
    assert status.is_ready(found) == states["SANDBOX_READY"]
    found.ready = False
    assert status.is_ready(found) == states["SANDBOX_NOTREADY"]
    assert status.pod_message(found).state == states["SANDBOX_NOTREADY"]


def test_namespaces_of_a_pod() -> None:
    modes = messages.enum("NamespaceMode")
    options = status.pod_message(pod()).linux.namespaces.options
    assert (options.network, options.ipc, options.pid) == (
        *(modes["POD"], modes["NODE"], modes["CONTAINER"]),
    )
    assert not options.HasField("userns_options")
    mapped = pod(uid_maps=((0, 5, 9),), gid_maps=((0, 6, 9),))
    users = status.pod_message(mapped).linux.namespaces.options.userns_options
    assert users.mode == modes["POD"]
    assert [(item.container_id, item.host_id, item.length) for item in users.uids] == [(0, 5, 9)]
    assert [item.host_id for item in users.gids] == [6]


@pytest.mark.parametrize(
    ("ips", "first", "others"),
    [([], "", []), (["1.1.1.1"], "1.1.1.1", []), (["1.1.1.1", "::1"], "1.1.1.1", ["::1"])],
)
def test_addresses_of_a_pod(ips: list[str], first: str, others: list[str]) -> None:
    found = pod()
    found.ips = ips
    message = status.pod_message(found)
    # kubelets read through it
    assert message.HasField("network")
    assert message.network.ip == first
    assert [item.ip for item in message.network.additional_ips] == others


@pytest.mark.parametrize(
    ("state", "word"),
    [
        (Status.CREATED, "CREATED"),
        (Status.STARTING, "CREATED"),
        (Status.RUNNING, "RUNNING"),
        (Status.PAUSED, "RUNNING"),
        (Status.EXITED, "EXITED"),
    ],
)
def test_states(state: Status, word: str) -> None:
    found = container(State(state))
    assert status.container_state(found) == STATES[f"CONTAINER_{word}"]
    assert status.container_item(found).state == STATES[f"CONTAINER_{word}"]


def test_every_state_is_one() -> None:
    for state in Status:
        assert status.container_state(container(State(state))) in STATES.values()


def test_a_container_in_a_list() -> None:
    found = status.container_item(container())
    assert found.metadata == messages.ContainerMetadata(name="main", attempt=2)
    assert (found.id, found.pod_sandbox_id, found.created_at) == ("c1", "p1", 7)
    assert found.image.image == found.image.user_specified_image == "busybox"
    assert found.image_ref == found.image_id == "sha256:" + "1" * 64
    assert dict(found.labels) == {"a": "b"}
    assert dict(found.annotations) == {"c": "d"}


ENDS: list[tuple[State, tuple[str, str, int, int, int]]] = [
    (State(Status.CREATED), ("", "", 0, 0, 0)),
    (State(Status.RUNNING, started_ns=9), ("", "", 0, 9, 0)),
    # what it was before its restart says nothing now
    (State(Status.RUNNING, exit_code=5, started_ns=9, finished_ns=8), ("", "", 0, 9, 0)),
    (State(Status.EXITED, started_ns=9, finished_ns=11), ("Completed", "", 0, 9, 11)),
    (
        State(Status.EXITED, exit_code=3, started_ns=9, finished_ns=11, error="why"),
        ("Error", "why", 3, 9, 11),
    ),
    (
        State(Status.EXITED, exit_code=137, started_ns=9, finished_ns=11, oom_killed=True),
        ("OOMKilled", "", 137, 9, 11),
    ),
    # never started: kubelets want times nevertheless
    (
        State(Status.EXITED, exit_code=127, finished_ns=11, error="no such file"),
        ("ContainerCannotRun", "no such file", 127, 7, 11),
    ),
]


@pytest.mark.parametrize(("state", "expected"), ENDS)
def test_how_it_ended(state: State, expected: tuple[str, str, int, int, int]) -> None:
    found = described(state)
    assert expected == (
        found.reason,
        found.message,
        found.exit_code,
        found.started_at,
        found.finished_at,
    )


def test_what_else_a_status_says() -> None:
    found = described(State(), log_path="/l/0.log", cpu_shares=2)
    assert found.log_path == "/l/0.log"
    assert found.resources.linux.cpu_shares == 2
    assert [item.container_path for item in found.mounts] == ["/m"]
    assert not found.HasField("user")


@pytest.mark.parametrize(
    ("own", "images", "signal"),
    [
        ("", None, "SIGTERM"),
        ("SIGUSR1", "SIGINT", "SIGUSR1"),
        ("", "SIGINT", "SIGINT"),
        ("", "int", "SIGINT"),
        ("SIGRTMIN+3", None, "SIGRTMINPLUS3"),
        ("RTMAX-1", None, "SIGRTMAXMINUS1"),
        ("", "9", "SIGKILL"),
        ("", 15, "SIGTERM"),
    ],
)
def test_stop_signals(own: str, images: object, signal: str) -> None:
    found = container(stop_signal=own)
    found.image_config = {"StopSignal": images}
    number = status.container_message(engine(), found).stop_signal
    assert number == messages.enum("Signal")[f"SIGNAL_{signal}"]


def test_a_stop_signal_that_is_none() -> None:
    found = container()
    for word in ("SIGFOO", "999", [1], "\ud800"):
        found.image_config = {"StopSignal": word}
        assert status.container_message(engine(), found).stop_signal == 0


def test_users_are_known_once_it_was_started() -> None:
    described = engine({"uid": 5, "gid": 6, "additionalGids": [9, 8]})
    found = container()
    assert not status.container_message(described, found).HasField("user")
    found.state.started_ns = 3
    user = status.container_message(described, found).user.linux
    assert (user.uid, user.gid, list(user.supplemental_groups)) == (5, 6, [8, 9])
    # and need not be read again
    assert status.container_message(engine(), found).user.linux == user


def test_a_bundle_without_a_user_is_no_fault() -> None:
    found = container(State(Status.RUNNING, started_ns=3))
    assert not status.container_message(engine(), found).HasField("user")


def test_details_of_a_pod() -> None:
    found = pod(cgroup_parent="/kubepods", runtime="runc", sysctls={"net.a": "1"})
    found.pause = Identity(77, 1, "boot")
    found.namespaces = {"network": "/n", "ipc": None}
    details = json.loads(status.verbose_pod(engine(), found)["info"])
    assert (details["pid"], details["runtimeType"], details["cgroupParent"]) == (
        *(77, "runc", "/kubepods"),
    )
    assert details["namespaces"] == {"network": "/n", "ipc": None}
    assert details["netNamespaceClosed"]
    spec = details["runtimeSpec"]
    assert spec["hostname"] == "box"
    assert spec["linux"]["namespaces"] == [{"type": "network", "path": "/n"}]
    found.network, found.pause = True, None
    details = json.loads(status.verbose_pod(engine(), found)["info"])
    assert not details["netNamespaceClosed"]
    assert details["pid"] == 0


def test_details_of_a_container() -> None:
    found = container(State(Status.RUNNING, pid=42))
    details = json.loads(status.verbose_container(engine({"uid": 1}), found)["info"])
    assert details["pid"] == 42
    assert details["sandboxID"] == "p1"
    assert details["runtimeSpec"] == {"process": {"user": {"uid": 1}}}


def test_details_are_text_whatever_a_name_is() -> None:
    found = pod(sysctls={"a\udcff": "1"})
    text = status.verbose_pod(engine(), found)["info"]
    messages.PodSandboxStatusResponse(info={"info": text}).SerializeToString()
