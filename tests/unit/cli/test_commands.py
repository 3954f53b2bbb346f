"""The table of commands: flags as iSulad's client has them, and the help of each."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING

import pytest

from isula_cli.commands import COMMANDS, COMMON, GROUPS, module_name
from isula_cli.main import main
from isula_cli.parser import parse

if TYPE_CHECKING:
    from types import ModuleType

CREATE = """
    n,name h,hostname e,env env-file env-target-file l,label label-file annotation entrypoint u,user
    group-add workdir i,interactive t,tty stop-signal restart rm pull R,runtime hook-spec
    external-rootfs system-container ns-change-opt user-remap no-pivot log-driver log-opt
    m,memory memory-reservation memory-swap memory-swappiness kernel-memory oom-kill-disable
    oom-score-adj shm-size cpu-shares cpu-period cpu-quota cpus cpu-rt-period cpu-rt-runtime
    cpuset-cpus cpuset-mems blkio-weight blkio-weight-device device-read-bps device-write-bps
    device-read-iops device-write-iops pids-limit files-limit hugetlb-limit ulimit cgroup-parent
    storage-opt privileged cap-add cap-drop security-opt read-only sysctl pid ipc uts userns
    cgroupns device device-cgroup-rule host-channel net network ip p,publish P,publish-all expose
    add-host dns dns-opt dns-search v,volume mount tmpfs volumes-from health-cmd health-interval
    health-timeout health-start-period health-retries health-exit-on-unhealthy no-healthcheck
"""
ISULAD = {
    "attach": "",
    "create": CREATE,
    "emulator install": "",
    "emulator ls": "",
    "emulator rm": "",
    "events": "n,name S,since U,until",
    "exec": "d,detach e,env i,interactive t,tty u,user workdir",
    "export": "o,output",
    "images": "q,quiet f,filter",
    "import": "",
    "info": "",
    "inspect": "f,format t,time",
    "kill": "s,signal",
    "load": "i,input t,type tag",
    "login": "u,username p,password password-stdin",
    "logout": "",
    "logs": "f,follow tail t,timestamps",
    "pause": "",
    "ps": "a,all n,last l,latest q,quiet f,filter no-trunc format",
    "pull": "",
    "rename": "",
    "restart": "t,time",
    "rm": "f,force v,volumes",
    "rmi": "f,force",
    "run": CREATE + " d,detach",
    "save": "",
    "search": "f,filter limit no-trunc format",
    "start": "a,attach",
    "stop": "f,force t,time",
    "system check": "",
    "system df": "v,verbose format",
    "system events": "n,name S,since U,until",
    "system info": "",
    "system prune": "a,all f,force filter",
    "tag": "",
    "top": "",
    "unpause": "",
    "version": "",
    "wait": "",
}
"""Flags of iSulad's client for each command that there is here."""

LISTS = """
    env env-file label label-file annotation group-add log-opt blkio-weight-device device-read-bps
    device-write-bps device-read-iops device-write-iops hugetlb-limit ulimit storage-opt cap-add
    cap-drop security-opt sysctl device device-cgroup-rule publish expose add-host dns dns-opt
    dns-search volume mount tmpfs volumes-from
""".split()


def module(name: str) -> ModuleType:
    return importlib.import_module(module_name(name))


