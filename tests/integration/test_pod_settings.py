"""Containers with the settings of a pod, which no option of the client gives, on both runtimes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge.oci.mounts import Mount
from isula_edge.oci.options import Settings
from isula_edge.profile.code import Call, find
from isula_edge.sys import mounts
from isula_edge.sys.capability import number
from tests.fakes.driven import Driven, EngineFailure
from tests.integration.staging import driven
from tests.rig import until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.lxc]

FILES = ("net", "ipc", "uts")
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
SHOW = "grep ^Cap /proc/self/status"


@pytest.fixture(scope="module")
def shared(images: Path) -> Iterator[Driven]:
    with driven(images, "overlay", Driven) as found:
        yield found


@pytest.fixture
def engine(shared: Driven) -> Iterator[Driven]:
    yield shared
    shared.ask("clear")


@pytest.fixture(scope="module")
def pinned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Namespaces without a process, as those of a pod are."""
    folder = tmp_path_factory.mktemp("pod")
    with contextlib.ExitStack() as stack:
        words = []
        for kind in FILES:
            (folder / kind).touch()
            words.append(f"--{kind}={folder / kind}")
        subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
        stack.callback(mounts.detach, str(folder))
        subprocess.run(["mount", "--make-private", str(folder)], check=True)
        script = "hostname of-the-pod; ip link set lo up; ip link add edge0 type bridge"
        subprocess.run(["unshare", *words, "sh", "-c", script], check=True)
        for kind in FILES:
            stack.callback(mounts.detach, str(folder / kind))
        yield folder


@pytest.fixture
def pod(pinned: Path) -> dict[str, str | None]:
    """What a container of the pod joins."""
    paths: dict[str, str | None] = {kind: str(pinned / kind) for kind in ("ipc", "uts")}
    return {**paths, "network": str(pinned / "net"), "pid": "", "cgroup": ""}


def sets(lines: list[str]) -> dict[str, int]:
    """Capability sets of /proc/self/status."""
    return {line.split(":")[0]: int(line.split()[1], 16) for line in lines}


def mask(*names: str) -> int:
    return sum(1 << number(name) for name in names)


def host(engine: Driven, container: str) -> dict[str, list[str]]:
    """``/proc/PID/status`` of a container's init."""
    text = Path(f"/proc/{engine.ask('pid', id=container)}/status").read_text()
    return {line.split(":")[0]: line.split(":")[1].split() for line in text.splitlines()}


def refused(engine: Driven, settings: Settings, runtime: str) -> tuple[str, str]:
    with pytest.raises(EngineFailure) as found:
        engine.start(settings, "true", runtime)
    return found.value.name, str(found.value)


# namespaces


def test_pinned_namespaces_are_joined(
    engine: Driven, runtime: str, pod: dict[str, str | None], pinned: Path
) -> None:
    container = engine.start(Settings(join=pod, hostname="mine"), "sleep 1000", runtime)
    pid = engine.ask("pid", id=container)
    for kind in FILES:
        assert os.stat(f"/proc/{pid}/ns/{kind}").st_ino == (pinned / kind).stat().st_ino
    for kind in ("mnt", "pid", "cgroup"):
        assert os.stat(f"/proc/{pid}/ns/{kind}").st_ino != os.stat(f"/proc/self/ns/{kind}").st_ino
    # its own host name is not put over the pod's
    script = "hostname; ls /sys/class/net; ping -c 1 -W 5 127.0.0.1 >/dev/null && echo up"
    assert engine.exec(container, script) == (0, ["of-the-pod", "edge0", "lo", "up"])


def test_namespaces_of_the_host(engine: Driven, runtime: str) -> None:
    join: dict[str, str | None] = dict.fromkeys(("network", "ipc", "uts", "pid"))
    container = engine.start(Settings(join=join), "sleep 1000", runtime)
    pid = engine.ask("pid", id=container)
    for kind in ("ipc", "uts", "pid"):
        assert os.stat(f"/proc/{pid}/ns/{kind}").st_ino == os.stat(f"/proc/self/ns/{kind}").st_ino
    code, lines = engine.exec(container, "hostname; stat -f -c %i /dev/shm")
    assert code == 0
    assert lines[0] == os.uname().nodename


