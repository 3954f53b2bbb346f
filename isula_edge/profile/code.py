"""Programs of a few instructions, put together for a machine of ``profiles/<arch>/code.toml``.

Such a program makes some system calls and ends, sleeps, or executes another one.  It runs in
any root file system, without an interpreter or a library, and in the very process that it is
to prepare.  What the instructions of a machine look like is data; what they do together is
said by whoever puts them together.
"""

from __future__ import annotations

import functools
import os
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isula_edge.profile.profile import all_profiles
from isula_edge.sys.data import data_dir
from isula_edge.sys.elf_program import BASE, elf_program, headers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isula_edge.profile.profile import Profile

__all__ = ["Call", "Code", "find"]


@dataclass(frozen=True, slots=True)
class Call:
    """A system call with arguments of 32 bits; ``needed`` ends the program when it fails.

    ``said`` is the address and length of what is written to standard error before that.
    """

    name: str
    args: tuple[int, ...]
    needed: bool = True
    said: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Code:
    """The instructions of one machine, little endian.

    ``result`` makes the last call's result the first argument of the next one, ``buffer``
    makes its second argument the address of 128 bytes of scratch.  ``parent`` goes on if the
    last call's result was 0, and otherwise writes it, four bytes, to standard output and ends
    with 0.  ``sleep`` sleeps for ever.  ``words`` and ``environment`` are what
    :meth:`executing` gives to ``execute``.
    """

    profile: Profile
    calls: dict[str, int]
    arguments: tuple[str, ...]
    number: str
    result: bytes
    buffer: bytes
    failure: str
    parent: bytes
    sleep: bytes
    words: bytes
    environment: bytes
    execute: bytes

    @property
    def data(self) -> int:
        """The address of the data of :meth:`program`."""
        return BASE + headers(self.profile.elf[1])

    @property
    def pointer(self) -> str:
        """The word of :mod:`struct` for a pointer."""
        return "Q" if self.profile.elf[1] == 64 else "I"

    def argument(self, place: int, value: int) -> bytes:
        """Makes the argument ``place`` of the next call the constant ``value``."""
        return _filled(self.arguments[place], value)

    def call(self, name: str, *args: int) -> bytes:
        """A system call whose first arguments are ``args``, the others being as they are."""
        code = b"".join(self.argument(place, value) for place, value in enumerate(args))
        return code + _filled(self.number, self.calls[name])

    def fail(self, said: tuple[int, int] = (0, 0)) -> bytes:
        """Ends the program with 126 if the last call has failed; see :class:`Call`."""
        return _filled(self.failure, *said)

    def executing(self, calls: Sequence[Call] = (), environment: int = 0) -> bytes:
        """``calls``, then execve(argv[1], &argv[1], envp).

        ``environment`` is the address of the variables to give, 0 for the program's own.  The
        exit status is 126 when a call that is needed or the execve fails, 127 when there is
        nothing to execute.
        """
        made = b"".join(
            self.call(one.name, *one.args) + (self.fail(one.said) if one.needed else b"")
            for one in calls
        )
        given = self.argument(2, environment) if environment else self.environment
        return made + self.words + given + self.execute

    def program(self, data: bytes, code: bytes) -> bytes:
        """The executable file of ``code``; the length of ``data`` must be a multiple of 4."""
        profile = self.profile
        return elf_program(
            profile.elf_machine,
            data,
            code,
            bits=profile.elf[1],
            flags=profile.elf_flags,
            align=max(0x10000, *profile.page_sizes),
        )


def find(machine: str = "") -> Code | None:
    """The instructions of ``machine`` (uname's word, '' is this one); None without a profile."""
    return _find(machine or os.uname().machine)


@functools.cache
def _find(word: str) -> Code | None:
    profile = next((item for item in all_profiles() if word in item.machines), None)
    if profile is None:
        return None
    with open(f"{data_dir('profiles')}/{profile.name}/code.toml", "rb") as file:
        data = tomllib.load(file)
    return _code(profile, data["calls"], data["code"])


def _code(profile: Profile, calls: dict[str, int], code: dict[str, Any]) -> Code:
    def fixed(name: str) -> bytes:
        return bytes.fromhex(_bare(code[name]))

    return Code(
        profile,
        calls,
        tuple(_bare(text) for text in code["argument"]),
        _bare(code["call"]),
        fixed("result"),
        fixed("buffer"),
        _bare(code["fail"]),
        fixed("parent"),
        fixed("sleep"),
        fixed("words"),
        fixed("environment"),
        fixed("execute"),
    )


def _bare(text: str) -> str:
    """The instructions without what is for the reader."""
    return " ".join(line.partition("#")[0].strip() for line in text.splitlines())


def _filled(template: str, *values: int) -> bytes:
    words = ((value & 0xFFFFFFFF).to_bytes(4, "little").hex() for value in values)
    return bytes.fromhex(template.format(*words))
