"""Whether a runtime's program can be used, and what it said when it failed.

A program is looked at before every use: there, executable, for this machine.  Its version is
asked once for each file at that path, when it is used first.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.profile import elf

if TYPE_CHECKING:
    from isula_edge.sys.process import Reaper

__all__ = ["PATH", "Program", "last_words", "one_line", "program_error", "tail"]

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where a name without a slash is looked for: the engine's own PATH is nobody's promise."""
_VERSION_S = 10.0
_SPEC = re.compile(r"^\s*(?:oci )?specs?\s*:\s*(v?\d{1,4}\.\d{1,4}\.\d{1,4}\S{0,40})", re.I | re.M)
_NUMBER = re.compile(r"v?(\d{1,4})\.(\d{1,4})\.(\d{1,4})(-rc)?")
_TAIL = 1 << 16
_LONGEST = 1000
_NOT_FOUND = ("executable file not found", "no such file or directory")
_NOT_EXECUTABLE = (
    "permission denied",
    "exec format error",
    "is a directory",
    # crun's word for a directory
    "open executable: operation not permitted",
)


class Program:
    """The program of runtime ``name``: ``given`` is an absolute path or a name in PATH."""

    def __init__(self, name: str, given: str) -> None:
        self.name = name
        self.given = given
        # (path, device, inode, size, modified): what the version was asked of
        self._asked: tuple[str, int, int, int, int] | None = None
        self._too_old = ""

    @property
    def path(self) -> str:
        """Its absolute path, or the name as it was given where it is not found."""
        if "/" in self.given:
            return self.given
        return shutil.which(self.given, path=PATH) or self.given

    def problem(self) -> str:
        """Why it cannot be executed, or ''; nothing is run for that."""
        return self._look(self.path)[0]

    async def check(self, reaper: Reaper) -> str:
        """Its absolute path; Unavailable with what is wrong with it, and what to do."""
        path = self.path
        problem, found = self._look(path)
        if problem:
            raise self.unusable(problem)
        if found is not None:
            key = (path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
            if key != self._asked:
                self._too_old = await self._old(path, reaper)
                self._asked = key
        if self._too_old:
            raise self.unusable(
                f"{path} is too old: it is for OCI runtime-spec {self._too_old}, 1.0.0 is needed"
            )
        return path

    def unusable(self, problem: str) -> errors.Unavailable:
        """The error for a program that cannot be used."""
        return errors.Unavailable(
            f"runtime {self.name} cannot be used: {problem}",
            kind="runtime",
            ref=self.name,
            hint=f"install {self.name} for this machine or correct its path in daemon.json",
        )

    def _look(self, path: str) -> tuple[str, os.stat_result | None]:
        if not path.startswith("/"):
            return f"{path} is not in {PATH}", None
        try:
            found = os.stat(path)
        except OSError as error:
            missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
            word = "does not exist" if missing else os.strerror(error.errno or 0)
            return f"{path} {word}" if missing else f"{path}: {word}", None
        if not stat.S_ISREG(found.st_mode):
            return f"{path} is no file", found
        if not found.st_mode & 0o111:
            return f"{path} is not executable", found
        try:
            elf.check_executable(path)
        except errors.CommandNotExecutable as error:
            return f"{path}: {error.message}", found
        loader = elf.interpreter(path)
        if loader and not os.path.exists(loader):
            return f"{path} needs {loader}, which does not exist", found
        return "", found

    async def _old(self, path: str, reaper: Reaper) -> str:
        """The version of the runtime-spec if it is too old; '' if not, or if it does not tell."""
        version = ""
        for word in ("--version", "features"):
            try:
                code, out, _ = await reaper.run([path, word], timeout_s=_VERSION_S, group=True)
            except TimeoutError:
                return ""
            except OSError as error:
                reason = error.strerror or str(error)
                raise self.unusable(f"{path}: {reason.lower()}") from error
            version = "" if code else _spec_version(out.decode(errors="replace"))
            if version:
                break
        found = _NUMBER.match(version)
        if found is None:
            return ""
        numbers = tuple(int(part) for part in found.groups()[:3])
        old = numbers < (1, 0, 0) or (numbers == (1, 0, 0) and found[4])
        return version if old else ""


def _spec_version(text: str) -> str:
    """What an answer to ``--version`` or ``features`` says of the runtime-spec, or ''."""
    found = _SPEC.search(text)
    if found is not None:
        return found[1]
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    version = answer.get("ociVersionMax") if isinstance(answer, dict) else ""
    return version if isinstance(version, str) else ""


def tail(path: str, size: int = _TAIL) -> str:
    """The last ``size`` bytes of a regular file, whatever they are; '' without one."""
    try:
        # a runtime may have put anything there: a FIFO must not block, a link not lead away
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return ""
        return os.pread(fd, size, max(found.st_size - size, 0)).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(fd)


def last_words(path: str, err: str = "") -> str:
    """What a runtime says of a failure: the last error in its log, or its error output ``err``,
    or the last line of the log.
    """
    lines = [line for line in tail(path).splitlines() if line.strip()]
    wrong = [line for line in lines if "level=error" in line or '"level":"error"' in line]
    if wrong:
        return wrong[-1]
    return err if err.strip() else (lines or [""])[-1]


def program_error(words: str, program: str) -> errors.EngineError | None:
    """CommandNotFound or CommandNotExecutable where a runtime's ``words`` say that.

    The message names ``program``, which the words of crun do not.
    """
    lower = words.lower()
    if program not in words:
        words = f'exec: "{program}": {words}'
    if "exec" in lower or "starting container process" in lower:
        if any(word in lower for word in _NOT_FOUND):
            return errors.CommandNotFound(words, kind="command", ref=program)
        if any(word in lower for word in _NOT_EXECUTABLE):
            return errors.CommandNotExecutable(words, kind="command", ref=program)
    return None


def one_line(text: str) -> str:
    """``text`` for a person: the ``msg`` of a log line where it is one, on one line, bounded."""
    words = _message(text)
    plain = "".join(char if char.isprintable() else " " for char in words)
    plain = " ".join(plain.split())
    return plain if len(plain) <= _LONGEST else f"{plain[: _LONGEST - 1]}\u2026"


def _message(text: str) -> str:
    text = text.strip()
    if text.startswith("{"):
        try:
            found = json.loads(text)
            if isinstance(found, dict) and isinstance(found.get("msg"), str):
                return str(found["msg"])
        except (ValueError, RecursionError):
            pass
    _, marker, rest = text.partition('msg="')
    if marker:
        try:
            return str(json.loads(f'"{rest[: rest.rindex(chr(34))]}"'))
        except (ValueError, RecursionError):
            pass
    return text
