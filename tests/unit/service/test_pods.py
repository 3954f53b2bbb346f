"""Pods over fakes of the kernel and the network: what is left after each kind of failure."""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from isula_edge import errors
from isula_edge.network import Dns
from isula_edge.pod import namespaces
from isula_edge.pod.record import Pod, PodSpec
from isula_edge.service import pods as service
from isula_edge.service.config import CriConfig, EngineConfig
from isula_edge.service.events import Events
from isula_edge.service.pods import Pods
from isula_edge.sys import syscalls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from isula_edge.service.engine import Engine


class Network:
    """Gives one address; remembers who has it."""

    def __init__(self) -> None:
        self.attached: list[str] = []
        self.failure: BaseException | None = None
        self.detach_failure: BaseException | None = None
        self.collected: list[set[str]] = []

    async def attach(self, wanted: Any) -> Any:
        self.attached.append(wanted.id)
        if self.failure is not None:
            raise self.failure
        return SimpleNamespace(ips=["10.0.0.5", "fd00::5"])

    async def detach(self, wanted: Any) -> None:
        if self.detach_failure is not None:
            raise self.detach_failure
        if wanted.id in self.attached:
            self.attached.remove(wanted.id)

    async def collect(self, held: set[str]) -> list[Any]:
        self.collected.append(held)
        return []


