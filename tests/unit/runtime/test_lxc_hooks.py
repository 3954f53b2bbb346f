"""Scripts that LXC runs: what they are called, and what they do when they are run."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.cgroup import Host
from isula_edge.runtime import lxc_hooks

if TYPE_CHECKING:
    from isula_edge.runtime.base import Bundle
    from tests.unit.runtime.conftest import MakeBundle

NO_CGROUPS = Host("", {})


def scripts(bundle: Bundle, cgroups: Host = NO_CGROUPS) -> dict[str, str]:
    """Value of each lxc.hook.NAME."""
    text = lxc_hooks.lines(bundle, cgroups).splitlines()
    found = [
        line.removeprefix("lxc.hook.").split(" = ", 1)
        for line in text
        if line.startswith("lxc.hook.")
    ]
    return {name: value for name, value in found}  # noqa: C416  # of lists, which dict refuses


def execute(line: str, **env: str) -> int:
    """Runs a hook as LXC does."""
    done = subprocess.run(
        ["/bin/sh", "-c", line],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **env},
        check=False,
        timeout=60,
    )
    return done.returncode


def script(line: str) -> str:
    """Text of the script that a hook runs."""
    shell, path = shlex.split(line)
    assert shell == "/bin/sh"
    return Path(path).read_text()


@pytest.fixture
def hook(tmp_path: Path) -> dict[str, Any]:
    """A hook that keeps what it is told: state, args and env below told/."""
    (tmp_path / "told").mkdir()
    program = tmp_path / "a hook"
    program.write_text(
        f"#!/bin/sh\ncd '{tmp_path}/told'\ncat >state\nprintf '%s\\n' \"$@\" >args\nenv >env\n"
        'echo "hook says $1" >&2\nexit ${CODE:-0}\n'
    )
    program.chmod(0o755)
    return {"path": str(program), "args": ["name", "a b", "$HOME"], "env": ["A=two words"]}


def test_without_need_there_are_no_scripts(make_bundle: MakeBundle) -> None:
    assert lxc_hooks.lines(make_bundle(), NO_CGROUPS) == ""


@pytest.mark.parametrize("stage", ["prestart", "createRuntime"])
def test_a_hook_before_the_start_knows_the_pid(
    make_bundle: MakeBundle, hook: dict[str, Any], tmp_path: Path, stage: str
) -> None:
    annotations = {"quote": 'it\'s "pid": PID', "space": "a  b", "dollar": "$HOME `id`"}
    bundle = make_bundle({"hooks": {stage: [hook]}, "annotations": annotations})
    found = scripts(bundle)
    assert list(found) == ["start-host"]
    assert execute(found["start-host"], LXC_PID="4242") == 0
    state = json.loads((tmp_path / "told/state").read_text())
    assert (state["pid"], state["status"]) == (4242, "created")
    assert state["annotations"] == annotations
    assert (tmp_path / "told/args").read_text() == "a b\n$HOME\n"
    names = {line.partition("=")[0] for line in (tmp_path / "told/env").read_text().splitlines()}
    # what the shell sets by itself
    assert names - {"PWD", "OLDPWD", "SHLVL", "_"} == {"A"}


def test_a_hook_in_the_namespaces_sees_itself_as_1(
    make_bundle: MakeBundle, hook: dict[str, Any], tmp_path: Path
) -> None:
    found = scripts(make_bundle({"hooks": {"createContainer": [hook]}}))
    assert list(found) == ["mount"]
    assert execute(found["mount"]) == 0
    assert json.loads((tmp_path / "told/state").read_text())["pid"] == 1


def test_a_hook_that_fails_ends_the_start_and_is_named(
    make_bundle: MakeBundle, hook: dict[str, Any], tmp_path: Path
) -> None:
    failing = {**hook, "env": ["CODE=3"]}
    bundle = make_bundle({"hooks": {"prestart": [failing, {"path": "/usr/bin/false"}]}})
    assert execute(scripts(bundle)["start-host"], LXC_PID="5") == 3
    assert lxc_hooks.problem(bundle) == f"hook {hook['path']} failed with 3"
    log = (Path(bundle.run_dir) / "hooks.err").read_text()
    assert log == f"hook says a b\n{lxc_hooks.problem(bundle)}\n"
    assert (tmp_path / "told/state").exists()


def test_hooks_need_no_programs_of_the_host(
    make_bundle: MakeBundle, hook: dict[str, Any], tmp_path: Path
) -> None:
    found = scripts(make_bundle({"hooks": {"prestart": [hook]}}))
    assert execute(found["start-host"], LXC_PID="5", PATH=str(tmp_path / "empty")) == 0
    assert json.loads((tmp_path / "told/state").read_text())["pid"] == 5


def test_hooks_that_succeed_are_no_problem(make_bundle: MakeBundle) -> None:
    assert lxc_hooks.problem(make_bundle()) == ""


def start_script(bundle: Bundle) -> str:
    """Path of the script that is bound to where LXC executes it."""
    entry, line = lxc_hooks.lines(bundle, NO_CGROUPS).splitlines()
    path = f"{bundle.dir}/hook-start"
    assert entry == f"lxc.mount.entry = {path} dev/isula-start none bind,ro,create=file 0 0"
    # LXC asks access(2) for it, so it is a path and nothing else
    assert line == f"lxc.hook.start = /dev/{lxc_hooks.START}"
    return path


def test_a_hook_inside_the_container(
    make_bundle: MakeBundle, hook: dict[str, Any], tmp_path: Path
) -> None:
    path = start_script(make_bundle({"hooks": {"startContainer": [hook]}}))
    assert Path(path).stat().st_mode & 0o777 == 0o755
    assert execute(path) == 0
    state = json.loads((tmp_path / "told/state").read_text())
    assert (state["status"], state["pid"]) == ("created", 1)
    assert (tmp_path / "told/args").read_text() == "a b\n$HOME\n"
    assert "A=two words" in (tmp_path / "told/env").read_text().splitlines()


def test_a_hook_inside_without_variables(
    make_bundle: MakeBundle, hook: dict[str, Any], tmp_path: Path
) -> None:
    path = start_script(make_bundle({"hooks": {"startContainer": [{"path": hook["path"]}]}}))
    assert execute(path) == 0
    assert (tmp_path / "told/args").read_text() == "\n"


def test_a_hook_inside_that_fails_ends_the_start(
    make_bundle: MakeBundle, hook: dict[str, Any], tmp_path: Path
) -> None:
    table = {"startContainer": [{**hook, "env": ["CODE=3"]}, {**hook, "env": ["SECOND=1"]}]}
    assert execute(start_script(make_bundle({"hooks": table}))) == 1
    assert "SECOND=1" not in (tmp_path / "told/env").read_text().splitlines()


@pytest.mark.parametrize("name", ["a-b", "a.b", "1", "a b", "x$(id)", "a;b"])
def test_a_variable_that_the_shell_cannot_set_is_refused(
    make_bundle: MakeBundle, hook: dict[str, Any], name: str
) -> None:
    bundle = make_bundle({"hooks": {"startContainer": [{**hook, "env": [f"{name}=1"]}]}})
    with pytest.raises(errors.Unimplemented, match="cannot give a variable") as found:
        lxc_hooks.lines(bundle, NO_CGROUPS)
    assert "--runtime runc" in found.value.hint


@pytest.mark.parametrize("word", ["id >&2; exit 1", "", "=x"])
def test_a_word_that_is_no_variable_is_no_command(
    make_bundle: MakeBundle, hook: dict[str, Any], tmp_path: Path, word: str
) -> None:
    bundle = make_bundle({"hooks": {"startContainer": [{**hook, "env": [word]}]}})
    assert execute(start_script(bundle)) == 0
    assert (tmp_path / "told/args").read_text() == "a b\n$HOME\n"


def test_a_hook_with_a_line_break_is_one_command(make_bundle: MakeBundle, tmp_path: Path) -> None:
    program = tmp_path / "a\nb"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    bundle = make_bundle({"hooks": {"startContainer": [{"path": str(program)}]}})
    assert execute(start_script(bundle)) == 0


@pytest.mark.parametrize(
    ("key", "value", "file"),
    [
        ("net.ipv4.ip_forward", "1", "/proc/sys/net/ipv4/ip_forward"),
        ("kernel.sem", "1 2 3 4", "/proc/sys/kernel/sem"),
        # no name leads out of /proc/sys
        ("net.../../../etc/x", "1", "/proc/sys/net//////////etc/x"),
    ],
)
def test_a_sysctl_is_a_file_below_proc_sys(
    make_bundle: MakeBundle, key: str, value: str, file: str
) -> None:
    found = scripts(make_bundle({"linux": {"sysctl": {key: value}}}))
    text = script(found["pre-mount"])
    assert f">{file} " in text
    assert ".." not in text.partition("2>/dev/null")[2].partition("||")[0]


def test_a_sysctl_that_the_kernel_refuses_ends_the_start(make_bundle: MakeBundle) -> None:
    bundle = make_bundle({"linux": {"sysctl": {"net.no_such_name": "it's $1"}}})
    assert execute(scripts(bundle)["pre-mount"]) == 1
    assert lxc_hooks.problem(bundle) == ("sysctl net.no_such_name=it's $1 is refused by the kernel")


def test_a_device_node_has_its_number_mode_and_owner(make_bundle: MakeBundle) -> None:
    devices = [
        {"path": "/dev/a b/c", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640,
         "uid": 5, "gid": 6},
        {"path": "/dev/fifo", "type": "p"},
    ]  # fmt: skip
    found = scripts(make_bundle({"linux": {"devices": devices}}))
    lines = script(found["autodev"]).splitlines()
    assert "mkdir -p -m 755 \"$LXC_ROOTFS_MOUNT\"'/dev/a b'" in lines
    assert "node \"$LXC_ROOTFS_MOUNT\"'/dev/a b/c' c 10 229 640 5 6" in lines
    assert 'node "$LXC_ROOTFS_MOUNT"/dev/fifo p 0 0 666 0 0' in lines


def test_a_fifo_is_made(make_bundle: MakeBundle, tmp_path: Path) -> None:
    """The one kind of node that anybody may make."""
    devices = [{"path": "/dev/a b/fifo", "type": "p", "fileMode": 0o622}]
    bundle = make_bundle({"linux": {"devices": devices}})
    assert execute(scripts(bundle)["autodev"], LXC_ROOTFS_MOUNT=str(tmp_path)) == 0
    made = tmp_path / "dev/a b/fifo"
    assert made.is_fifo()
    assert made.stat().st_mode & 0o777 == 0o622


@pytest.mark.parametrize(("version", "name"), [("1", "memory.oom_control"), ("2", "memory.events")])
def test_the_oom_killers_count_is_kept(
    make_bundle: MakeBundle, tmp_path: Path, version: str, name: str
) -> None:
    linux = {"resources": {"memory": {"limit": 5}}, "cgroupsPath": "/edge/a box"}
    bundle = make_bundle({"linux": linux})
    host = Host(version, {"memory": str(tmp_path / "memory")})
    folder = tmp_path / "memory/edge/a box"
    folder.mkdir(parents=True)
    (folder / name).write_text("oom_kill 1\n")
    assert execute(scripts(bundle, host)["stop"]) == 0
    assert (Path(bundle.run_dir) / "oom").read_text() == "oom_kill 1\n"
    # a group that is gone is fine
    (folder / name).unlink()
    assert execute(scripts(bundle, host)["stop"]) == 0


@pytest.mark.parametrize("memory", [{}, {"limit": 0}, {"reservation": 5}])
def test_without_a_limit_nothing_is_counted(
    make_bundle: MakeBundle, memory: dict[str, int]
) -> None:
    bundle = make_bundle({"linux": {"resources": {"memory": memory}}})
    assert scripts(bundle, Host("1", {"memory": "/m"})) == {}
    limited = make_bundle({"linux": {"resources": {"memory": {"limit": 5}}}})
    assert scripts(limited, Host("1", {"pids": "/p"})) == {}


def test_a_shared_mount_is_attached_first(make_bundle: MakeBundle) -> None:
    mounts = [
        {"destination": "/in side", "type": "bind", "source": "/out", "options": ["rshared"]},
        {"destination": "/ro", "type": "bind", "source": "/out2",
         "options": ["shared", "ro", "nosuid"]},
        {"destination": "/own", "type": "bind", "source": "/out3", "options": ["rprivate"]},
    ]  # fmt: skip
    found = scripts(make_bundle({"mounts": mounts}))
    assert list(found) == ["start-host"]
    text = script(found["start-host"])
    assert "\"$LXC_PID\" /out '/in side' '' /out2 /ro ro,nosuid || exit 1" in text
    assert "/out3" not in text
