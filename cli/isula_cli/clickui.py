"""Help, completion and the texts about mistakes, by click, from the commands' tables.

Loaded only for these: what succeeds does not pay for click.
"""

from __future__ import annotations

__all__ = ["command_help", "complete", "group_level", "top_level", "usage_error"]

import os
from typing import TYPE_CHECKING

import click
from click.shell_completion import shell_complete

from isula_cli.commands import COMMANDS, COMMON, GROUPS, module_name
from isula_cli.context import write_all, write_error
from isula_edge.version import COMMIT, VERSION

if TYPE_CHECKING:
    from types import ModuleType

    from isula_cli.parser import UsageError

_COMPLETION = "_ISULA_COMPLETE"
_WIDTH = 100
_SETTINGS = {"help_option_names": ["--help"], "max_content_width": _WIDTH}


def top_level(words: list[str]) -> int:
    """What ``isula`` without a known command says; the exit status."""
    for word in words:
        if word == "--version":
            _print(f"Version {VERSION}, commit {COMMIT}")
            return 0
        if word in ("--help", "-h"):
            break
        if word[:1] != "-":
            _print(f'isula: command "{word}" not found\nRun `isula --help` for a list of commands')
            return 1
        if not _common(word):
            write_error(f"isula: Unknown flag found:'{word}'\nSee 'isula --help'.\n")
            return 125
        if "=" not in word:
            break
    group = _group(load=False)
    _print(group.get_help(_context(group, "isula")))
    return 0


def group_level(name: str, words: list[str]) -> int:
    """What ``isula GROUP`` without a known command says; the exit status."""
    for word in words:
        if word in ("--help", "-h"):
            break
        if word[:1] != "-":
            text = f'command "{name} {word}" not found'
            write_error(f"isula: {text}\nSee 'isula {name} --help'.\n")
            return 125
        if not _common(word):
            write_error(f"isula {name}: Unknown flag found:'{word}'\nSee 'isula {name} --help'.\n")
            return 125
        if "=" not in word:
            break
    group = _group(load=False)
    found = group.commands[name]
    _print(found.get_help(_context(found, name, _context(group, "isula"))))
    return 0


def command_help(name: str) -> int:
    """Print the help of a command; the exit status, 0."""
    group = _group(load=False)
    parent = _context(group, "isula")
    first, _, rest = name.partition(" ")
    if rest:
        parent = _context(group.commands[first], first, parent)
    command = _command(name)
    _print(command.get_help(_context(command, rest or first, parent)))
    return 0


def usage_error(name: str, error: UsageError) -> int:
    """Say what is wrong with a command line; the exit status."""
    write_error(f"isula {name}: {error}\nSee 'isula {name} --help'.\n")
    return error.exit_status


def complete() -> int:
    """Answer the shell that asks for completions; the exit status."""
    return shell_complete(
        _group(load=True), {}, "isula", _COMPLETION, os.environ.get(_COMPLETION, "")
    )


def _print(text: str) -> None:
    write_all(1, f"{text}\n".encode())


def _context(
    command: click.Command, name: str, parent: click.Context | None = None
) -> click.Context:
    return click.Context(
        command,
        parent=parent,
        info_name=name,
        help_option_names=["--help"],
        max_content_width=_WIDTH,
    )


def _common(word: str) -> bool:
    name = word.partition("=")[0]
    return any(name in (f"--{row[0]}", f"-{row[1]}") for row in COMMON)


def _group(*, load: bool) -> click.Group:
    made: dict[str, click.Command] = {}
    members: dict[str, dict[str, click.Command]] = {name: {} for name in GROUPS}
    for name, text in COMMANDS.items():
        first, _, rest = name.partition(" ")
        into = members[first] if rest else made
        into[rest or first] = _command(name) if load else click.Command(rest or first, help=text)
    for name, commands in members.items():
        made[name] = _subgroup(name, commands, f"{GROUPS[name]}.")
    return _subgroup("isula", made, "Manage containers and images of the isulad daemon.")


def _subgroup(name: str, commands: dict[str, click.Command], text: str) -> click.Group:
    return click.Group(
        name,
        commands=commands,
        params=[_option(row, ()) for row in COMMON],
        help=text,
        context_settings=_SETTINGS,
    )


def _command(name: str) -> click.Command:
    module: ModuleType = __import__(module_name(name), fromlist=["OPTIONS"])
    others: dict[str, str] = getattr(module, "ALIASES", {})
    rows = sorted((*COMMON, *module.OPTIONS))
    params: list[click.Parameter] = [
        _option(row, [alias for alias, real in others.items() if real == row[0]]) for row in rows
    ]
    for argument, count, metavar in module.ARGUMENTS:
        params.append(
            click.Argument(
                [argument],
                nargs=1 if count == "1" else -1,
                required=count != "*",
                metavar=metavar,
            )
        )
    examples = "\n".join(f"  {line}" for line in module.EXAMPLES)
    return click.Command(
        name.rpartition(" ")[2],
        params=params,
        help=f"{COMMANDS[name]}.",
        epilog=f"\b\nExamples:\n{examples}" if examples else None,
        context_settings=_SETTINGS,
    )


def _option(row: tuple[str, str, str, str, str], aliases: list[str] | tuple[()]) -> click.Option:
    name, short, kind, metavar, text = row
    words = ([f"-{short}"] if short else []) + [f"--{one}" for one in (name, *aliases)]
    if kind == "bool":
        return click.Option(words, is_flag=True, help=text)
    return click.Option(words, multiple=kind == "list", metavar=metavar, help=text)