def test_process_namespace_of_another(
    engine: Driven, runtime: str, pod: dict[str, str | None]
) -> None:
    """What it leaves behind ends with it, though the namespace goes on."""
    target = engine.start(Settings(join=pod), "sleep 1000", runtime)
    join = {**pod, "pid": f"/proc/{engine.ask('pid', id=target)}/ns/pid"}
    script = "sleep 2000 & cat /proc/1/comm; test $$ != 1"
    container = engine.start(Settings(join=join), script, runtime)
    assert engine.ask("output", id=container) == ["sleep"]
    assert engine.ask("wait", id=container) == 0
    assert engine.exec(target, "ps | grep -c '[s]leep 2000'") == (1, ["0"])


def test_a_namespace_that_is_gone(
    engine: Driven, runtime: str, pod: dict[str, str | None], tmp_path: Path
) -> None:
    gone = Settings(join={**pod, "network": str(tmp_path / "gone")})
    name, text = refused(engine, gone, runtime)
    assert name == "FailedPrecondition"
    assert "the network namespace" in text


def test_privileged_in_a_pod(engine: Driven, runtime: str, pod: dict[str, str | None]) -> None:
    settings = Settings(join=pod, privileged=True, masked_paths=["/proc/keys"])
    script = """
        test -w /proc/sys/kernel/hostname || echo proc
        grep -q ' /sys sysfs rw' /proc/mounts || echo sys
        mount -t tmpfs none /tmp || echo mount
        grep -q . /proc/keys || echo keys
        ip link set edge0 up || echo link
    """
    assert engine.output(settings, script, runtime) == []


# files


@pytest.mark.parametrize("read_only", [False, True])
def test_files_and_shared_memory_of_the_pod(
    engine: Driven, runtime: str, pod: dict[str, str | None], tmp_path: Path, read_only: bool
) -> None:
    for name in ("hosts", "resolv.conf"):
        (tmp_path / name).write_text(f"{name} of the pod\n")
    (tmp_path / "shm").mkdir()
    settings = Settings(
        join=pod,
        files={f"/etc/{name}": str(tmp_path / name) for name in ("hosts", "resolv.conf")},
        shm_path=str(tmp_path / "shm"),
        read_only=read_only,
    )
    script = "cat /etc/hosts /etc/resolv.conf; echo x >/dev/shm/x; echo y >/etc/hosts; sleep 1000"
    container = engine.start(settings, script, runtime)
    until((tmp_path / "shm/x").exists, "a file in shared memory")
    until(lambda: engine.ask("log", id=container)[2:] or not read_only, "the refusal")
    assert engine.ask("log", id=container)[:2] == ["hosts of the pod", "resolv.conf of the pod"]
    until(
        lambda: read_only or (tmp_path / "hosts").read_text() == "y\n", "the pod's file written"
    )
    assert read_only == ((tmp_path / "hosts").read_text() == "hosts of the pod\n")
    assert engine.exec(container, "touch /here")[0] == int(read_only)
    engine.ask("remove", id=container)
    # it is the pod's, not the container's
    assert (tmp_path / "shm/x").exists()


# users and capabilities


@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize("drop", [[], ["ALL"]])
def test_ambient_capabilities(
    engine: Driven, runtime: str, pod: dict[str, str | None], drop: list[str], tty: bool
) -> None:
    settings = Settings(
        join=pod,
        user="1000:1001",
        group_add=["1234"],
        ambient=["NET_BIND_SERVICE", "SYS_TIME"],
        cap_drop=drop,
        umask=0o27,
        tty=tty,
    )
    script = f"{SHOW}; id -u; id -g; id -G; umask; : >/dev/stdout && echo again; sleep 1000"
    container = engine.start(settings, script, runtime)

    def lines() -> list[str]:
        return [line.rstrip("\r") for line in engine.ask("log", id=container)]

    until(lambda: lines()[9:], "all the output")
    wanted = mask("CAP_NET_BIND_SERVICE", "CAP_SYS_TIME")
    text = lines()
    found = sets(text[:5])
    assert {name: found[name] for name in SETS if name != "CapBnd"} == dict.fromkeys(
        ("CapInh", "CapPrm", "CapEff", "CapAmb"), wanted
    )
    described = engine.ask("described", id=container)["process"]["capabilities"]["bounding"]
    assert found["CapBnd"] == mask(*described)
    assert (found["CapBnd"] == wanted) == bool(drop)
    assert text[5:10] == ["1000", "1001", "1001 1234", "0027", "again"]
    # exec: the same
    status, by_exec = engine.exec(
        container, f"{SHOW}; id -u; umask", uid=1000, gid=1001, groups=[1001, 1234]
    )
    assert (status, sets(by_exec[:5]), by_exec[5:]) == (0, found, ["1000", "0027"])


