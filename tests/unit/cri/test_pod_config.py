"""PodSandboxConfig: what is taken over, and what is refused by the field's name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

pytest.importorskip("google.protobuf")

from isula_cri import messages
from isula_cri.pod_config import id_maps, pod_spec, runtime_of
from isula_edge import errors
from isula_edge.network import Dns, PortMapping
from isula_edge.pod.record import Pod, PodSpec

if TYPE_CHECKING:
    from isula_edge.service.engine import Engine

MODES = messages.enum("NamespaceMode")
METADATA = {"name": "web", "uid": "u1", "namespace": "shop", "attempt": 3}


def runtime_name(name: str) -> str:
    if name not in ("", "lxc", "runc"):
        raise errors.InvalidArgument(f"no runtime {name}")
    return name or "lxc"


ENGINE = cast(
    "Engine",
    SimpleNamespace(
        config=SimpleNamespace(cri=SimpleNamespace(handlers={"fast": "runc", "gone": "kata"})),
        runtimes={"lxc": None, "runc": None},
        runtime_name=runtime_name,
    ),
)


def spec(handler: str = "", **fields: Any) -> PodSpec:
    return pod_spec(
        ENGINE, messages.PodSandboxConfig(**{"metadata": METADATA, **fields}), handler
    )


def refused(**fields: Any) -> str:
    with pytest.raises(errors.InvalidArgument) as caught:
        spec(**fields)
    return str(caught.value)


def test_all_that_is_said_is_kept() -> None:
    found = spec(
        "fast",
        hostname="box",
        log_directory="/var/log/pods/x",
        dns_config={"servers": ["10.0.0.1"], "searches": ["a.b"], "options": ["ndots:5"]},
        port_mappings=[
            {"protocol": 1, "container_port": 53, "host_port": 1053, "host_ip": "127.0.0.1"},
            {"container_port": 80},
        ],
        labels={"a": "b"},
        annotations={"c": "d"},
        linux={
            "cgroup_parent": "/kubepods/pod1",
            "sysctls": {"net.ipv4.ip_forward": "1"},
            "resources": {"cpu_shares": 2, "unified": {"memory.high": "5"}},
            "overhead": {"hugepage_limits": [{"page_size": "2MB", "limit": 4}]},
            "security_context": {
                "privileged": True,
                "selinux_options": {"type": "x_t"},
                "namespace_options": {"network": 2, "pid": 1, "ipc": 0},
            },
        },
    )
    assert found == PodSpec(
        "web",
        "u1",
        "shop",
        3,
        {"a": "b"},
        {"c": "d"},
        "box",
        "fast",
        "runc",
        {"network": "node", "ipc": "pod", "pid": "container"},
        Dns(("10.0.0.1",), ("a.b",), ("ndots:5",)),
        (PortMapping("udp", 53, 1053, "127.0.0.1"), PortMapping("tcp", 80, 0)),
        "/kubepods/pod1",
        {"net.ipv4.ip_forward": "1"},
        log_directory="/var/log/pods/x",
        privileged=True,
        security={"selinux": "system_u:system_r:x_t:s0"},
        resources={"cpu_shares": 2, "unified": {"memory.high": "5"}},
        overhead={"hugepage_limits": [{"page_size": "2MB", "limit": 4}]},
    )
    assert found.key == "k8s_POD_web_shop_u1_3"


def test_a_pod_of_a_kubelet_survives_its_record() -> None:
    found = spec(
        dns_config={"servers": ["1.1.1.1"]},
        port_mappings=[{"container_port": 80, "host_port": 8080}],
        linux={"resources": {"memory_limit_in_bytes": 5, "unified": {"a.b": "c"}}},
    )
    assert Pod.from_record(Pod("p", 1, "b", found).to_record()).spec == found


def test_nothing_but_a_name() -> None:
    assert spec() == PodSpec(
        "web",
        "u1",
        "shop",
        3,
        runtime="lxc",
        modes={"network": "pod", "ipc": "pod", "pid": "pod"},
        security={"selinux": ""},
    )


@pytest.mark.parametrize(
    ("handler", "runtime"), [("", "lxc"), ("runc", "runc"), ("fast", "runc"), ("lxc", "lxc")]
)
def test_handlers_are_runtimes(handler: str, runtime: str) -> None:
    assert runtime_of(ENGINE, handler) == runtime


@pytest.mark.parametrize("handler", ["kata", "gone", "../runc"])
def test_an_unknown_handler_is_refused_with_those_that_are_known(handler: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=f"no runtime handler {handler}") as caught:
        runtime_of(ENGINE, handler)
    assert "fast, gone, lxc, runc" in caught.value.hint


def context(**fields: Any) -> dict[str, Any]:
    return {"linux": {"security_context": fields}}


def options(**fields: Any) -> dict[str, Any]:
    return context(namespace_options=fields)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"labels": {str(number): "" for number in range(1001)}}, "Labels list is too long"),
    ({"annotations": {str(number): "" for number in range(1001)}}, "Annotations list is too long"),
    (options(network=1), "network namespace mode"),
    (options(network=3), "network namespace mode"),
    (options(ipc=1), "ipc namespace mode"),
    (options(ipc=3), "ipc namespace mode"),
    (options(pid=3), "no target for its pid namespace"),
    (options(network=9), "namespace_options.network has the unknown value 9"),
    (options(ipc=-1), "namespace_options.ipc has the unknown value -1"),
    (options(pid=4), "namespace_options.pid has the unknown value 4"),
    (options(userns_options={"mode": 7}), "userns_options.mode has the unknown value 7"),
    (context(run_as_group={"value": 5}), "runAsGroup without runAsUser"),
    (context(seccomp={"profile_type": 9}), "seccomp.profile_type"),
    (context(seccomp_profile_path="mine"), "unknown seccomp profile option: mine"),
    (context(apparmor={"profile_type": 2}), "needs a name"),
    (context(selinux_options={"type": "a:b"}), "SELinux option a:b"),
    (context(selinux_options={"level": "high"}), "'level' high"),
    ({"port_mappings": [{"container_port": 0}]}, "port mapping 0 to 0"),
    ({"port_mappings": [{"container_port": 65536}]}, "port mapping 0 to 65536"),
    ({"port_mappings": [{"container_port": 1, "host_port": -1}]}, "port mapping -1 to 1"),
    ({"port_mappings": [{"container_port": 1, "host_port": 70000}]}, "port mapping 70000 to 1"),
    ({"port_mappings": [{"container_port": 1, "protocol": 3}]}, "port_mappings.protocol"),
]


@pytest.mark.parametrize(("fields", "text"), REFUSED, ids=[text for _, text in REFUSED])
def test_what_is_wrong_is_named(fields: dict[str, Any], text: str) -> None:
    assert text in refused(**fields)


# user namespaces

MAP = {"container_id": 0, "host_id": 100000, "length": 65536}
ENTRY = ((0, 100000, 65536),)


def maps(mode: str, uids: list[Any], gids: list[Any]) -> Any:
    return id_maps(messages.UserNamespace(mode=MODES[mode], uids=uids, gids=gids))


@pytest.mark.parametrize("mode", ["NODE", "POD"])
def test_without_mappings_it_is_the_hosts(mode: str) -> None:
    assert maps(mode, [], []) == ((), ())


def test_one_mapping_for_both() -> None:
    assert maps("POD", [MAP], [MAP]) == (ENTRY, ENTRY)
    most = {"container_id": 0, "host_id": 2**32 - 5, "length": 5}
    assert maps("POD", [most], [most])[0] == ((0, 2**32 - 5, 5),)


@pytest.mark.parametrize(
    ("mode", "uids", "gids", "text"),
    [
        ("NODE", [MAP], [MAP], "takes no id mappings"),
        ("NODE", [], [MAP], "takes no id mappings"),
        ("CONTAINER", [MAP], [MAP], "CONTAINER is not supported"),
        ("TARGET", [], [], "TARGET is not supported"),
        ("POD", [MAP, MAP], [MAP, MAP], "exactly one mapping"),
        ("POD", [MAP], [], "exactly one mapping"),
        ("POD", [], [MAP], "exactly one mapping"),
        ("POD", [MAP], [{**MAP, "host_id": 5}], "exactly one mapping"),
        ("POD", [{**MAP, "container_id": 1}], [{**MAP, "container_id": 1}], "does not map id 0"),
        ("POD", [{**MAP, "length": 0}], [{**MAP, "length": 0}], "does not map id 0"),
        ("POD", [{**MAP, "host_id": 2**32 - 1}], [{**MAP, "host_id": 2**32 - 1}], "4294967295"),
    ],
)
def test_mappings_that_cannot_be(mode: str, uids: Any, gids: Any, text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=text):
        maps(mode, uids, gids)