def test_every_command_is_in_the_table() -> None:
    assert set(COMMANDS) == set(ISULAD)
    assert list(COMMANDS) == sorted(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_of_isulad_is_there(name: str) -> None:
    found = module(name)
    rows = {row[0]: row[1] for row in found.OPTIONS}
    rows |= {alias: rows[real] for alias, real in getattr(found, "ALIASES", {}).items()}
    for word in ISULAD[name].split():
        short, comma, long = word.rpartition(",")
        assert long in rows, f"isula {name} has no --{long}"
        if comma:
            assert rows[long] == short, f"isula {name} has no -{short}"


@pytest.mark.parametrize("name", ["create", "run"])
def test_flags_that_may_be_repeated_are_lists(name: str) -> None:
    kinds = {row[0]: row[2] for row in module(name).OPTIONS}
    assert {flag for flag, kind in kinds.items() if kind == "list"} == set(LISTS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_table_is_sound(name: str) -> None:
    found = module(name)
    rows = (*COMMON, *found.OPTIONS)
    names = [row[0] for row in rows]
    shorts = [row[1] for row in rows if row[1]]
    assert len(set(names)) == len(names)
    assert len(set(shorts)) == len(shorts)
    assert all(len(short) == 1 for short in shorts)
    assert {row[2] for row in rows} <= {"bool", "str", "list", "int", "uint"}
    assert all(bool(row[3]) == (row[2] != "bool") for row in rows)
    assert all(row[4] for row in rows)
    assert set(getattr(found, "ALIASES", {}).values()) <= set(names)
    assert {count for _, count, _ in found.ARGUMENTS} <= {"1", "+", "*"}
    assert callable(found.run)
    assert sorted(found.__all__) == list(found.__all__)
    assert all(hasattr(found, constant) for constant in found.__all__)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_is_a_command_line(name: str) -> None:
    found = module(name)
    assert found.EXAMPLES
    for example in found.EXAMPLES:
        words = re.findall(r"'[^']*'|\S+", example)
        own = ["isula", *name.split()]
        assert words[: len(own)] == own
        parse(found, [word.strip("'") for word in words[len(own) :]])


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("place", ["behind", "in front"])
def test_the_help_of_a_command(name: str, place: str, capfd: pytest.CaptureFixture[str]) -> None:
    words = [*name.split(), "--help"] if place == "behind" else ["-D", *name.split(), "--help"]
    assert main(words) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert out.startswith(f"Usage: isula {name} ")
    assert COMMANDS[name] in out
    shown = re.findall(r"^ +(?:-(\w), )?--([\w-]+)", out, re.MULTILINE)
    table = {row[0]: row[1] for row in (*COMMON, *module(name).OPTIONS)}
    assert {long: short for short, long in shown if long != "help"} == table
    assert [long for _, long in shown if long != "help"] == sorted(table)
    for example in module(name).EXAMPLES:
        assert example in out


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["-D"], ["-D", "--help"]])
def test_the_list_of_commands(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    out, err = capfd.readouterr()
    assert err == ""
    listed = re.findall(r"^  (\w+)  ", out[out.index("Commands:") :], re.MULTILINE)
    assert listed == sorted({name.partition(" ")[0] for name in COMMANDS})
    assert set(GROUPS) <= set(listed)


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("more", [[], ["--help"], ["-h"], ["-D"]])
def test_a_group_lists_its_commands(
    name: str, more: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([name, *more]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert out.startswith(f"Usage: isula {name} ")
    listed = re.findall(r"^  (\w+)  ", out[out.index("Commands:") :], re.MULTILINE)
    assert [f"{name} {word}" for word in listed] == [
        command for command in COMMANDS if command.startswith(f"{name} ")
    ]


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("words", [["bogus"], ["-H", "unix:///x", "bogus"], ["--bogus"]])
def test_what_a_group_does_not_have(
    name: str, words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([name, *words]) == 125
    out, err = capfd.readouterr()
    assert out == ""
    assert words[-1] in err
    assert f"See 'isula {name} --help'." in err


def test_an_unknown_command_is_named_on_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bogus", "--flag"]) == 1
    out, err = capfd.readouterr()
    assert out == 'isula: command "bogus" not found\nRun `isula --help` for a list of commands\n'
    assert err == ""


@pytest.mark.parametrize("words", [["--bogus"], ["--bogus", "ps"], ["-z"], ["--bogus=1"]])
def test_an_unknown_flag_before_the_command(
    words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 125
    out, err = capfd.readouterr()
    assert out == ""
    assert err == f"isula: Unknown flag found:'{words[0]}'\nSee 'isula --help'.\n"


def test_the_version_of_the_client(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert re.fullmatch(r"Version \d+\.\d+\.\d+\S*, commit \S+\n", capfd.readouterr().out)


@pytest.mark.parametrize("flag", ["--tls", "--tlsverify"])
def test_tls_is_refused_not_left_out(flag: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["ps", flag]) == 125
    assert "TLS is not supported" in capfd.readouterr().err


@pytest.mark.parametrize("host", ["/run/x.sock", "unix://x", "http://x", "tcp://x"])
def test_a_malformed_host(host: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["-H", host, "ps"]) == 125
    assert f"Invalid socket name : {host}" in capfd.readouterr().err


@pytest.mark.parametrize(("name", "status"), [("ps", 1), ("rm", 1), ("run", 125), ("exec", 125)])
def test_a_daemon_that_does_not_run(
    name: str, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    words = {"ps": [], "rm": ["a", "b"], "run": ["image"], "exec": ["a", "true"]}[name]
    assert main([name, "-H", "unix:///nowhere/d.sock", *words]) == status
    out, err = capfd.readouterr()
    assert out == ""
    assert err == (
        "Cannot connect to the daemon at unix:///nowhere/d.sock: No such file or directory."
        " Is the daemon running?\n"
    )