def test_ambient_capabilities_in_a_user_namespace(engine: Driven, runtime: str) -> None:
    maps = [(0, 200_000, 65_536)]
    settings = Settings(
        join={"user": ""}, uid_maps=maps, gid_maps=maps, user="1000", ambient=["SYS_TIME"], umask=7
    )
    lines = engine.output(settings, f"{SHOW}; id -u; umask", runtime)
    assert sets(lines[:5])["CapEff"] == mask("CAP_SYS_TIME")
    assert lines[5:] == ["1000", "0007"]


def test_ambient_capabilities_of_root(engine: Driven, runtime: str) -> None:
    lines = engine.output(Settings(ambient=["SYS_TIME"], cap_drop=["KILL"]), SHOW, runtime)
    found = sets(lines)
    assert found["CapInh"] == found["CapAmb"] == mask("CAP_SYS_TIME")
    assert found["CapPrm"] == found["CapEff"] == found["CapBnd"]
    assert found["CapBnd"] & mask("CAP_SYS_TIME", "CAP_KILL") == mask("CAP_SYS_TIME")


def test_no_capabilities_for_others_than_root(engine: Driven, runtime: str) -> None:
    found = sets(engine.output(Settings(user="1000", cap_add=["SYS_TIME"]), SHOW, runtime))
    assert found["CapBnd"] & mask("CAP_SYS_TIME")
    assert [found[name] for name in SETS if name != "CapBnd"] == [0, 0, 0, 0]


@pytest.mark.parametrize("umask", [0, 0o22, 0o77])
def test_umask(engine: Driven, runtime: str, umask: int) -> None:
    container = engine.start(Settings(umask=umask), "umask; stat -c %a /dev; sleep 1000", runtime)
    until(lambda: engine.ask("log", id=container)[1:], "the output")
    # what the runtime makes has its own modes
    assert engine.ask("log", id=container) == [f"{umask:04o}", "755"]
    assert engine.exec(container, "umask") == (0, [f"{umask:04o}"])


def test_exit_code_behind_the_umask(engine: Driven, runtime: str) -> None:
    container = engine.start(Settings(umask=0o27), "exit 42", runtime)
    assert engine.ask("wait", id=container) == 42


@pytest.mark.parametrize(
    ("strict", "user", "groups"),
    [
        (False, "daemon", "1 29 1234"),
        (False, "1", "1 29 1234"),
        (False, "1:0", "0 29 1234"),
        (True, "daemon", "1 1234"),
        (True, "1:0", "0 1234"),
        (False, "4242", "0 1234"),
    ],
)
def test_groups(engine: Driven, runtime: str, strict: bool, user: str, groups: str) -> None:
    """Merge and Strict, also where a group is given."""
    settings = Settings(user=user, group_add=["1234"], groups_strict=strict)
    assert engine.output(settings, "id -G", runtime, pod="p" * 64) == [groups]


@pytest.mark.parametrize("kept_from", [True, False])
def test_no_new_privileges(
    engine: Driven, runtime: str, tmp_path: Path, kept_from: bool
) -> None:
    """A program with the set-user-id bit gets root's user, or not."""
    code = find()
    assert code is not None
    path = tmp_path / "become-root"
    path.write_bytes(code.program(b"", code.executing([Call("setresuid", (0, 0, 0))])))
    path.chmod(0o4755)
    settings = Settings(
        user="1000",
        no_new_privileges=kept_from,
        mounts=[Mount("bind", str(path), "/become-root", read_only=True)],
    )
    script = "/become-root /bin/sh -c 'id -u'; echo $?"
    found = engine.output(settings, script, runtime)
    assert found == (["126"] if kept_from else ["0", "0"])


@pytest.mark.parametrize("score", [-999, -998, -997, 500])
def test_oom_score(engine: Driven, runtime: str, score: int) -> None:
    lines = engine.output(Settings(oom_score_adj=score), "cat /proc/self/oom_score_adj", runtime)
    own = int(Path("/proc/self/oom_score_adj").read_text())
    may_lower = int(Path("/proc/self/status").read_text().split("CapEff:")[1].split()[0], 16)
    lowest = -1000 if may_lower & mask("CAP_SYS_RESOURCE") else own
    assert lines == [str(max(score, lowest))]