class Rig:
    """Pods of an engine below one folder; :meth:`restart` forgets what was in memory."""

    def __init__(self, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.top = top
        self.kernel: BaseException | None = None
        self.requests: list[namespaces.Request] = []
        self.mounted: list[str] = []
        self.stopped: list[str] = []
        self.containers: list[Any] = []
        self.alive = True
        self.network = Network()
        monkeypatch.setattr(namespaces, "make", self.make)
        monkeypatch.setattr(namespaces, "pinned", lambda _: self.alive)
        monkeypatch.setattr(namespaces, "network_path", lambda pod: f"{top}/netns-{pod}")
        monkeypatch.setattr(syscalls, "mount", lambda _, path, *__: self.mounted.append(path))
        monkeypatch.setattr(syscalls, "umount", self.umount)
        (top / "state").mkdir()
        (top / "graph").mkdir()
        self.restart()

    def umount(self, path: str, _flags: int = 0) -> None:
        if path not in self.mounted:
            raise OSError(22, "Invalid argument", path)
        self.mounted.remove(path)

    def make(self, request: namespaces.Request) -> namespaces.Made:
        self.requests.append(request)
        if self.kernel is not None:
            raise self.kernel
        found = {kind: f"{self.top}/{kind}-{request.pod}" for kind in request.kinds}
        for path in found.values():
            with open(path, "w", encoding="ascii"):
                self.mounted.append(path)
        return namespaces.Made(found)

    def restart(self) -> None:
        self.events = Events()
        self.heard: list[tuple[str, str]] = []
        self.events.listen(lambda event: self.heard.append((event.kind, event.action)))
        self.background: list[Any] = []
        config = EngineConfig(
            graph=f"{self.top}/graph", state=f"{self.top}/state", cri=CriConfig()
        )
        fake = SimpleNamespace(
            config=config,
            runtimes={},
            reaper=None,
            watcher=None,
            reserve=None,
            cgroups=SimpleNamespace(mounts={}, version="2", group=str),
            events=self.events,
            table=self.containers,
            containers=SimpleNamespace(stop=self.stop, remove=self.remove),
            background=self.background.append,
        )
        self.pods = Pods(cast("Engine", fake))
        self.pods.network = cast("Any", self.network)

    async def stop(self, container: Any, *_how: Any, **_more: Any) -> None:
        self.stopped.append(container.id)
        if getattr(container, "failure", None):
            raise container.failure

    async def remove(self, container: Any, **_how: Any) -> None:
        self.containers.remove(container)

    def run(self, work: Callable[[], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            found = await work()
            for task in self.background:
                await task
            self.background.clear()
            return found

        return asyncio.run(main())

    def made(self, name: str = "web", **fields: Any) -> Pod:
        return cast("Pod", self.run(lambda: self.pods.run(spec(name, **fields))))

    def clean(self) -> None:
        """Nothing of any pod is there."""
        assert list(self.pods) == []
        assert self.mounted == []
        assert self.network.attached == []
        assert os.listdir(self.top / "graph/pods") == []
        assert os.listdir(self.top / "state/pods") == []
        assert [name for name in os.listdir(self.top) if "-" in name] == []


def spec(name: str = "web", **fields: Any) -> PodSpec:
    modes = {"network": "pod", "ipc": "pod", "pid": "container", **fields.pop("modes", {})}
    return PodSpec(name, "u", "n", modes=modes, **fields)


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(tmp_path, monkeypatch)


def test_the_life_of_a_pod(rig: Rig) -> None:
    pod = rig.made(hostname="box")
    assert (pod.ready, pod.network, pod.ips) == (True, True, ["10.0.0.5", "fd00::5"])
    assert set(rig.requests[0].kinds) == {"network", "uts", "ipc"}
    assert rig.requests[0].hostname == "box"
    folder = rig.pods.folder(pod)
    assert f"{folder}/shm" in rig.mounted
    with open(f"{folder}/hosts", encoding="ascii") as file:
        assert file.read().endswith("10.0.0.5\tbox\nfd00::5\tbox\n")
    assert rig.pods.get(pod.id) is rig.pods.get(pod.id[:8]) is rig.pods.get(pod.spec.key) is pod
    rig.run(lambda: rig.pods.stop(pod))
    assert (pod.ready, pod.network, pod.ips) == (False, False, [])
    assert pod.exited_ns > 0
    rig.run(lambda: rig.pods.stop(pod))
    rig.run(lambda: rig.pods.remove(pod))
    rig.run(lambda: rig.pods.remove(pod))
    assert rig.heard == [("pod", word) for word in ("create", "start", "stop", "remove")]
    rig.clean()


def test_namespaces_of_the_host(rig: Rig) -> None:
    pod = rig.made(modes={"network": "node", "ipc": "node", "pid": "node"})
    assert rig.requests[0].kinds == ()
    assert not rig.requests[0].share_pid
    assert pod.namespaces == dict.fromkeys(("network", "uts", "ipc", "user", "pid"))
    assert rig.network.attached == []
    assert rig.pods.shm(pod) == "/dev/shm"
    assert rig.pods.hostname(pod) == os.uname().nodename
    rig.run(lambda: rig.pods.remove(pod))
    rig.clean()


def test_only_a_shared_pid_namespace_has_a_process(rig: Rig) -> None:
    rig.made(modes={"pid": "pod"})
    assert rig.requests[0].share_pid


def test_a_name_is_one_pods(rig: Rig) -> None:
    pod = rig.made()
    with pytest.raises(errors.AlreadyExists, match=pod.id):
        rig.made()
    other = rig.made(attempt=1)
    with pytest.raises(errors.NotFound):
        rig.pods.get("")
    assert len(rig.pods) == 2
    assert rig.pods.find("x") is None
    # the beginning of both
    rig.pods._by_id = {"aa1": pod, "aa2": other}
    with pytest.raises(errors.InvalidArgument, match="aa is ambiguous"):
        rig.pods.get("aa")


def test_what_the_kernel_refuses_leaves_nothing(rig: Rig) -> None:
    rig.kernel = errors.InvalidArgument("sysctl net.x")
    with pytest.raises(errors.InvalidArgument, match=r"sysctl net\.x"):
        rig.made()
    rig.clean()
    rig.kernel = None
    assert rig.made().ready


def test_what_the_network_refuses_leaves_nothing(rig: Rig) -> None:
    rig.network.failure = errors.Unavailable("no addresses")
    with pytest.raises(errors.Unavailable, match="no addresses"):
        rig.made()
    rig.clean()
    assert rig.heard == []


def test_who_is_asked_last_can_refuse(rig: Rig) -> None:
    seen: list[Pod] = []

    async def admit(pod: Pod) -> None:
        assert pod.ready
        assert list(rig.pods) == []
        seen.append(pod)
        raise errors.PermissionDenied("not here")

    with pytest.raises(errors.PermissionDenied, match="not here"):
        rig.run(lambda: rig.pods.run(spec(), admit))
    assert len(seen) == 1
    rig.clean()


def test_a_network_that_stays_is_collected_with_the_next_pod(rig: Rig) -> None:
    rig.network.failure = errors.Unavailable("broken")
    rig.network.detach_failure = errors.Unavailable("still broken")
    with pytest.raises(errors.Unavailable, match=r"^broken$"):
        rig.made()
    assert os.listdir(rig.top / "graph/pods") == []
    rig.network.failure = rig.network.detach_failure = None
    pod = rig.made()
    assert rig.network.collected == [{pod.id}]


def test_a_stop_that_failed_is_finished_by_the_next(rig: Rig) -> None:
    pod = rig.made()
    rig.network.detach_failure = errors.Unavailable("broken")
    with pytest.raises(errors.Unavailable, match="broken"):
        rig.run(lambda: rig.pods.stop(pod))
    assert not pod.ready
    assert rig.network.attached == [pod.id]
    rig.network.detach_failure = None
    rig.run(lambda: rig.pods.remove(pod))
    rig.clean()
    assert rig.heard.count(("pod", "stop")) == 1


def test_every_container_is_stopped_even_when_one_cannot_be(rig: Rig) -> None:
    pod = rig.made()
    rig.containers += [
        SimpleNamespace(id="c1", pod=pod.id, failure=errors.Internal("stuck")),
        SimpleNamespace(id="c2", pod=pod.id),
        SimpleNamespace(id="c3", pod="other"),
    ]
    with pytest.raises(errors.Internal, match="stuck"):
        rig.run(lambda: rig.pods.stop(pod))
    assert rig.stopped == ["c1", "c2"]
    rig.containers[0].failure = None
    rig.run(lambda: rig.pods.remove(pod))
    assert [item.id for item in rig.containers] == ["c3"]
    rig.clean()


def test_a_restart_finds_pods_as_they_were(rig: Rig) -> None:
    pod = rig.made(labels={"a": "b"})
    rig.restart()
    rig.run(rig.pods.adopt)
    (found,) = rig.pods
    assert found.to_state() == pod.to_state()
    assert found.spec == pod.spec
    assert rig.network.collected == [{pod.id}]
    with pytest.raises(errors.AlreadyExists):
        rig.made(labels={"a": "b"})


def test_a_pod_whose_namespaces_are_gone_is_over(rig: Rig) -> None:
    pod = rig.made()
    rig.alive = False
    rig.restart()
    rig.run(rig.pods.adopt)
    found = rig.pods.get(pod.id)
    assert not found.ready
    assert found.exited_ns > 0
    rig.run(lambda: rig.pods.remove(found))
    rig.clean()


@pytest.mark.parametrize("state", [None, b"", b"rubbish"])
def test_a_pod_that_nobody_was_told_of_is_undone(rig: Rig, state: bytes | None) -> None:
    pod = rig.made()
    path = rig.top / "state/pods" / pod.id / "state.cbor"
    if state is None:
        path.unlink()
    else:
        path.write_bytes(state)
    rig.mounted = []
    rig.restart()
    rig.run(rig.pods.adopt)
    assert list(rig.pods) == []
    assert os.listdir(rig.top / "graph/pods") == []
    assert os.listdir(rig.top / "state/pods") == []
    assert rig.network.attached == []
    assert rig.made().ready


def test_after_a_reboot_pods_are_over_and_can_be_removed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = rig.made()
    for name in os.listdir(rig.top / "state/pods" / pod.id):
        path = rig.top / "state/pods" / pod.id / name
        path.rmdir() if path.is_dir() else path.unlink()
    (rig.top / "state/pods" / pod.id).rmdir()
    rig.mounted = []
    monkeypatch.setattr(service, "boot_id", lambda: "another")
    rig.restart()
    rig.run(rig.pods.adopt)
    found = rig.pods.get(pod.id)
    assert (found.ready, found.exited_ns) == (False, found.created_ns)
    rig.run(lambda: rig.pods.remove(found))
    assert list(rig.pods) == []
    assert os.listdir(rig.top / "graph/pods") == []


def test_a_damaged_record_is_put_aside_and_the_rest_is_there(rig: Rig) -> None:
    pod, other = rig.made("a"), rig.made("b")
    (rig.top / "graph/pods" / f"{pod.id}.cbor").write_bytes(b"rubbish")
    rig.restart()
    rig.run(rig.pods.adopt)
    assert [item.id for item in rig.pods] == [other.id]
    assert any(pod.id in name for name in os.listdir(rig.top / "graph/quarantine"))


def test_what_is_on_tmpfs_of_nobody_is_removed(rig: Rig) -> None:
    (rig.top / "state/pods/lost/shm").mkdir(parents=True)
    pod = rig.made()
    rig.restart()
    rig.run(rig.pods.adopt)
    assert os.listdir(rig.top / "state/pods") == [pod.id]


def test_limits_of_a_pod_are_kept(rig: Rig) -> None:
    pod = rig.made(resources={"cpu_shares": 1}, overhead={"cpu_shares": 5})
    rig.run(lambda: rig.pods.update(pod, None, {"cpu_shares": 2}))
    rig.restart()
    rig.run(rig.pods.adopt)
    found = rig.pods.get(pod.id).spec
    assert (found.resources, found.overhead) == ({"cpu_shares": 2}, {"cpu_shares": 5})


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "needs name, namespace and uid"),
    ({"hostname": "a b"}, "'a b'"),
    ({"hostname": "a\nb"}, "hosts or resolv.conf"),
    ({"hostname": "a" * 65}, "longer than 64 bytes"),
    ({"dns": Dns(servers=("1.1.1.1\nsearch x",))}, "hosts or resolv.conf"),
    ({"dns": Dns(searches=("a b",))}, "'a b'"),
    ({"dns": Dns(options=("a\n",))}, "hosts or resolv.conf"),
    ({"sysctls": {"kernel.panic": "1"}}, "sysctl kernel.panic belongs to no namespace"),
    ({"sysctls": {"vm.swappiness": "1"}}, "sysctl vm.swappiness"),
    (
        {"sysctls": {"net.ipv4.ip_forward": "1"}, "modes": {"network": "node"}},
        "net.ipv4.ip_forward cannot be set in the host's network namespace",
    ),
    (
        {"sysctls": {"kernel.shmmax": "1"}, "modes": {"ipc": "node"}},
        "kernel.shmmax cannot be set in the host's ipc namespace",
    ),
    ({"uid_maps": ((0, 1, 1), (1, 5, 1))}, "one mapping of ids"),
]


@pytest.mark.parametrize(("fields", "text"), WRONG, ids=[text for _, text in WRONG])
def test_what_cannot_be_is_refused_before_anything_is_made(
    rig: Rig, fields: dict[str, Any], text: str
) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        rig.made(**fields)
    assert text in str(caught.value)
    assert rig.requests == []
    rig.clean()


@pytest.mark.parametrize("key", ["net.core.somaxconn", "kernel.sem", "fs.mqueue.msg_max"])
def test_sysctls_of_namespaces_are_passed_on(rig: Rig, key: str) -> None:
    rig.made(sysctls={key: "5"})
    assert rig.requests[0].sysctls == {key: "5"}
