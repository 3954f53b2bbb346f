"""What the process of a container gets, and what comes back of it."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.rig import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.rig import Engine

pytestmark = [pytest.mark.root, pytest.mark.lxc]


@pytest.fixture(params=["lxc", "runc", "crun"])
def runtime(request: pytest.FixtureRequest) -> str:
    """Each runtime that makes the process by itself."""
    return str(request.param)


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_exit_code_of_the_program_is_the_clients(engine: Engine, runtime: str, code: int) -> None:
    result = engine.isula(
        "run", "--rm", "--runtime", runtime, "busybox", "sh", "-c", f"exit {code}"
    )
    assert (result.code, result.err) == (code, "")
    assert engine.ok("ps", "-aq") == ""


@pytest.mark.parametrize(
    ("word", "code", "message"),
    [
        ("/no/such", 127, "no/such"),
        ("nosuchprogram", 127, "nosuchprogram"),
        ("/etc/passwd", 126, "/etc/passwd"),
        ("/etc", 126, "/etc"),
    ],
)
def test_what_cannot_be_executed_or_found(
    engine: Engine, runtime: str, word: str, code: int, message: str
) -> None:
    result = engine.isula("run", "--name", "bad", "--runtime", runtime, "busybox", word)
    assert result.code == code
    assert message in result.err
    state = engine.state_of("bad")
    assert (state["ExitCode"], state["Status"]) == (code, "exited")
    assert message in state["Error"]
    assert not [place for place in engine.mounts() if "/storage/" in place]


def test_standard_output_and_error_stay_apart(engine: Engine, runtime: str) -> None:
    result = engine.isula(
        "run", "--rm", "--runtime", runtime, "busybox", "sh", "-c", "echo to out; echo to err >&2"
    )
    assert (result.out, result.err) == ("to out\n", "to err\n")


def test_environment_file_and_variables(engine: Engine, runtime: str, tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# comment\nFROM_FILE=one two\nBOTH=file\nHOME_OF_CLIENT\n")
    result = engine.isula(
        *("run", "--rm", "--runtime", runtime, "--env-file", str(file), "-e", "BOTH=flag"),
        *("-e", "EMPTY=", "--hostname", "unit", "busybox", "env"),
    )
    found = dict(line.split("=", 1) for line in result.lines)
    assert found["FROM_FILE"] == "one two"
    assert found["BOTH"] == "flag"
    assert found["EMPTY"] == ""
    assert found["HOSTNAME"] == "unit"
    assert found["PATH"].startswith("/usr/local/sbin:")
    assert found["HOME"] == "/root"
    assert "HOME_OF_CLIENT" not in found


def test_a_missing_working_directory_is_made(engine: Engine, runtime: str) -> None:
    assert (
        engine.ok("run", "--rm", "--runtime", runtime, "-w", "/made/for/it", "busybox", "pwd")
        == "/made/for/it"
    )


@pytest.mark.parametrize(
    ("user", "uid", "gid", "groups"),
    [
        ("daemon", "1", "1", {"1", "29"}),
        ("1:29", "1", "29", {"29"}),
        ("12345", "12345", "0", {"0"}),
        ("daemon:audio", "1", "29", {"29"}),
    ],
)
def test_user(
    engine: Engine, runtime: str, user: str, uid: str, gid: str, groups: set[str]
) -> None:
    found = engine.ok(
        "run",
        "--rm",
        "--runtime",
        runtime,
        "-u",
        user,
        "busybox",
        "sh",
        "-c",
        "id -u; id -g; id -G",
    ).splitlines()
    assert found[:2] == [uid, gid]
    assert set(found[2].split()) == groups


def test_unknown_user_is_refused_by_name(engine: Engine, runtime: str) -> None:
    result = engine.isula("run", "--rm", "--runtime", runtime, "-u", "nobodyhere", "busybox", "id")
    assert result.code == 125
    assert "nobodyhere" in result.err


def test_names_of_host_and_files_that_say_so(engine: Engine, runtime: str) -> None:
    script = "hostname; cat /etc/hostname; grep -w edge1 /etc/hosts"
    found = engine.ok(
        "run", "--rm", "--runtime", runtime, "--hostname", "edge1", "busybox", "sh", "-c", script
    ).splitlines()
    assert found[:2] == ["edge1", "edge1"]
    assert found[2].split()[1:] == ["edge1"]


def test_hostname_defaults_to_the_short_id(engine: Engine, runtime: str) -> None:
    container = engine.ok("run", "-d", "--runtime", runtime, "busybox", "hostname")
    assert engine.ok("wait", container) == "0"
    assert engine.ok("logs", container) == container[:12]


def test_read_only_root_and_writable_binds(engine: Engine, runtime: str, tmp_path: Path) -> None:
    shared, locked = tmp_path / "shared", tmp_path / "locked"
    shared.mkdir()
    locked.mkdir()
    (locked / "file").write_text("kept")
    script = (
        "touch /new 2>/dev/null && echo wrote root; echo from inside >/mnt/shared/new; "
        "echo lost 2>/dev/null >/mnt/locked/file && echo wrote locked; cat /mnt/locked/file"
    )
    found = engine.ok(
        *("run", "--rm", "--runtime", runtime, "--read-only", "-v", f"{shared}:/mnt/shared"),
        *("-v", f"{locked}:/mnt/locked:ro", "busybox", "sh", "-c", script),
    )
    assert found == "kept"
    assert (shared / "new").read_text() == "from inside\n"
    assert (locked / "file").read_text() == "kept"


def test_bind_of_one_file_and_of_a_path_with_spaces(
    engine: Engine, runtime: str, tmp_path: Path
) -> None:
    file = tmp_path / "a file"
    file.write_text("content\n")
    assert (
        engine.ok(
            *("run", "--rm", "--runtime", runtime, "-v", f"{file}:/etc/a place/x y"),
            *("busybox", "cat", "/etc/a place/x y"),
        )
        == "content"
    )


@pytest.fixture
def shared_mount(tmp_path: Path) -> Iterator[Path]:
    """A mount whose propagation is shared."""
    place = tmp_path / "shared"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "test", place], check=True)
    try:
        subprocess.run(["mount", "--make-shared", place], check=True)
        (place / "later").mkdir()
        yield place
    finally:
        subprocess.run(["umount", "-R", "-l", place], check=True)


def test_mounts_made_later_on_the_host_show_only_with_slave_propagation(
    engine: Engine, runtime: str, shared_mount: Path
) -> None:
    engine.ok(
        *("run", "-d", "--name", "prop", "--runtime", runtime, "-v", f"{shared_mount}:/a:rslave"),
        *("-v", f"{shared_mount}:/b", "busybox", "sleep", "1000"),
    )
    subprocess.run(["mount", "-t", "tmpfs", "later", shared_mount / "later"], check=True)
    (shared_mount / "later" / "file").touch()
    assert engine.ok("exec", "prop", "ls", "/a/later") == "file"
    assert engine.ok("exec", "prop", "ls", "/b/later") == ""


def test_mounts_made_inside_reach_the_host_only_with_shared_propagation(
    engine: Engine, runtime: str, shared_mount: Path
) -> None:
    for mode, seen in (("rslave", False), ("rshared", True)):
        engine.ok(
            *("run", "--rm", "--privileged", "--runtime", runtime),
            *("-v", f"{shared_mount}:/a:{mode}", "busybox"),
            *("mount", "-t", "tmpfs", "inside", "/a/later"),
        )
        assert os.path.ismount(shared_mount / "later") is seen


def test_entrypoint_replaces_the_images(engine: Engine, runtime: str) -> None:
    assert (
        engine.ok(
            "run", "--rm", "--runtime", runtime, "--entrypoint", "echo", "busybox", "a", "b c"
        )
        == "a b c"
    )


def capability_bits(text: str, name: str) -> int:
    found = re.search(rf"^{name}:\s*([0-9a-f]+)", text, re.MULTILINE)
    assert found
    return int(found[1], 16)


def test_capabilities(engine: Engine, runtime: str) -> None:
    cat = ("busybox", "cat", "/proc/self/status")
    default = engine.ok("run", "--rm", "--runtime", runtime, *cat)
    changed = engine.ok(
        "run", "--rm", "--runtime", runtime, "--cap-add", "NET_ADMIN", "--cap-drop", "CHOWN", *cat
    )
    none = engine.ok("run", "--rm", "--runtime", runtime, "--cap-drop", "ALL", *cat)
    # as Docker gives them, capabilities(7) bits
    wanted = sum(1 << bit for bit in (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31))
    assert capability_bits(default, "CapBnd") == wanted
    assert capability_bits(default, "CapEff") == wanted
    assert capability_bits(changed, "CapEff") == (wanted | 1 << 12) & ~1
    assert capability_bits(none, "CapEff") == capability_bits(none, "CapBnd") == 0


def test_a_user_other_than_root_has_no_effective_capabilities(engine: Engine, runtime: str) -> None:
    text = engine.ok(
        "run", "--rm", "--runtime", runtime, "-u", "1", "busybox", "cat", "/proc/self/status"
    )
    assert capability_bits(text, "CapEff") == 0
    assert capability_bits(text, "CapBnd") != 0


def seccomp_lines(status: str) -> list[str]:
    return [line for line in status.splitlines() if line.startswith("Seccomp")]


def test_privileged_has_all_capabilities_devices_and_no_seccomp(
    engine: Engine, runtime: str
) -> None:
    node = next(
        path
        for path in map(os.path.join, ["/dev"] * 1000, sorted(os.listdir("/dev")))
        if stat.S_ISBLK(os.stat(path).st_mode) or path.startswith("/dev/tty1")
    )
    text = engine.ok(
        *("run", "--rm", "--runtime", runtime, "--privileged", "busybox", "sh", "-c"),
        f"cat /proc/self/status; stat -c '%t:%T' {node}; mount | grep ' /sys '",
    )
    host = Path("/proc/self/status").read_text()
    assert capability_bits(text, "CapEff") == capability_bits(host, "CapBnd")
    # none but those that the engine itself is under
    assert seccomp_lines(text) == seccomp_lines(Path(f"/proc/{engine.pid}/status").read_text())
    found = os.stat(node).st_rdev
    device, sysfs = text.splitlines()[-2:]
    assert device == f"{os.major(found):x}:{os.minor(found):x}"
    assert "(rw" in sysfs


def test_seccomp_and_no_new_privileges(engine: Engine, runtime: str) -> None:
    text = engine.ok(
        *("run", "--rm", "--runtime", runtime, "--security-opt", "no-new-privileges"),
        *("busybox", "cat", "/proc/self/status"),
    )
    assert re.search(r"^Seccomp:\s*2$", text, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s*1$", text, re.MULTILINE)


def test_masked_and_read_only_paths(engine: Engine, runtime: str) -> None:
    script = (
        "wc -c </proc/timer_list; wc -c </proc/keys; ls /sys/firmware | wc -l; "
        "echo 1 >/proc/sys/kernel/sysrq && echo wrote; echo b >/proc/sysrq-trigger && echo wrote"
    )
    result = engine.isula("run", "--rm", "--runtime", runtime, "busybox", "sh", "-c", script)
    assert result.lines == ["0", "0", "0"]


def test_net_none_has_lo_alone_and_net_host_the_engines(engine: Engine, runtime: str) -> None:
    none = engine.ok(
        "run", "--rm", "--runtime", runtime, "--net", "none", "busybox", "ls", "/sys/class/net"
    )
    assert none.split() == ["lo"]
    inode = engine.ok(
        "run",
        "--rm",
        "--runtime",
        runtime,
        "--net",
        "host",
        "busybox",
        "readlink",
        "/proc/self/ns/net",
    )
    assert inode == os.readlink(f"/proc/{engine.pid}/ns/net")


def test_namespaces_of_the_host(engine: Engine, runtime: str) -> None:
    script = "for kind in uts ipc pid; do readlink /proc/self/ns/$kind; done"
    found = engine.ok(
        *("run", "--rm", "--runtime", runtime, "--uts", "host", "--ipc", "host", "--pid", "host"),
        *("busybox", "sh", "-c", script),
    ).splitlines()
    assert found == [os.readlink(f"/proc/{engine.pid}/ns/{kind}") for kind in ("uts", "ipc", "pid")]


def test_namespaces_of_another_container(engine: Engine, runtime: str) -> None:
    engine.ok("run", "-d", "--name", "first", "--runtime", runtime, "busybox", "sleep", "1000")
    script = "for kind in net ipc pid; do readlink /proc/self/ns/$kind; done"
    found = engine.ok(
        *("run", "--rm", "--runtime", runtime, "--net", "container:first"),
        *("--ipc", "container:first", "--pid", "container:first", "busybox", "sh", "-c", script),
    ).splitlines()
    pid = engine.state_of("first")["Pid"]
    assert found == [os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("net", "ipc", "pid")]


def test_shared_memory_is_shared_with_the_ipc_namespace(engine: Engine, runtime: str) -> None:
    engine.ok(
        *("run", "-d", "--name", "first", "--runtime", runtime, "--shm-size", "4m"),
        *("busybox", "sh", "-c", "echo shared >/dev/shm/file; sleep 1000"),
    )
    until(lambda: engine.isula("exec", "first", "test", "-s", "/dev/shm/file").code == 0, "file")
    join = ("run", "--rm", "--runtime", runtime, "--ipc", "container:first", "busybox")
    assert engine.ok(*join, "cat", "/dev/shm/file") == "shared"
    assert engine.ok(*join, "df", "-k", "/dev/shm").splitlines()[-1].split()[1] == "4096"
    engine.restart()
    assert engine.ok(*join, "cat", "/dev/shm/file") == "shared"
    engine.ok("rm", "-f", "first")
    assert not [place for place in engine.mounts() if "shm" in place]


def test_ulimits_and_sysctls(engine: Engine, runtime: str) -> None:
    script = "ulimit -n; ulimit -Hn; cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax"
    found = engine.ok(
        *("run", "--rm", "--runtime", runtime, "--ulimit", "nofile=100:200"),
        *("--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "kernel.msgmax=4096"),
        *("busybox", "sh", "-c", script),
    )
    assert found.split() == ["100", "200", "1", "4096"]


def test_devices(engine: Engine, runtime: str) -> None:
    script = (
        "ls /dev; test -w /dev/null && test -c /dev/xnull && echo hi >/dev/xnull; "
        "stat -c '%t:%T' /dev/xnull; mknod /tmp/mem c 1 1; cat /tmp/mem 2>&1; true"
    )
    found = engine.ok(
        *("run", "--rm", "--runtime", runtime, "--device", "/dev/null:/dev/xnull:rw"),
        *("busybox", "sh", "-c", script),
    ).splitlines()
    assert {"null", "zero", "full", "random", "urandom", "tty", "xnull", "shm", "pts"} <= set(found)
    assert "1:3" in found
    assert "Operation not permitted" in found[-1]


def test_shm_size_and_tmpfs(engine: Engine, runtime: str) -> None:
    script = "df -k /dev/shm | tail -n1; mount | grep ' /scratch '"
    found = engine.ok(
        *("run", "--rm", "--runtime", runtime, "--shm-size", "8m"),
        *("--tmpfs", "/scratch:size=1m,noexec", "busybox", "sh", "-c", script),
    ).splitlines()
    assert found[0].split()[1] == "8192"
    assert "tmpfs" in found[1]
    assert "noexec" in found[1]
    assert "size=1024k" in found[1]


def test_detached_run_prints_the_id_and_logs_keep_both_streams(
    engine: Engine, runtime: str
) -> None:
    script = "echo one; echo two >&2; printf three"
    container = engine.ok("run", "-d", "--runtime", runtime, "busybox", "sh", "-c", script)
    assert re.fullmatch(r"[0-9a-f]{64}", container)
    assert engine.ok("wait", container) == "0"
    logs = engine.isula("logs", container)
    assert (logs.out, logs.err) == ("one\nthree", "two\n")


def test_external_root_file_system_is_used_in_place(
    engine: Engine, runtime: str, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "sh").write_bytes(Path("/bin/busybox").read_bytes())
    (root / "bin" / "sh").chmod(0o755)
    found = engine.ok(
        *("run", "--rm", "--runtime", runtime, "--external-rootfs", str(root), "none"),
        *("/bin/sh", "-c", "echo here >/made; echo hello"),
    )
    assert found == "hello"
    assert (root / "made").read_text() == "here\n"
    assert (root / "bin" / "sh").exists()


def test_a_group_of_the_primary_number_stays_when_it_changes(engine: Engine, runtime: str) -> None:
    """CVE-2022-2989: the primary group is among the supplementary ones."""
    words = ("run", "--rm", "--runtime", runtime, "-u", "1:29", "busybox")
    assert "29" in engine.ok(*words, "grep", "^Groups", "/proc/self/status").split()


def test_mtab_and_a_graph_behind_a_link(
    make_engine: Callable[..., Engine], runtime: str, tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    engine = make_engine("--graph", str(tmp_path / "link"))
    words = ("run", "--rm", "--runtime", runtime, "busybox", "head", "-n1", "/etc/mtab")
    assert engine.ok(*words).split()[1] == "/"
    assert (tmp_path / "real" / "engine.cbor").exists()
