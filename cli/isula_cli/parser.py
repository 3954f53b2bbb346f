"""Reads a command line against the tables of a command (see :mod:`isula_cli.commands`).

The rules: ``--name value`` or ``--name=value``; ``-n value``, ``-n=value`` or
``-nvalue``; booleans stand alone or as ``--name=true|false``, and their short forms
may be bundled with one that takes a value as the last (``-itm 64m``).  A value may
begin with ``-``.  The last of a repeated option wins, a list grows.  ``--`` ends the
options.  Options may follow arguments, except where the arguments are another
program's command line (``run``, ``create``, ``exec``, ``top``).
"""

from __future__ import annotations

__all__ = ["HelpRequested", "UsageError", "parse"]

from isula_cli.commands import COMMON

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    Option = tuple[str, str, str, str, str]

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
_INT64 = 1 << 63


class UsageError(Exception):
    """The command line is wrong; ``str()`` says how."""

    def __init__(self, text: str, exit_status: int = 125) -> None:
        super().__init__(text)
        self.exit_status = exit_status


class HelpRequested(Exception):  # noqa: N818 - not an error
    """``--help`` is among the options."""


def parse(command: ModuleType, argv: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The options given, by name, and the arguments; raises UsageError, HelpRequested."""
    reader = _Reader(command, argv)
    interspersed = getattr(command, "INTERSPERSED", True)
    args: list[str] = []
    while argv[reader.at :]:
        word = argv[reader.at]
        reader.at += 1
        if word[:1] != "-" or word == "-":
            args.append(word)
            if not interspersed:
                break
        elif word == "--":
            break
        elif word[1] == "-":
            reader.long(word[2:])
        else:
            reader.bundle(word[1:])
    args += argv[reader.at :]
    _check_count(command, len(args))
    return reader.options, args


class _Reader:
    """The options of one command line; ``at`` is the next word to look at."""

    def __init__(self, command: ModuleType, argv: list[str]) -> None:
        self.argv = argv
        self.at = 0
        self.options: dict[str, Any] = {}
        self.by_name: dict[str, Option] = {}
        self.by_short: dict[str, Option] = {}
        for row in (*COMMON, *command.OPTIONS):
            self.by_name[row[0]] = self.by_short[row[1]] = row
        for alias, name in getattr(command, "ALIASES", {}).items():
            self.by_name[alias] = self.by_name[name]

    def long(self, text: str) -> None:
        """Take ``text``, what follows ``--``."""
        name, equals, value = text.partition("=")
        row = self.by_name.get(name)
        if row is None:
            if name == "help":
                raise HelpRequested
            raise UsageError(f"Unknown flag found:'--{name}'")
        if equals:
            self.store(row, value)
        elif row[2] == "bool":
            self.options[row[0]] = True
        else:
            self.store(row, self.next_word("--" + name))

    def bundle(self, letters: str) -> None:
        """Take the letters that follow a single ``-``."""
        for position, letter in enumerate(letters, 1):
            row = self.by_short.get(letter)
            rest = letters[position:]
            if row is None:
                if letter == "h":
                    raise HelpRequested
                raise UsageError(f"Unknown flag found:'{letter}'")
            if rest[:1] == "=":
                self.store(row, rest[1:])
                return
            if row[2] != "bool":
                self.store(row, rest or self.next_word("-" + letter))
                return
            self.options[row[0]] = True

    def next_word(self, flag: str) -> str:
        """The value in the next word."""
        if self.at >= len(self.argv):
            raise UsageError(f"Flag needs an argument: {flag}")
        self.at += 1
        return self.argv[self.at - 1]

    def store(self, row: Option, value: str) -> None:
        """Check a value and keep it."""
        name, _, kind, _, _ = row
        if kind == "list":
            self.options.setdefault(name, []).append(value)
        elif kind == "bool":
            if value not in _TRUE and value not in _FALSE:
                raise UsageError(f'Invalid boolean value "{value}" for flag --{name}')
            self.options[name] = value in _TRUE
        elif kind == "str":
            self.options[name] = value
        else:
            self.options[name] = _integer(name, value, -_INT64 if kind == "int" else 0)


def _integer(name: str, text: str, lowest: int) -> int:
    digits = text[1:] if text[:1] in ("-", "+") else text
    if not (digits.isascii() and digits.isdigit()):
        raise UsageError(f'Invalid value "{text}" for flag --{name}: Invalid argument')
    number = int(text) if len(digits) < 40 else _INT64
    if not lowest <= number < _INT64:
        raise UsageError(f'Invalid value "{text}" for flag --{name}: Numerical result out of range')
    return number


def _check_count(command: ModuleType, count: int) -> None:
    lowest = highest = 0
    for _, times, _ in command.ARGUMENTS:
        lowest += times != "*"
        highest += 1 if times == "1" else count
    if not lowest <= count <= highest:
        raise UsageError(*command.MISCOUNT)
