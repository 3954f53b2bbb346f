"""isulad as a service: its socket, files, signals, and who may talk to it."""

from __future__ import annotations

import grp
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.rig import Engine, NetworkNamespace, program, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.lxc]


def test_socket_pid_file_and_their_end(make_engine: Callable[..., Engine]) -> None:
    group = grp.getgrgid(os.getegid()).gr_name
    engine = make_engine("--group", group, load=False)
    path = engine.folder / "isulad.sock"
    found = path.stat()
    assert stat.S_ISSOCK(found.st_mode)
    assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o660, 0)
    assert found.st_gid == grp.getgrnam(group).gr_gid
    assert (engine.folder / "isulad.pid").read_text() == f"{engine.pid}\n"
    assert engine.stop() == 0
    assert not path.exists()
    assert not (engine.folder / "isulad.pid").exists()


def test_after_a_crash_the_old_socket_is_replaced(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(load=False)
    engine.stop(signal.SIGKILL)
    assert (engine.folder / "isulad.sock").exists()
    engine.start()
    assert engine.isula("version").code == 0


def test_a_second_engine_is_refused_and_the_first_goes_on(
    make_engine: Callable[..., Engine],
) -> None:
    engine = make_engine(load=False)
    words = engine.command
    second = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 1
    assert len(second.stderr.splitlines()) == 1
    assert str(engine.pid) in second.stderr
    at = words.index("--pidfile")
    words[at + 1] = str(engine.folder / "other.pid")
    words[words.index("-H") + 1] = f"unix://{engine.folder}/other.sock"
    second = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 1
    assert str(engine.graph) in second.stderr
    assert engine.isula("version").code == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", ("daemon.json", "line 1")),
        ('{"graph": 5}', ("daemon.json", "graph")),
        ('{"registry-mirrors": "one"}', ("daemon.json", "registry-mirrors")),
        ('{"storage-driver": "btrfs9"}', ("btrfs9", "storage-driver")),
        ('{"default-runtime": "nosuch"}', ("nosuch",)),
        ("[]", ("daemon.json",)),
    ],
)
def test_settings_that_cannot_be_used_end_it_with_one_line(
    tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    engine = Engine(tmp_path / "engine")
    try:
        engine.config.write_text(text)
        done = subprocess.run(
            engine.command, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 1
        lines = [line for line in done.stderr.splitlines() if line.startswith("isulad: ")]
        assert len(lines) == 1
        for word in words:
            assert word in lines[0]
        assert "Traceback" not in done.stderr
    finally:
        engine.close()


def test_unknown_and_idle_keys_are_one_warning_and_errors_of_validate(
    make_engine: Callable[..., Engine],
) -> None:
    settings = {"nosuchkey": 1, "another": 2, "metrics-port": 9090}
    engine = make_engine(load=False, config=settings)
    lines = [line for line in engine.log_text().splitlines() if "nosuchkey" in line]
    assert len(lines) == 1
    assert "WARNING" in lines[0]
    assert "another" in lines[0]
    assert "metrics-port" in lines[0]
    words = [program("isulad"), "--validate", "--config", str(engine.config)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    for key in settings:
        assert key in done.stderr
    engine.configure({})
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_sighup_reads_settings_again_and_bad_ones_change_nothing(
    make_engine: Callable[..., Engine],
) -> None:
    engine = make_engine(load=False)
    assert engine.process is not None
    engine.configure({"log-level": "DEBUG", "registry-mirrors": ["http://mirror.example:5000"]})
    engine.process.send_signal(signal.SIGHUP)
    until(lambda: "mirror.example" in engine.ok("info"), "the mirror shown")
    engine.config.write_text("{")
    engine.process.send_signal(signal.SIGHUP)
    until(lambda: "the settings stay as they were" in engine.log_text(), "the refusal")
    assert "mirror.example" in engine.ok("info")


def test_it_tells_systemd(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(60)
        engine = Engine(tmp_path / "engine", env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        try:
            engine.start()
            assert b"READY=1" in receiver.recv(4096)
            assert engine.process is not None
            engine.process.send_signal(signal.SIGHUP)
            assert b"RELOADING=1" in receiver.recv(4096)
            assert b"READY=1" in receiver.recv(4096)
            engine.stop()
            assert b"STOPPING=1" in receiver.recv(4096)
        finally:
            engine.close()


def test_a_socket_of_systemds_is_used_and_left(tmp_path: Path) -> None:
    path = tmp_path / "given.sock"
    network = NetworkNamespace()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(path))
        sock.listen()
        (tmp_path / "daemon.json").write_text("{}")
        # LISTEN_PID has to be the daemon's own number
        code = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3); "
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); "
            "os.execv(sys.argv[2], sys.argv[2:])"
        )
        daemon = subprocess.Popen(
            [
                *(*network.prefix, sys.executable, "-c", code, str(sock.fileno())),
                *(program("isulad"), "--graph", str(tmp_path / "graph"), "--log-driver", "stderr"),
                *("--state", str(tmp_path / "state"), "--pidfile", str(tmp_path / "pid")),
                *("--config", str(tmp_path / "daemon.json")),
            ],
            pass_fds=(sock.fileno(),),
            stderr=subprocess.DEVNULL,
        )
        try:
            client = [program("isula"), "-H", f"unix://{path}", "version"]
            done = subprocess.run(client, capture_output=True, timeout=60, check=False)
            assert done.returncode == 0
        finally:
            daemon.terminate()
            assert daemon.wait(60) == 0
            network.remove()
        assert path.exists()


def test_log_file_and_its_mode(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "engine", "--log-driver", "file")
    try:
        engine.start()
        log = engine.graph / "isulad.log"
        assert "serves on" in log.read_text()
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
    finally:
        engine.close()


def test_garbage_on_the_socket_harms_nobody(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(load=False)
    path = str(engine.folder / "isulad.sock")
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100, b"isula\n\0\x01\xff\xff\xff\xff", b""):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(60)
            sock.connect(path)
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
        assert engine.isula("version").code == 0


def test_clients_without_an_engine_say_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [program("isula"), "-H", f"unix://{tmp_path}/none.sock", "ps"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"{tmp_path}/none.sock" in done.stderr
    assert "daemon" in done.stderr


def test_closed_standard_streams_are_fine(engine: Engine) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{program('isula')} ps -a <&- >&- 2>&-"], env=engine.client_env, check=False
    )
    assert done.returncode == 0
    done = subprocess.run(
        ["sh", "-c", f"{program('isula')} run -d --name closed busybox sleep 100 <&- >&- 2>&-"],
        env=engine.client_env,
        check=False,
    )
    assert done.returncode == 0
    assert engine.state_of("closed")["Running"]


def test_an_idle_engine_does_nothing(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine()
    for number in range(3):
        engine.ok("run", "-d", "--name", f"idle{number}", "busybox", "sleep", "1000")
    supervisors = [int(path.read_text()) for path in engine.state.rglob("conmon.pid")]
    assert len(supervisors) == 3

    def switches() -> list[int]:
        found = []
        for pid in (engine.pid, *supervisors):
            with open(f"/proc/{pid}/status") as file:
                found += [int(line.split()[1]) for line in file if "ctxt_switches" in line]
        return found

    # whoever sleeps without polling is not scheduled: seen twice within a second
    def calm() -> bool:
        before = switches()
        time.sleep(1)
        return switches() == before

    until(calm, "a second without a single wake-up")


def test_version_and_info(engine: Engine) -> None:
    found = engine.ok("version")
    assert "Client" in found
    assert "Server" in found
    info = engine.ok("info")
    assert "Storage Driver: overlay" in info
    assert "Default Runtime: lxc" in info
    assert os.uname().release in info


def test_a_state_directory_where_nothing_may_be_executed(
    tmp_path: Path, images: Path, runtime: str
) -> None:
    """As /run is mounted on many systems."""
    engine = Engine(tmp_path / "engine")
    engine.state.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "noexec,nosuid,nodev", "state", str(engine.state)]
    subprocess.run(words, check=True)
    try:
        engine.start()
        engine.ok("load", "-i", str(images / "docker.tar"))
        hook = tmp_path / "hooks.json"
        hook.write_text('{"prestart": [{"path": "/bin/true"}]}')
        flags = ("--rm", "--runtime", runtime, "--hook-spec", str(hook))
        assert engine.ok("run", *flags, "busybox", "echo", "plain") == "plain"
        assert engine.ok("run", "-t", *flags, "busybox", "echo", "tty") == "tty"
        device = ("--device", "/dev/null:/dev/x", "--sysctl", "kernel.msgmax=4096")
        assert engine.ok("run", *device, *flags, "busybox", "ls", "/dev/x") == "/dev/x"
        engine.ok("run", "-d", "--name", "long", "--runtime", runtime, "busybox", "sleep", "1000")
        assert engine.ok("exec", "long", "echo", "exec") == "exec"
    finally:
        engine.close()
