"""Containers: their life, their status, commands in them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cri.client import refused
from tests.cri.node import CREATED, EXITED, RUNNING
from tests.rig import until

if TYPE_CHECKING:
    from tests.cri.node import Node, Pod

pytestmark = [pytest.mark.root, pytest.mark.lxc]


@pytest.fixture
def pod(node: Node) -> Pod:
    return node.pod()


def test_create(pod: Pod) -> None:
    """Spec: runtime should support creating container."""
    container = pod.create("sleep", "1000")
    status = container.status()
    assert (status.id, status.state) == (container.id, CREATED)
    assert status.created_at > 0
    assert (status.started_at, status.finished_at, status.exit_code) == (0, 0, 0)
    assert status.image.image == pod.node.image
    assert status.log_path == str(container.log)
    (listed,) = container.listed()
    assert (listed.state, listed.pod_sandbox_id) == (CREATED, pod.id)
    assert listed.created_at == status.created_at


def test_start(pod: Pod) -> None:
    """Spec: runtime should support starting container."""
    container = pod.run()
    status = container.status()
    assert status.state == RUNNING
    assert status.started_at >= status.created_at
    assert status.finished_at == 0
    assert [item.state for item in container.listed()] == [RUNNING]


def test_stop(pod: Pod) -> None:
    """Spec: runtime should support stopping container."""
    container = pod.run()
    container.stop()
    status = container.status()
    assert (status.state, status.exit_code) == (EXITED, 137)
    assert status.finished_at >= status.started_at > 0


def test_stop_asks_first(pod: Pod) -> None:
    container = pod.run("sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    until(container.log_lines, "the trap set")
    container.stop(timeout=60)
    assert container.status().exit_code == 7


def test_remove_created(pod: Pod) -> None:
    """Spec: runtime should support removing created container."""
    container = pod.create()
    container.remove()
    assert container.listed() == []


def test_remove_running(pod: Pod) -> None:
    """Spec: runtime should support removing running container."""
    container = pod.run()
    container.remove()
    assert container.listed() == []


def test_remove_stopped(pod: Pod) -> None:
    """Spec: runtime should support removing stopped container."""
    container = pod.run()
    container.stop()
    container.remove()
    assert container.listed() == []
    with refused("NOT_FOUND"):
        container.status()


def test_exec_sync(pod: Pod) -> None:
    """Spec: runtime should support execSync."""
    container = pod.run()
    done = container.exec("sh", "-c", "echo out; echo err >&2; exit 9")
    assert (done.code, done.out, done.err) == (9, "out\n", "err\n")


def test_exec_sync_with_a_time_out(pod: Pod) -> None:
    """Spec: runtime should support execSync with timeout."""
    container = pod.run()
    with refused("DEADLINE_EXCEEDED"):
        container.exec("sleep", "4321", timeout=1)
    until(
        lambda: "4321" not in container.output("ps", "-o", "args"),
        "the command of the exec being gone",
    )


def test_exec_sync_without_a_time_out(pod: Pod) -> None:
    container = pod.run()
    done = pod.node.call("ExecSync", container_id=container.id, cmd=["echo", "hello"])
    assert done.stdout == b"hello\n"


@pytest.mark.parametrize("child", ["sleep 1000", "yes"], ids=["silent", "writing"])
def test_exec_sync_does_not_wait_for_a_child(pod: Pod, child: str) -> None:
    """Case A26."""
    done = pod.run().exec("sh", "-c", f"echo begin; {child} & exit 3", timeout=0)
    assert done.code == 3
    assert done.out.startswith("begin\n")


def test_exec_sync_keeps_16_mib(pod: Pod) -> None:
    container = pod.run()
    script = "head -c 17825792 /dev/zero; exit 5"
    words = ["sh", "-c", script]
    done = pod.node.call("ExecSync", container_id=container.id, cmd=words, timeout=60)
    assert done.exit_code == 5
    # some engines leave room for the rest of the message
    assert (16 << 20) - 4096 <= len(done.stdout) <= 16 << 20


def test_exec_sync_where_it_cannot_be(pod: Pod) -> None:
    container = pod.create("sleep", "1000")
    with refused():
        container.exec("true")
    container.start()
    with refused():
        pod.node.call("ExecSync", container_id=container.id)
    with refused("NOT_FOUND"):
        pod.node.call("ExecSync", container_id="0" * 64, cmd=["true"])


def test_a_program_that_is_missing_in_an_exec(pod: Pod) -> None:
    with refused():
        pod.run().exec("/no/such/program")


def test_attributes_are_kept(pod: Pod) -> None:
    """Spec: runtime should support preserving container attributes."""
    labels, annotations = {"app": "tests"}, {"example.org/note": "some text"}
    metadata = {"name": "kept", "attempt": 3}
    container = pod.create("true", labels=labels, annotations=annotations, metadata=metadata)
    for found in (container.status(), *container.listed()):
        assert (found.metadata.name, found.metadata.attempt) == ("kept", 3)
        assert dict(found.labels) == labels
        assert dict(found.annotations) == annotations


def test_exit_code_and_reason(pod: Pod) -> None:
    status = pod.run("true").wait()
    assert (status.exit_code, status.reason) == (0, "Completed")
    status = pod.run("sh", "-c", "exit 42").wait()
    assert (status.exit_code, status.reason) == (42, "Error")
    status = pod.run("sh", "-c", "kill -TERM $$; sleep 100", security=_pod_pid()).wait()
    assert status.exit_code == 143


def _pod_pid() -> dict[str, object]:
    return {"namespace_options": {"pid": "POD"}}


def test_out_of_memory(pod: Pod) -> None:
    """Spec: should terminate with exitCode 137 and reason OOMKilled."""
    limit = 15 << 20
    container = pod.run(
        "dd", "if=/dev/zero", "of=/dev/null", "bs=20M",
        resources={"memory_limit_in_bytes": limit, "memory_swap_limit_in_bytes": limit},
    )  # fmt: skip
    status = container.wait()
    assert (status.exit_code, status.reason) == (137, "OOMKilled")


def test_a_start_that_fails(pod: Pod) -> None:
    container = pod.create("/no/such/program")
    with refused():
        container.start()
    status = container.status()
    assert status.state == EXITED
    assert status.exit_code != 0
    assert status.reason
    assert "/no/such/program" in status.message
    container.remove()


def test_a_container_starts_once(pod: Pod) -> None:
    container = pod.run("true")
    container.wait()
    with refused():
        container.start()


def test_create_where_it_cannot_be(node: Node, pod: Pod) -> None:
    config = node.container_config("true")
    with refused("NOT_FOUND"):
        node.call("CreateContainer", pod_sandbox_id="0" * 64, config=config)
    with refused():
        pod.create("true", image="127.0.0.1:1/no/such:image")
    with refused():
        pod.create("true", image="")
    pod.stop()
    with refused():
        pod.create("true")
    listed = node.call("ListContainers", filter={"pod_sandbox_id": pod.id}).containers
    assert list(listed) == []


def test_two_containers_cannot_have_one_name(pod: Pod) -> None:
    pod.create("true", name="same")
    with refused("ALREADY_EXISTS", "UNKNOWN"):
        pod.create("true", name="same")
    pod.create("true", metadata={"name": "same", "attempt": 1})


def test_image_reference(pod: Pod) -> None:
    container = pod.create("true")
    image = pod.node.image_status(pod.node.image)
    status = container.status()
    assert status.image_ref in (image.id, *image.repo_digests)


def test_image_id(pod: Pod) -> None:
    image = pod.node.image_status(pod.node.image)
    container = pod.create("true")
    assert container.status().image_id == image.id
    assert [item.image_id for item in container.listed()] == [image.id]


def test_a_container_of_an_image_id(pod: Pod) -> None:
    image = pod.node.image_status(pod.node.image)
    assert pod.output("echo yes", image=image.id) == ["yes"]


def test_filters_are_joined(pod: Pod) -> None:
    one = pod.run(labels={"role": "one"})
    two = pod.create("true", labels={"role": "two"})

    def ids(**values: object) -> set[str]:
        found = pod.node.call("ListContainers", filter={"pod_sandbox_id": pod.id, **values})
        return {item.id for item in found.containers}

    assert ids() == {one.id, two.id}
    assert ids(state={"state": "CONTAINER_RUNNING"}) == {one.id}
    assert ids(state={"state": "CONTAINER_CREATED"}) == {two.id}
    assert ids(label_selector={"role": "two"}) == {two.id}
    assert ids(id=one.id, label_selector={"role": "two"}) == set()
    assert ids(id="0" * 64) == set()
    assert {one.id, two.id} <= {
        item.id for item in pod.node.call("ListContainers").containers
    }


def test_command_args_environment_and_directory(pod: Pod) -> None:
    script = 'echo "$0 $1"; pwd; echo "$ONE"; echo "$EMPTY."'
    container = pod.run(
        "sh", "-c", script,
        args=["first", "second"],
        envs=[{"key": "ONE", "value": b"1 = \xc3\xbc"}, {"key": "EMPTY", "value": b""}],
        working_dir="/tmp",
    )  # fmt: skip
    container.wait()
    texts = [text for _, _, text in container.log_lines()]
    assert texts == ["first second", "/tmp", "1 = ü", "."]


def test_args_alone_replace_the_command_of_the_image(pod: Pod) -> None:
    container = pod.run(command=[], args=["echo", "given"])
    container.wait()
    assert container.log_lines() == [("stdout", "F", "given")]


def test_resources(pod: Pod) -> None:
    container = pod.run(
        resources={
            "cpu_shares": 512, "cpu_quota": 40000, "cpu_period": 80000,
            "memory_limit_in_bytes": 64 << 20,
        },
    )  # fmt: skip
    found = container.status().resources.linux
    assert (found.cpu_shares, found.cpu_quota, found.cpu_period) == (512, 40000, 80000)
    assert found.memory_limit_in_bytes == 64 << 20
    changed = {"cpu_quota": 20000, "memory_limit_in_bytes": 96 << 20}
    pod.node.call("UpdateContainerResources", container_id=container.id, linux=changed)
    found = container.status().resources.linux
    assert (found.cpu_shares, found.cpu_quota, found.cpu_period) == (512, 20000, 80000)
    assert found.memory_limit_in_bytes == 96 << 20
    path = "/sys/fs/cgroup/memory/memory.limit_in_bytes"
    said = container.exec("sh", "-c", f"cat {path} 2>/dev/null || cat /sys/fs/cgroup/memory.max")
    assert said.out.strip() == str(96 << 20)
    with refused("NOT_FOUND"):
        pod.node.call("UpdateContainerResources", container_id="0" * 64, linux=changed)


def test_verbose_status(pod: Pod) -> None:
    container = pod.run()
    assert not pod.node.call("ContainerStatus", container_id=container.id).info
    info = pod.node.call("ContainerStatus", container_id=container.id, verbose=True).info
    assert json.loads(info["info"])["pid"] > 0


def test_several_containers(node: Node) -> None:
    """Specs: Multiple Containers: should support container exec, log, network."""
    pod = node.pod()
    script = "mkdir /srv; echo served >/srv/index.html; exec busybox httpd -f -p 80 -h /srv"
    server = pod.run("sh", "-c", script, name="server")
    client = pod.run("sh", "-c", "echo from the client; exec sleep 1000", name="client")
    assert server.output("hostname") == client.output("hostname")
    until(lambda: client.exec("wget", "-qO-", "http://127.0.0.1/").code == 0, "the server")
    assert client.output("wget", "-qO-", "http://127.0.0.1/") == "served"
    until(client.log_lines, "the log")
    assert client.log_lines() == [("stdout", "F", "from the client")]
    assert server.log.exists()
