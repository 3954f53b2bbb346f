"""ContainerConfig: the settings it becomes, and what is refused by the field's name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

pytest.importorskip("google.protobuf")

from isula_cri import messages
from isula_cri.container_config import Creation, creation
from isula_edge import errors
from isula_edge.oci.mounts import Mount
from isula_edge.pod.record import Pod, PodSpec

if TYPE_CHECKING:
    from isula_edge.service.engine import Engine

IMAGE = SimpleNamespace(
    id="1" * 64, chain_ids=["l1", "l2"], run_config={"Entrypoint": ["/init"], "Cmd": ["serve"]}
)
TARGETS = {
    "runs": SimpleNamespace(pod="p1", running=True, state=SimpleNamespace(pid=7)),
    "ended": SimpleNamespace(pod="p1", running=False, state=SimpleNamespace(pid=0)),
    "foreign": SimpleNamespace(pod="p2", running=True, state=SimpleNamespace(pid=8)),
}


class Store:
    """Knows one image, called busybox."""

    def find(self, ref: str) -> Any:
        return IMAGE if ref in ("busybox", "busybox:latest", IMAGE.id) else None


def target(ref: str) -> Any:
    if ref not in TARGETS:
        raise errors.NotFound(f"No such container:{ref}")
    return TARGETS[ref]


def engine(*, cdi: bool = False) -> Engine:
    fake = SimpleNamespace(
        config=SimpleNamespace(cri=SimpleNamespace(cdi=cdi, cdi_dirs=("/nowhere",))),
        images=SimpleNamespace(store=Store()),
        table=SimpleNamespace(get=target),
        pods=SimpleNamespace(
            hostname=lambda _: "box",
            files=lambda _: {"/etc/hosts": "/s/hosts"},
            shm=lambda _: "/s/shm",
        ),
        host_limits=SimpleNamespace(
            cpusets=lambda: {"cpuset": "0-3", "mems": "0"}, check=lambda _: None
        ),
    )
    return cast("Engine", fake)


def pod(**spec: Any) -> Pod:
    found = Pod("p1", 1, "boot", PodSpec("web", "u1", "shop", 3, **spec))
    found.namespaces = {"network": "/n/net", "uts": "/n/uts", "ipc": None, "pid": "/proc/9/ns/pid"}
    return found


def made(of: Pod | None = None, **fields: Any) -> Creation:
    config = messages.ContainerConfig(
        **{"metadata": {"name": "main", "attempt": 2}, "image": {"image": "busybox"}, **fields}
    )
    return creation(engine(), of or pod(), config)


def refused(kind: type[errors.EngineError] = errors.InvalidArgument, **fields: Any) -> str:
    with pytest.raises(kind) as caught:
        made(**fields)
    return str(caught.value)


def test_what_every_container_of_a_pod_gets() -> None:
    found = made()
    assert found.name == "k8s_main_web_shop_u1_2"
    assert found.image is cast("Any", IMAGE)
    assert found.args == ["/init", "serve"]
    settings = found.settings
    assert settings.hostname == "box"
    assert settings.files == {"/etc/hosts": "/s/hosts"}
    assert settings.shm_path == "/s/shm"
    assert settings.no_swap
    assert settings.log_max_size == 0
    assert settings.log_path == ""
    assert (settings.oom_score_adj, settings.pids_limit, settings.umask) == (None, 0, None)
    assert settings.join["network"] == "/n/net"
    assert settings.join["ipc"] is None
    assert settings.join["pid"] == "/proc/9/ns/pid"
    assert "user" not in settings.join
    assert found.cri["name"] == "main"
    assert found.cri["attempt"] == 2
    assert messages.ImageSpec.FromString(found.cri["image"]).image == "busybox"


def test_what_is_said_is_kept() -> None:
    found = made(
        working_dir="/w/",
        envs=[{"key": "A", "value": b"b=c"}, {"key": "BYTES", "value": b"\xff"}],
        labels={"l": "1"},
        annotations={"n": "2"},
        tty=True,
        stdin=True,
        stdin_once=True,
        stop_signal=messages.enum("Signal")["SIGNAL_SIGRTMINPLUS3"],
        devices=[
            {"host_path": "/dev/a", "container_path": "/dev/b", "permissions": "r"},
            {"host_path": "/dev/c"},
        ],
        linux={
            "resources": {
                "cpu_shares": 2,
                "memory_limit_in_bytes": 8 << 20,
                "oom_score_adj": -5,
                "cpuset_cpus": "1-2",
            }
        },
    )
    settings = found.settings
    assert settings.workdir == "/w"
    assert settings.env == ["A=b=c", "BYTES=\udcff"]
    assert settings.labels == {"l": "1"}
    assert (settings.tty, settings.interactive, settings.stdin_once) == (True, True, True)
    assert settings.stop_signal == "SIGRTMIN+3"
    assert settings.devices == [("/dev/a", "/dev/b", "r"), ("/dev/c", "/dev/c", "rwm")]
    assert (settings.cpu_shares, settings.memory, settings.oom_score_adj) == (2, 8 << 20, -5)
    assert settings.cpuset_cpus == "1-2"
    assert found.cri["annotations"] == {"n": "2"}


def test_a_score_of_0_is_one() -> None:
    assert made(linux={"resources": {}}).settings.oom_score_adj == 0


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        ([], [], ["/init", "serve"]),
        ([], ["x"], ["/init", "x"]),
        (["/bin/a"], [], ["/bin/a"]),
        (["/bin/a", "b"], ["c"], ["/bin/a", "b", "c"]),
    ],
)
def test_command_and_args(command: list[str], args: list[str], expected: list[str]) -> None:
    assert made(command=command, args=args).args == expected


def test_whose_container_it_is_cannot_be_said_by_others() -> None:
    annotations = made(
        pod(annotations={"a": "pod", "b": "pod"}),
        annotations={"a": "own", "io.kubernetes.cri.sandbox-id": "other"},
    ).settings.annotations
    assert (annotations["a"], annotations["b"]) == ("own", "pod")
    assert annotations["io.kubernetes.cri.sandbox-id"] == "p1"
    assert annotations["io.kubernetes.cri.container-name"] == "main"
    assert annotations["io.kubernetes.cri.sandbox-namespace"] == "shop"


@pytest.mark.parametrize(
    ("folder", "log", "path"),
    [("", "", ""), ("/logs/p/", "c/0.log", "/logs/p/c/0.log"), ("", "/x/c.log", "/x/c.log")],
)
def test_the_log(folder: str, log: str, path: str) -> None:
    assert made(pod(log_directory=folder), log_path=log).settings.log_path == path


def test_a_log_directory_wants_a_log() -> None:
    with pytest.raises(errors.InvalidArgument, match="log_path is empty"):
        made(pod(log_directory="/logs"))


# mounts


def mount(**fields: Any) -> dict[str, Any]:
    return {"mounts": [{"host_path": "/h", "container_path": "/c", **fields}]}


def mounts(**fields: Any) -> list[Mount]:
    return made(**fields).settings.mounts


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Mount("bind", "/h", "/c")),
        ({"readonly": True}, Mount("bind", "/h", "/c", True)),
        ({"propagation": 1}, Mount("bind", "/h", "/c", False, "rslave")),
        ({"propagation": 2}, Mount("bind", "/h", "/c", False, "rshared")),
        ({"container_path": "c/./d//"}, Mount("bind", "/h", "/c/d")),
        ({"host_path": "/h//x/"}, Mount("bind", "/h/x", "/c")),
        (
            {"readonly": True, "recursive_read_only": True},
            Mount("bind", "/h", "/c", True, recursive_read_only=True),
        ),
        (
            {"mount_options": ["noexec", "nodev"]},
            Mount("bind", "/h", "/c", options=("noexec", "nodev")),
        ),
        (
            {"uidMappings": [{"container_id": 0, "host_id": 5, "length": 2}]},
            Mount("bind", "/h", "/c", uid_maps=((0, 5, 2),)),
        ),
        (
            {"host_path": "", "image": {"image": "busybox"}, "readonly": True},
            Mount("image", "", "/c", True, image=IMAGE.id, layers=("l1", "l2")),
        ),
        (
            {"image": {"image": "busybox"}, "readonly": True, "image_sub_path": "etc"},
            Mount("image", "", "/c", True, image=IMAGE.id, layers=("l1", "l2"), sub_path="etc"),
        ),
    ],
)
def test_a_mount(fields: dict[str, Any], expected: Mount) -> None:
    assert mounts(**mount(**fields)) == [expected]


def test_the_last_mount_of_a_place_is_the_one_and_parents_come_first() -> None:
    listed = [("/1", "/a/b"), ("/2", "/a"), ("/3", "a/b/"), ("/4", "/b")]
    items = [{"host_path": host, "container_path": inside} for host, inside in listed]
    found = mounts(mounts=items)
    assert [(item.source, item.target) for item in found] == [
        *(("/2", "/a"), ("/3", "/a/b"), ("/4", "/b"))
    ]


def test_the_image_of_a_volume_is_known_later_by_its_id() -> None:
    found = made(**mount(image={"image": "busybox"}, readonly=True))
    kept = messages.Mount.FromString(found.cri["mounts"][0])
    assert kept.image.image == "busybox"
    assert kept.image.image_ref == f"sha256:{IMAGE.id}"


# namespaces


def options(**fields: Any) -> dict[str, Any]:
    return {"linux": {"security_context": {"namespace_options": fields}}}


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({}, "/proc/9/ns/pid"),
        ({"pid": 1}, ""),
        ({"pid": 2}, None),
        ({"pid": 3, "target_id": "runs"}, "/proc/7/ns/pid"),
    ],
)
def test_process_ids(fields: dict[str, Any], path: str | None) -> None:
    assert made(**options(**fields)).settings.join["pid"] == path


def test_a_pod_without_a_shared_one_refuses_it() -> None:
    alone = pod()
    del alone.namespaces["pid"]
    assert made(alone, **options(pid=1)).settings.join["pid"] == ""
    with pytest.raises(errors.InvalidArgument, match="process id namespaces of their own"):
        made(alone)


def test_the_pods_users_are_the_containers() -> None:
    mapped = pod(uid_maps=((0, 100000, 65536),), gid_maps=((0, 100000, 65536),))
    mapped.namespaces["user"] = "/n/user"
    settings = made(mapped).settings
    assert settings.join["user"] == "/n/user"
    assert settings.uid_maps == settings.gid_maps == [(0, 100000, 65536)]


def test_a_privileged_container_has_the_hosts_cgroups() -> None:
    fields: dict[str, Any] = {"linux": {"security_context": {"privileged": True}}}
    assert made(pod(privileged=True), **fields).settings.join["cgroup"] is None
    assert "needs a privileged pod sandbox" in refused(**fields)


# annotations that iSulad's users know


@pytest.mark.parametrize(("text", "limit"), [("0", 0), ("-1", -1), ("100", 100)])
def test_a_limit_of_processes(text: str, limit: int) -> None:
    assert made(annotations={"cgroup.pids.max": text}).settings.pids_limit == limit


@pytest.mark.parametrize("text", ["", "-", "--5", "5 ", "1.5", "²", "٣", "9" * 5000, "max", "1\n"])
def test_limits_of_processes_that_are_none(text: str) -> None:
    found = refused(annotations={"cgroup.pids.max": text})
    assert found.startswith("cgroup.pids.max must be a number")
    assert len(found) < 100


def test_umasks() -> None:
    for word, mask in (("normal", 0o022), ("secure", 0o027)):
        assert made(annotations={"native.umask": word}).settings.umask == mask
    assert "native.umask option 077" in refused(annotations={"native.umask": "077"})


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"metadata": {"attempt": 1}}, "needs a name"),
    ({"labels": {str(number): "" for number in range(1001)}}, "Labels list is too long"),
    ({"annotations": {str(number): "" for number in range(1001)}}, "Annotations list"),
    ({"stop_signal": 99}, "unknown stop signal 99"),
    ({"working_dir": "w"}, "working_dir w"),
    ({"envs": [{"key": "", "value": b"a"}]}, "envs: ''"),
    ({"envs": [{"key": "A=B"}]}, "envs: 'A=B'"),
    ({"envs": [{"key": "A", "value": b"b\0c"}]}, "envs: 'A'"),
    ({"log_path": "/dev/null"}, "no file"),
    ({"log_path": "c/0.log"}, "'c/0.log' is no absolute path"),
    ({"log_path": "/a:b"}, "a colon"),
    ({"devices": [{"host_path": "dev/a"}]}, "devices: dev/a:dev/a:rwm"),
    ({"devices": [{"host_path": "/dev/a", "container_path": "/"}]}, "devices: /dev/a:/"),
    ({"devices": [{"host_path": "/dev/a", "permissions": "rx"}]}, "rx is no device"),
    (mount(container_path=""), "mount of /h has no container_path"),
    (mount(container_path="/x/.."), "cannot replace the root"),
    (mount(host_path=""), "mount source of /c"),
    (mount(host_path="h"), "mount source h"),
    (mount(propagation=5), "propagation of /c has the unknown value 5"),
    (mount(recursive_read_only=True), "recursive_read_only of /c needs readonly"),
    (mount(recursive_read_only=True, readonly=True, propagation=1), "needs PROPAGATION_PRIVATE"),
    (mount(mount_options=["suid"]), "mount option suid"),
    (mount(image={"image": "busybox"}), "image mount /c must be readonly"),
    (options(pid=9), "namespace_options.pid has the unknown value 9"),
    (options(pid=3, target_id="foreign"), "in another pod"),
    ({"linux": {"resources": {"cpu_period": 5}}}, "CPU cfs period"),
    ({"linux": {"resources": {"oom_score_adj": 1001}}}, "oom_score_adj must be"),
    ({"linux": {"resources": {"oom_score_adj": -1001}}}, "oom_score_adj must be"),
    ({"linux": {"resources": {"cpuset_cpus": "7"}}}, "Requested CPUs are not available"),
    ({"linux": {"resources": {"memory_limit_in_bytes": 5}}}, "Minimum memory limit"),
    ({"linux": {"resources": {"hugepage_limits": [{"page_size": "2"}]}}}, "'2' is no page size"),
    ({"linux": {"resources": {"unified": {"../x": "1"}}}}, "'../x' is no file of a cgroup"),
    ({"linux": {"security_context": {"run_as_group": {"value": 1}}}}, "runAsGroup"),
]


@pytest.mark.parametrize(("fields", "text"), WRONG, ids=[text for _, text in WRONG])
def test_what_is_wrong_is_named(fields: dict[str, Any], text: str) -> None:
    assert text in refused(**fields)


def test_what_is_not_there() -> None:
    assert "image 'other' is not present" in refused(errors.NotFound, image={"image": "other"})
    volume = mount(image={"image": "other"}, readonly=True)
    assert "image 'other'" in refused(errors.NotFound, **volume)
    assert "nobody" in refused(errors.NotFound, **options(pid=3, target_id="nobody"))
    text = refused(errors.FailedPrecondition, **options(pid=3, target_id="ended"))
    assert "ended does not run" in text


def test_devices_by_name_are_not_looked_for_where_they_are_off() -> None:
    config = messages.ContainerConfig(
        metadata={"name": "a"},
        image={"image": "busybox"},
        CDI_devices=[{"name": "vendor.com/net=0"}],
    )
    assert creation(engine(), pod(), config).settings.devices == []
    with pytest.raises(errors.EngineError, match=r"vendor\.com/net=0"):
        creation(engine(cdi=True), pod(), config)
