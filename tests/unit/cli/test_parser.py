"""Command lines: every form of a flag, and what is said about mistakes."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

import pytest

from isula_cli.parser import HelpRequested, UsageError, parse

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Isula


def command(**constants: object) -> types.ModuleType:
    module = types.ModuleType("command")
    module.__dict__.update(
        OPTIONS=(
            ("all", "a", "bool", "", ""),
            ("interactive", "i", "bool", "", ""),
            ("tty", "t", "bool", "", ""),
            ("memory", "m", "str", "", ""),
            ("env", "e", "list", "", ""),
            ("time", "", "int", "", ""),
            ("count", "n", "uint", "", ""),
            ("net", "", "str", "", ""),
        ),
        ALIASES={"network": "net"},
        ARGUMENTS=(("words", "*", ""),),
        MISCOUNT=("wrong number", 1),
    )
    module.__dict__.update(constants)
    return module


GOOD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "": ({}, []),
    "--all": ({"all": True}, []),
    "-a": ({"all": True}, []),
    "--all=true": ({"all": True}, []),
    "--all=false": ({"all": False}, []),
    "--all=0 x": ({"all": False}, ["x"]),
    "-a=false": ({"all": False}, []),
    "--all false": ({"all": True}, ["false"]),
    "--all --all=false": ({"all": False}, []),
    "--memory 1g": ({"memory": "1g"}, []),
    "--memory=1g": ({"memory": "1g"}, []),
    "--memory=": ({"memory": ""}, []),
    "--memory=a=b": ({"memory": "a=b"}, []),
    "-m 1g": ({"memory": "1g"}, []),
    "-m=1g": ({"memory": "1g"}, []),
    "-m1g": ({"memory": "1g"}, []),
    "-m -1": ({"memory": "-1"}, []),
    "--memory --all": ({"memory": "--all"}, []),
    "-m 1 -m 2": ({"memory": "2"}, []),
    "-it": ({"interactive": True, "tty": True}, []),
    "-itm 1g": ({"interactive": True, "tty": True, "memory": "1g"}, []),
    "-itm1g": ({"interactive": True, "tty": True, "memory": "1g"}, []),
    "-itm=1g": ({"interactive": True, "tty": True, "memory": "1g"}, []),
    "-ai=false": ({"all": True, "interactive": False}, []),
    "-e A=b -e C --env D=": ({"env": ["A=b", "C", "D="]}, []),
    "--time -5": ({"time": -5}, []),
    "--time +5": ({"time": 5}, []),
    "--time 9223372036854775807": ({"time": 9223372036854775807}, []),
    "--time -9223372036854775808": ({"time": -9223372036854775808}, []),
    "-n 007": ({"count": 7}, []),
    "--network host": ({"net": "host"}, []),
    "--network=host --net none": ({"net": "none"}, []),
    "x --all y": ({"all": True}, ["x", "y"]),
    "-- --all": ({}, ["--all"]),
    "x -- -a --": ({}, ["x", "-a", "--"]),
    "-": ({}, ["-"]),
    "- -a": ({"all": True}, ["-"]),
    "-H unix:///x -D": ({"host": "unix:///x", "debug": True}, []),
}


@pytest.mark.parametrize("line", GOOD)
def test_a_command_line(line: str) -> None:
    assert parse(command(), line.split()) == GOOD[line]


BAD = {
    "--bogus": "Unknown flag found:'--bogus'",
    "--bogus=1": "Unknown flag found:'--bogus'",
    "--al": "Unknown flag found:'--al'",
    "--": "",
    "---all": "Unknown flag found:'---all'",
    "-z": "Unknown flag found:'z'",
    "-az": "Unknown flag found:'z'",
    "--=x": "Unknown flag found:'--'",
    "--memory": "Flag needs an argument: --memory",
    "-m": "Flag needs an argument: -m",
    "-itm": "Flag needs an argument: -m",
    "--all=maybe": 'Invalid boolean value "maybe" for flag --all',
    "-a=": 'Invalid boolean value "" for flag --all',
    "--time x": 'Invalid value "x" for flag --time: Invalid argument',
    "--time 1.5": 'Invalid value "1.5" for flag --time: Invalid argument',
    "--time=": 'Invalid value "" for flag --time: Invalid argument',
    "--time --1": 'Invalid value "--1" for flag --time: Invalid argument',
    "--time ٣": 'Invalid value "٣" for flag --time: Invalid argument',
    "--count -1": 'Invalid value "-1" for flag --count: Numerical result out of range',
    "--time 9223372036854775808": "Numerical result out of range",
    "--time " + "9" * 5000: "Numerical result out of range",
}
del BAD["--"]


@pytest.mark.parametrize("line", BAD, ids=lambda line: line[:30])
def test_a_mistake_is_said_and_exits_with_125(line: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(command(), line.split())
    assert BAD[line] in str(caught.value)
    assert caught.value.exit_status == 125


@pytest.mark.parametrize("line", ["--help", "-h", "x --help", "-ah", "--bogus-later --help"])
def test_help_is_asked_for(line: str) -> None:
    if "bogus" in line:
        with pytest.raises(UsageError):
            parse(command(), line.split())
    else:
        with pytest.raises(HelpRequested):
            parse(command(), line.split())


def test_a_short_flag_h_of_the_command_is_no_help() -> None:
    module = command(OPTIONS=(("hostname", "h", "str", "", ""),), ALIASES={})
    assert parse(module, ["-h", "web"]) == ({"hostname": "web"}, [])


def test_flags_behind_another_programs_name_are_its_own() -> None:
    module = command(INTERSPERSED=False)
    words = ["image", "-it", "--all", "--", "--help"]
    assert parse(module, ["-a", *words]) == ({"all": True}, words)
    assert parse(module, ["-a", "--", *words]) == ({"all": True}, words)


COUNTS = [
    ((), 0, 0),
    ((("a", "1", ""),), 1, 1),
    ((("a", "1", ""), ("b", "1", "")), 2, 2),
    ((("a", "+", ""),), 1, None),
    ((("a", "*", ""),), 0, None),
    ((("a", "1", ""), ("b", "*", "")), 1, None),
    ((("a", "1", ""), ("b", "1", ""), ("c", "*", "")), 2, None),
]


@pytest.mark.parametrize(("arguments", "lowest", "highest"), COUNTS)
def test_the_number_of_arguments(
    arguments: tuple[tuple[str, str, str], ...], lowest: int, highest: int | None
) -> None:
    module = command(ARGUMENTS=arguments)
    for count in range(5):
        words = ["x"] * count
        if lowest <= count <= (count if highest is None else highest):
            assert parse(module, words) == ({}, words)
        else:
            with pytest.raises(UsageError, match="wrong number") as caught:
                parse(module, words)
            assert caught.value.exit_status == 1


def test_a_mistake_points_to_the_help(isula: Isula) -> None:
    done = isula("ps", "--bogus")
    assert done == (125, "", "isula ps: Unknown flag found:'--bogus'\nSee 'isula ps --help'.\n")


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["rm"], 1, '"rm" requires at least 1 argument.'),
        (["tag", "a"], 1, '"tag" requires 2 arguments.'),
        (["rename", "a", "b", "c"], 1, '"rename" requires 2 arguments.'),
        (["ps", "x"], 1, '"ps" requires 0 arguments.'),
        (["run"], 125, '"run" requires at least 1 argument.'),
        (["create"], 125, '"create" requires at least 1 argument.'),
        (["exec", "web"], 125, '"exec" requires at least 2 arguments.'),
    ],
)
def test_missing_arguments(isula: Isula, words: list[str], status: int, text: str) -> None:
    done = isula(*words)
    assert done.status == status
    assert done.err.startswith(f"isula {words[0]}: {text}\n")
    assert done.out == ""
