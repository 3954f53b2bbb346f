"""Every field of the runtime-spec that a runtime honours, read back in a container.

What has no option of ours is put into the document where hooks, CDI and NRI would put it.
docs/runtimes.md lists the fields; those that lxc refuses are in tests/unit/runtime.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge.oci.options import Settings
from tests.fakes.documents import Documents
from tests.fakes.driven import EngineFailure
from tests.integration.staging import driven

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.lxc]

FLAGS = "awk -v t={} '$5 == t {{ print $6 }}' /proc/self/mountinfo | tail -1"
GROUP = "cat /sys/fs/cgroup/{}"
CAPS = "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | cut -f 2"
NONE, KILL, CHOWN = "0000000000000000", "0000000000000020", "0000000000000001"
SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")
NULL = {"type": "c", "major": 1, "minor": 3}


@pytest.fixture(scope="module")
def shared(images: Path) -> Iterator[Documents]:
    """An engine whose documents are changed, below a directory that any user may search."""
    with driven(images, "overlay", Documents) as engine:
        yield engine


@pytest.fixture
def engine(shared: Documents) -> Iterator[Documents]:
    yield shared
    shared.patch({})
    shared.ask("clear")


@dataclass(frozen=True)
class Case:
    """A change of the document, what the container runs, and what it prints."""

    script: str
    printed: list[str]
    patch: dict[str, Any] = field(default_factory=dict)
    mounts: list[dict[str, Any]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)


def resources(**limits: Any) -> dict[str, Any]:
    return {"linux": {"resources": limits}}


def process(**fields: Any) -> dict[str, Any]:
    return {"process": fields}


def capabilities(**sets: list[str]) -> dict[str, Any]:
    return {"capabilities": {name: sets.get(name, []) for name in SETS}}


def mount(target: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source, "options": list(options)}


def device(path: str, **fields: Any) -> dict[str, Any]:
    return {"linux": {"devices": [{**NULL, "path": path, **fields}]}}


def rules(**fields: Any) -> list[dict[str, Any]]:
    """What every container needs, and one more; without ``minor`` and ``major``: all."""
    basic = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, None))
    allowed = [
        {"allow": True, "type": "c", "major": major, "access": "rwm"}
        | ({} if minor is None else {"minor": minor})
        for major, minor in basic
    ]
    return [{"allow": False, "access": "rwm"}, *allowed, {"allow": True, **fields}]


def syscalls(*entries: dict[str, Any], **fields: Any) -> dict[str, Any]:
    seccomp = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": list(entries), **fields}
    return {"linux": {"seccomp": {**CLEARED, **seccomp}}}


CLEARED = dict.fromkeys(("defaultErrnoRet", "architectures", "flags"))
MKDIR = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}

CASES = {
    "root.path": Case("test -x /bin/sh && echo there", ["there"]),
    "root.readonly": Case("touch /x 2>&1", ["touch: /x: Read-only file system"],
                          {"root": {"readonly": True}}),
    "hostname": Case("hostname", ["edge"], {"hostname": "edge"}),
    # process
    "process.args": Case("", ["a b", "$(id)", "'\"\\", "é"],
                         process(args=["printf", "%s\n", "a b", "$(id)", "'\"\\", "é"])),
    "process.env": Case("env | grep -E '^[AB]='", ["A=1 = \" ' $(id) # ", "B="],
                        process(env=["PATH=/bin", "A=0", "B=", "A=1 = \" ' $(id) # "])),
    "process.cwd": Case("pwd", ["/tmp"], process(cwd="/tmp")),
    "process.user": Case("id -u; id -g; id -G", ["5", "6", "6 7 8"],
                         process(user={"uid": 5, "gid": 6, "additionalGids": [7, 8]})),
    "process.user.umask": Case("umask", ["0027"], process(user={"umask": 0o27})),
    "process.user.umask as a user": Case("umask; id -u", ["0027", "5"],
                                         process(user={"umask": 0o27, "uid": 5})),
    "process.capabilities of root": Case(
        CAPS, [NONE, KILL, KILL, KILL, NONE],
        process(**capabilities(bounding=["CAP_KILL"], effective=["CAP_KILL"],
                               permitted=["CAP_KILL"]))),
    "process.capabilities.inheritable": Case(
        CAPS, [KILL, KILL, KILL, KILL, NONE],
        process(**capabilities(bounding=["CAP_KILL"], effective=["CAP_KILL"],
                               permitted=["CAP_KILL"], inheritable=["CAP_KILL"]))),
    "process.capabilities.inheritable of a user": Case(
        CAPS, [KILL, NONE, NONE, KILL, NONE],
        process(user={"uid": 5},
                **capabilities(bounding=["CAP_KILL"], inheritable=["CAP_KILL"],
                               permitted=["CAP_KILL"]))),
    "process.capabilities.ambient": Case(
        CAPS, [KILL, KILL, KILL, KILL, KILL],
        process(user={"uid": 5}, **capabilities(**{name: ["CAP_KILL"] for name in SETS}))),
    "process.capabilities of nobody": Case(CAPS, [NONE] * 5, process(capabilities=None)),
    "process.noNewPrivileges": Case("grep NoNewPrivs /proc/self/status | cut -f 2", ["1"],
                                    process(noNewPrivileges=True)),
    "process.oomScoreAdj": Case("cat /proc/self/oom_score_adj", ["77"], process(oomScoreAdj=77)),
    "process.rlimits": Case(
        "ulimit -n; ulimit -Hn; ulimit -c", ["55", "66", "unlimited"],
        process(rlimits=[{"type": "RLIMIT_NOFILE", "soft": 55, "hard": 66},
                         {"type": "RLIMIT_CORE", "soft": 2**64 - 1, "hard": 2**64 - 1}])),
    "process.consoleSize": Case(
        "stty size", ["33 77"],
        process(consoleSize={"height": 33, "width": 77}), settings={"tty": True}),
    "process.consoleSize without a terminal": Case(
        "echo fine", ["fine"], process(consoleSize={"height": 33, "width": 77})),
    # mounts
    "mounts of tmpfs": Case(
        FLAGS.format("/t") + "; df -k /t | awk 'NR == 2 { print $2 }'; stat -c %a /t",
        ["rw,nosuid,nodev,noexec,noatime", "64", "755"],
        mounts=[mount("/t", "tmpfs", "x", "nosuid", "nodev", "noexec", "noatime", "size=64k",
                      "mode=755")]),
    "mounts read-only": Case(FLAGS.format("/t"), ["ro,relatime"],
                             mounts=[mount("/t", "tmpfs", "x", "ro")]),
    "mounts in their order": Case(
        "ls /t/a", ["b"],
        mounts=[mount("/t", "tmpfs", "x"), mount("/t/a", "tmpfs", "x"),
                mount("/t/a/b", "tmpfs", "x")]),
    "mounts of a bind, flags": Case(
        FLAGS.format("/t"), ["rw,nosuid,nodev,noexec,noatime"],
        mounts=[mount("/t", "bind", "/usr/share", "rbind", "rprivate", "nosuid", "nodev",
                      "noexec", "noatime")]),
    "mounts of a bind, read-only": Case(
        FLAGS.format("/t"), ["ro,nosuid,relatime"],
        mounts=[mount("/t", "bind", "/usr/share", "rbind", "ro", "nosuid")]),
    "mounts of a file": Case("cat /f | head -n 1 | cut -c 1-4", ["root"],
                             mounts=[mount("/f", "bind", "/etc/passwd", "bind", "ro")]),
    "mounts without a type": Case(
        "test -d /t/doc && echo there", ["there"],
        mounts=[{"destination": "/t", "source": "/usr/share", "options": ["rbind"],
                 "type": "none"}]),
    "mounts with a relative destination": Case(FLAGS.format("/t/u"), ["rw,relatime"],
                                               mounts=[mount("t/u", "tmpfs", "x")]),
    "mounts of /proc, /sys, /dev": Case(
        "; ".join(FLAGS.format(path) for path in ("/proc", "/sys", "/dev", "/dev/pts"))
        + "; df -k /dev | awk 'NR == 2 { print $2 }'",
        ["rw,nosuid,nodev,noexec,relatime", "ro,nosuid,nodev,noexec,relatime", "rw,nosuid",
         "rw,nosuid,noexec,relatime", "65536"]),
    # Linux
    "linux.namespaces": Case(
        "for n in pid net ipc uts mnt; do [ $(readlink /proc/self/ns/$n) != "
        "$(echo $HOST | tr ' ' '\\n' | grep ^$n) ] && echo $n; done",
        ["pid", "net", "ipc", "uts", "mnt"],
        process(env=["PATH=/bin", "HOST=" + " ".join(
            os.readlink(f"/proc/self/ns/{name}") for name in ("pid", "net", "ipc", "uts", "mnt")
        )])),
    "linux.namespaces.path": Case(
        "readlink /proc/self/ns/ipc", [os.readlink("/proc/self/ns/ipc")],
        {"linux": {"namespaces": [
            {"type": "mount"}, {"type": "pid"}, {"type": "uts"}, {"type": "network"},
            {"type": "ipc", "path": f"/proc/{os.getpid()}/ns/ipc"}]}}),
    "linux.devices": Case("stat -c '%F %t:%T %a %u:%g' /dev/edge",
                          ["character special file 1:3 640 5:6"],
                          device("/dev/edge", fileMode=0o640, uid=5, gid=6)),
    "linux.devices elsewhere": Case(
        "stat -c '%F %t:%T' /opt/a/edge", ["character special file 1:3"],
        device("/opt/a/edge", fileMode=0o666)),
    "linux.devices of a pipe": Case("stat -c %F /dev/pipe", ["fifo"],
                                    {"linux": {"devices": [{"type": "p", "path": "/dev/pipe"}]}}),
    "linux.cgroupsPath": Case(
        "grep -c nothing /proc/self/cgroup; echo ok", ["0", "ok"],
        {"linux": {"cgroupsPath": "/isula-tests/of-the-fields"}}),
    "linux.sysctl": Case(
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax", ["1", "9000"],
        {"linux": {"sysctl": {"net.ipv4.ip_forward": "1", "kernel.msgmax": "9000"}}}),
    "linux.maskedPaths": Case(
        "wc -c </etc/passwd; ls /usr | wc -l; wc -c </proc/version", ["0", "0", "0"],
        {"linux": {"maskedPaths": ["/etc/passwd", "/usr", "/proc/version", "/no/such/file"]}}),
    "linux.readonlyPaths": Case(
        "touch /etc 2>&1; touch /proc/sys/kernel/msgmax 2>&1",
        ["touch: /etc: Read-only file system",
         "touch: /proc/sys/kernel/msgmax: Read-only file system"],
        {"linux": {"readonlyPaths": ["/etc", "/proc/sys", "/no/such/file"]}}),
    "linux.rootfsPropagation": Case("echo fine", ["fine"],
                                    {"linux": {"rootfsPropagation": "shared"}}),
    # limits
    "linux.resources.memory": Case(
        "cd /sys/fs/cgroup/memory && cat memory.limit_in_bytes memory.soft_limit_in_bytes "
        "memory.memsw.limit_in_bytes memory.swappiness; grep disable memory.oom_control",
        ["67108864", "33554432", "100663296", "7", "oom_kill_disable 1"],
        resources(memory={"limit": 64 << 20, "reservation": 32 << 20, "swap": 96 << 20,
                          "swappiness": 7, "disableOOMKiller": True,
                          "checkBeforeUpdate": True})),
    "linux.resources.cpu": Case(
        "cd /sys/fs/cgroup/cpu && cat cpu.shares cpu.cfs_period_us cpu.cfs_quota_us",
        ["512", "50000", "20000"],
        resources(cpu={"shares": 512, "period": 50000, "quota": 20000})),
    "linux.resources.cpu.cpus": Case(
        "cat /sys/fs/cgroup/cpuset/cpuset.cpus /sys/fs/cgroup/cpuset/cpuset.mems", ["0", "0"],
        resources(cpu={"cpus": "0", "mems": "0"})),
    "linux.resources.pids": Case(GROUP.format("pids/pids.max"), ["99"],
                                 resources(pids={"limit": 99})),
    "linux.resources.blockIO.throttle": Case(
        "cd /sys/fs/cgroup/blkio && cat blkio.throttle.read_bps_device "
        "blkio.throttle.write_bps_device blkio.throttle.read_iops_device "
        "blkio.throttle.write_iops_device",
        ["254:0 1048576", "254:0 2097152", "254:0 300", "254:0 400"],
        resources(blockIO={
            f"throttle{name}Device": [{"major": 254, "minor": 0, "rate": rate}]
            for name, rate in (("ReadBps", 1 << 20), ("WriteBps", 2 << 20), ("ReadIOPS", 300),
                               ("WriteIOPS", 400))})),
    "linux.resources.devices": Case(
        "grep '^c 1:11 ' /sys/fs/cgroup/devices/devices.list",
        ["c 1:11 rw"],
        resources(devices=rules(type="c", major=1, minor=11, access="rw"))),
    # seccomp
    "linux.seccomp": Case(
        "mkdir /x 2>&1", ["mkdir: can't create directory '/x': Operation not permitted"],
        syscalls(MKDIR)),
    "linux.seccomp.syscalls.errnoRet": Case(
        "mkdir /x 2>&1", ["mkdir: can't create directory '/x': Too many open files"],
        syscalls({**MKDIR, "errnoRet": 24})),
    "linux.seccomp.syscalls.args": Case(
        "kill -0 1; kill -USR1 1 2>&1",
        ["sh: can't kill pid 1: Operation not permitted"],
        syscalls({"names": ["kill"], "action": "SCMP_ACT_ERRNO",
                  "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]})),
}  # fmt: skip


TIME = ("mount", "pid", "ipc", "uts", "network", "time")
PERSONALITY = {"linux": {"personality": {"domain": "LINUX32"}}}
SCHEDULING = "cut -d ' ' -f 19,40,41 /proc/self/stat; grep -E 'Cap(Eff|Bnd)' /proc/self/status"

# what runc of Debian 12 (1.1) does not know
NEWER = {
    "domainname": Case("cat /proc/sys/kernel/domainname", ["edge.example # = \" '"],
                       {"domainname": "edge.example # = \" '"}),
    "linux.personality": Case("uname -m; cat /proc/self/personality", ["i686", "00000008"],
                              PERSONALITY),
    "linux.personality of 64 bits": Case("cat /proc/self/personality", ["00000000"],
                                         {"linux": {"personality": {"domain": "LINUX"}}}),
    "linux.timeOffsets": Case(
        "cat /proc/self/timens_offsets; [ $(cut -d . -f 1 /proc/uptime) -gt 200000 ] && echo late",
        ["monotonic      100000         0", "boottime       200000         0", "late"],
        {"linux": {"namespaces": [{"type": kind} for kind in TIME],
                   "timeOffsets": {"monotonic": {"secs": 100000}, "boottime": {"secs": 200000}}}}),
    "linux.timeOffsets in nanoseconds": Case(
        "cat /proc/self/timens_offsets",
        ["monotonic           0       500", "boottime            0         0"],
        {"linux": {"namespaces": [{"type": kind} for kind in TIME],
                   "timeOffsets": {"monotonic": {"nanosecs": 500}}}}),
    "process.scheduler": Case(
        SCHEDULING, ["5 0 3", f"CapEff:\t{KILL}", f"CapBnd:\t{KILL}"],
        process(scheduler={"policy": "SCHED_BATCH", "nice": 5},
                **capabilities(bounding=["CAP_KILL"], effective=["CAP_KILL"],
                               permitted=["CAP_KILL"]))),
    "process.scheduler of a user": Case(
        SCHEDULING + "; id -u", ["-5 0 0", f"CapEff:\t{NONE}", f"CapBnd:\t{KILL}", "5"],
        process(user={"uid": 5, "gid": 5}, scheduler={"policy": "SCHED_OTHER", "nice": -5},
                **capabilities(bounding=["CAP_KILL"]))),
    "process.scheduler with flags": Case(
        "cut -d ' ' -f 41 /proc/self/stat; (exec cut -d ' ' -f 19 /proc/self/stat); "
        "cut -d ' ' -f 19 /proc/1/stat", ["0", "0", "-5"],
        process(scheduler={"policy": "SCHED_OTHER", "nice": -5,
                           "flags": ["SCHED_FLAG_RESET_ON_FORK"]})),
    "process.ioPriority": Case("ionice -p 1; ionice -p $$", ["idle", "idle"],
                               process(ioPriority={"class": "IOPRIO_CLASS_IDLE", "priority": 4})),
    "process.ioPriority of a user": Case(
        "ionice -p 1; id -u; " + CAPS, ["best-effort: prio 6", "5", NONE, NONE, NONE, KILL, NONE],
        process(user={"uid": 5}, ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 6},
                **capabilities(bounding=["CAP_KILL"]))),
    "linux.resources.cpu.burst": Case(
        "cat /sys/fs/cgroup/cpu/cpu.cfs_burst_us", ["5000"],
        resources(cpu={"quota": 20000, "burst": 5000})),
    "linux.resources.cpu.idle": Case("cat /sys/fs/cgroup/cpu/cpu.idle", ["1"],
                                     resources(cpu={"idle": 1})),
    "linux.resources.memory.kernelTCP": Case(
        "cat /sys/fs/cgroup/memory/memory.kmem.tcp.limit_in_bytes", ["8388608"],
        resources(memory={"kernelTCP": 8 << 20})),
}  # fmt: skip


def printed(engine: Documents, runtime: str, case: Case) -> list[str]:
    engine.patch(case.patch, case.mounts)
    lines = engine.output(Settings(**case.settings), case.script, runtime)
    return [line.rstrip("\r") for line in lines]


@pytest.mark.parametrize("name", CASES)
def test_a_container_sees_what_the_document_says(
    engine: Documents, runtime: str, name: str
) -> None:
    assert printed(engine, runtime, CASES[name]) == CASES[name].printed


@pytest.mark.parametrize("name", NEWER)
def test_lxc_has_what_is_newer_than_some_runtimes(engine: Documents, name: str) -> None:
    assert printed(engine, "lxc", NEWER[name]) == NEWER[name].printed


@pytest.mark.parametrize(
    ("patch", "script", "printed"),
    [
        (PERSONALITY, "uname -m", ["i686"]),
        (process(umask=None, user={"umask": 0o27}), "umask", ["0027"]),
        (process(noNewPrivileges=True), "grep NoNewPrivs /proc/self/status", ["NoNewPrivs:\t1"]),
        (process(**capabilities(bounding=["CAP_KILL"])), "grep CapBnd /proc/self/status",
         [f"CapBnd:\t{KILL}"]),
    ],
    ids=["personality", "umask", "noNewPrivileges", "capabilities"],
)  # fmt: skip
def test_an_exec_has_it_too(
    engine: Documents, patch: dict[str, Any], script: str, printed: list[str]
) -> None:
    engine.patch(patch)
    container = engine.start(Settings(), "sleep 1000", "lxc")
    assert engine.exec(container, script) == (0, printed)


ABSENT: dict[str, tuple[str, dict[str, Any]]] = {
    "linux.resources.network.classID": ("net_cls", {"network": {"classID": 5}}),
    "linux.resources.network.priorities": (
        "net_prio", {"network": {"priorities": [{"name": "lo", "priority": 5}]}},
    ),
    "linux.resources.rdma": ("rdma", {"rdma": {"mlx5_0": {"hcaObjects": 5}}}),
    "linux.resources.hugepageLimits": (
        "hugetlb", {"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]},
    ),
    "linux.resources.blockIO.weight": ("blkio.weight", {"blockIO": {"weight": 500}}),
    "linux.resources.cpu.realtimeRuntime": (
        "cpu.rt_runtime", {"cpu": {"realtimeRuntime": 5000, "realtimePeriod": 10000}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ABSENT)
def test_a_limit_that_the_kernel_does_not_keep_ends_the_start(
    engine: Documents, name: str
) -> None:
    """Unless this kernel has it; then it is there."""
    word, limits = ABSENT[name]
    controller = word.partition(".")[0]
    engine.patch(resources(**limits))
    folder = Path("/sys/fs/cgroup") / controller
    files = [path.name for path in folder.glob(f"{word}*")] if folder.is_dir() else []
    script = f"cat /sys/fs/cgroup/{controller}/{files[0]}" if files else "echo never"
    try:
        lines = engine.output(Settings(), script, "lxc")
    except EngineFailure as error:
        assert word in str(error)  # noqa: PT017  # either may be right
    else:
        assert files
        assert any(char.isdigit() for line in lines for char in line)


def test_a_priority_that_the_kernel_refuses_is_named(engine: Documents) -> None:
    """In a cgroup without real time, as is every new one of a kernel with RT_GROUP_SCHED."""
    engine.patch(process(scheduler={"policy": "SCHED_FIFO", "priority": 5}))
    container = engine.start(Settings(), "cut -d ' ' -f 40,41 /proc/self/stat", "lxc")
    lines = engine.ask("output", id=container)
    refused = ["isulad: the kernel refuses process.scheduler for this container"]
    has_groups = os.path.exists("/sys/fs/cgroup/cpu/cpu.rt_runtime_us")
    assert lines == (refused if has_groups else ["5 1"])


HOSTILE = ["PATH=/evil", "LD_PRELOAD=/evil/library.so", "ENV=/evil/rc", "BASH_ENV=/evil/rc",
           "SHELLOPTS=xtrace", "PS4=$(touch /evil/ran)", "LD_LIBRARY_PATH=/evil"]  # fmt: skip


def test_hooks_of_lxc_do_not_run_with_the_environment_of_the_container(
    engine: Documents, tmp_path: Path
) -> None:
    """They run as root with the files of the host in view: PATH and LD_PRELOAD of an image
    would choose what they execute."""
    evil = tmp_path / "evil"
    evil.mkdir()
    for name in ("mkdir", "mknod", "rm", "chown", "cat", "sh", "printf", "env", "timeout"):
        script = evil / name
        script.write_text(f"#!/bin/sh\n: >{evil}/ran\n")
        script.chmod(0o755)
    env = [text.replace("/evil", str(evil)) for text in HOSTILE]
    engine.patch(
        {
            **process(env=env, args=["/bin/sh", "-c", "echo $LD_PRELOAD; echo $PATH"]),
            "hooks": {"createContainer": [{"path": "/bin/true"}]},
            "linux": {
                "devices": [{**NULL, "path": "/dev/a/b", "uid": 5}],
                "sysctl": {"net.ipv4.ip_forward": "1"},
            },
        }
    )
    found = engine.output(Settings(), "", "lxc")
    assert not (evil / "ran").exists()
    # what the container itself gets is what was given
    assert found == [f"{evil}/library.so", str(evil)]