# paths


def test_masked_and_read_only_paths(engine: Driven, runtime: str) -> None:
    script = """
        wc -c </proc/version; ls /etc | wc -l; ls /proc/acpi >/dev/null 2>&1 && echo acpi
        wc -c </etc2/file; touch /root/x 2>/dev/null || echo read-only
        grep -q ' /proc/sys proc ro' /proc/mounts || echo writable
    """
    lines = engine.output(
        Settings(
            masked_paths=["/proc/version", "/etc", "/not/there"],
            readonly_paths=["/root", "/not/there/either"],
            mounts=[Mount("bind", "/etc", "/etc2", read_only=True)],
        ),
        script.replace("/etc2/file", "/etc2/hostname"),
        runtime,
    )
    kept = os.path.exists("/proc/acpi")
    size = str(os.path.getsize("/etc/hostname"))
    assert lines == ["0", "0", *(["acpi"] if kept else []), size, "read-only", "writable"]


def test_nothing_is_masked(engine: Driven, runtime: str) -> None:
    settings = Settings(masked_paths=[], readonly_paths=[])
    lines = engine.output(settings, "wc -l </proc/keys; grep ' /proc/' /proc/mounts", runtime)
    assert lines[0] != "0"
    # LXC gives a container a boot id of its own
    assert [line for line in lines[1:] if "/random/boot_id " not in line] == []


# security modules


@pytest.mark.skipif(
    os.path.exists("/sys/module/apparmor/parameters/enabled"), reason="the kernel has AppArmor"
)
def test_apparmor_without_a_kernel_that_has_it(engine: Driven, runtime: str) -> None:
    for name in ("", "unconfined"):
        assert engine.output(Settings(apparmor=name), "echo runs", runtime) == ["runs"]
    name, text = refused(engine, Settings(apparmor="edge-default"), runtime)
    assert name == "FailedPrecondition"
    assert "edge-default" in text


def test_selinux_without_a_policy(engine: Driven, runtime: str) -> None:
    if os.path.exists("/sys/fs/selinux/enforce"):
        pytest.skip("the kernel has SELinux")
    label = "system_u:system_r:container_t:s0:c1,c2"
    assert engine.output(Settings(selinux=label), "echo runs", runtime) == ["runs"]


# signals


def test_real_time_stop_signal(engine: Driven, runtime: str) -> None:
    wanted = int(signal.SIGRTMIN) + 3
    script = f"trap 'exit 7' {wanted}; echo ready; while :; do sleep 0.1; done"
    container = engine.start(Settings(), script, runtime)
    until(lambda: engine.ask("log", id=container) == ["ready"], "the trap set")
    engine.ask("kill", id=container, name="SIGRTMINPLUS3")
    assert engine.ask("wait", id=container) == 7


# logs


LINE = re.compile(
    rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}[+-]\d\d:\d\d (stdout|stderr) ([FP]) (.*)"
)


def records(path: Path) -> list[tuple[str, str, bytes]]:
    """Stream, tag and text of each line of a log."""
    data = path.read_bytes()
    assert data.endswith(b"\n")
    found = []
    for line in data[:-1].split(b"\n"):
        match = LINE.fullmatch(line)
        assert match, line
        found.append((match[1].decode(), match[2].decode(), match[3]))
    return found


def test_log_at_a_path_of_the_kubelet(engine: Driven, runtime: str, tmp_path: Path) -> None:
    path = tmp_path / "pods/ns_name_uid/app/0.log"
    settings = Settings(log_path=str(path), log_max_size=1000)
    # more than the engine's own limit, which must not count
    script = "i=0; while [ $i -lt 100 ]; do echo line $i; echo error >&2; i=$((i+1)); done"
    container = engine.start(settings, script, runtime)
    engine.ask("wait", id=container)
    found = records(path)
    assert [text for stream, _, text in found if stream == "stdout"] == [
        b"line %d" % number for number in range(100)
    ]
    assert {tag for _, tag, _ in found} == {"F"}
    assert path.stat().st_mode & 0o777 == 0o640
    # a second life goes on where the first one ended
    engine.ask("start", id=container)
    engine.ask("wait", id=container)
    assert len(records(path)) == 400
    engine.ask("remove", id=container)
    assert path.exists()


@pytest.mark.parametrize("tty", [False, True])
def test_the_last_line_ends(engine: Driven, runtime: str, tmp_path: Path, tty: bool) -> None:
    """Case A31h."""
    path = tmp_path / "0.log"
    script = "echo whole; printf '%09000d' 7; printf open >&2"
    container = engine.start(Settings(log_path=str(path), tty=tty), script, runtime)
    engine.ask("wait", id=container)
    found = records(path)
    streams = {"stdout", "stderr"} if not tty else {"stdout"}
    assert {stream for stream, _, _ in found} == streams
    for name in streams:
        own = [(tag, text) for stream, tag, text in found if stream == name]
        assert own[-1] == ("F", b"")
        assert own[-2][0] == "P"
    text = b"".join(text for stream, _, text in found if stream == "stdout")
    assert text.replace(b"\r", b"").replace(b"open", b"") == b"whole" + b"7".zfill(9000)


def test_the_last_line_ends_after_a_crash(engine: Driven, runtime: str, tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    script = "printf open; while ! test -e /dev/shm/go; do sleep 0.05; done"
    (tmp_path / "shm").mkdir()
    settings = Settings(log_path=str(path), shm_path=str(tmp_path / "shm"))
    container = engine.start(settings, script, runtime)
    until(lambda: path.read_bytes().endswith(b"open\n"), "the open line")
    supervisors = engine.folder / "state/exits"
    engine.process.kill()
    (tmp_path / "shm/go").touch()
    until((supervisors / container).exists, "the exit file")
    engine.crash()
    assert engine.ask("wait", id=container) == 0
    assert [record[1:] for record in records(path)] == [("P", b"open"), ("F", b"")]


def test_nothing_is_lost_while_logs_are_rotated(
    engine: Driven, runtime: str, tmp_path: Path
) -> None:
    path = tmp_path / "0.log"
    script = """
        i=0; while ! test -e /dev/shm/enough; do echo $i; i=$((i+1)); done
        echo $i; echo end
    """
    (tmp_path / "shm").mkdir()
    settings = Settings(log_path=str(path), shm_path=str(tmp_path / "shm"))
    container = engine.start(settings, script, runtime)
    old = []
    for turn in range(20):
        until(lambda: path.stat().st_size > 4096, "the log growing")
        old.append(path.rename(tmp_path / f"0.log.{turn:02}"))
        engine.ask("reopen", id=container)
        assert path.exists()
        assert path.stat().st_mode & 0o777 == 0o640
    (tmp_path / "shm/enough").touch()
    engine.ask("wait", id=container)
    whole = b"".join(
        text + b"\n" * (tag == "F") for file in (*old, path) for _, tag, text in records(file)
    )
    texts = whole.splitlines()
    assert texts[-1] == b"end"
    assert [int(text) for text in texts[:-1]] == list(range(len(texts) - 1))
    assert sorted(os.listdir(tmp_path)) == sorted(["0.log", "shm", *(file.name for file in old)])


def test_reopening_a_log_that_was_not_renamed(
    engine: Driven, runtime: str, tmp_path: Path
) -> None:
    path = tmp_path / "0.log"
    container = engine.start(Settings(log_path=str(path)), "echo first; sleep 1000", runtime)
    until(lambda: path.stat().st_size, "the first line")
    engine.ask("reopen", id=container)
    assert [text for _, _, text in records(path)] == [b"first"]
    # nor does what cannot be done end the container
    path.rename(tmp_path / "old")
    path.with_suffix(".log.tmp").mkdir()
    with pytest.raises(EngineFailure) as found:
        engine.ask("reopen", id=container)
    assert found.value.name == "FailedPrecondition"
    assert not path.exists()
    path.with_suffix(".log.tmp").rmdir()
    engine.ask("reopen", id=container)
    assert path.stat().st_size == 0
    engine.ask("stop", id=container)
    path.unlink()
    with pytest.raises(EngineFailure) as found:
        engine.ask("reopen", id=container)
    assert found.value.name == "FailedPrecondition"
    assert not path.exists()


def test_bad_log_paths(engine: Driven, runtime: str, tmp_path: Path) -> None:
    """Case A31d."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for path in ("folder", "link", "file/below", "a:b"):
        settings: dict[str, Any] = {"log_path": str(tmp_path / path)}
        name, text = refused(engine, Settings(**settings), runtime)
        assert (name, path in text) == ("InvalidArgument", True)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "link"]
    assert (tmp_path / "file").read_text() == "kept"
