"""Running CNI plugins: found in the directories for them, asked by JSON, killed when they hang."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.network import result, versions
from isula_edge.sys import process

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from isula_edge.sys.process import Reaper

__all__ = ["Call", "PluginFailed", "Plugins", "end_plugins"]

log = logging.getLogger(__name__)

# reserved codes of the specification, section 2 "Errors"
INCOMPATIBLE_VERSION = 1
UNKNOWN_CONTAINER = 3
INVALID_ENVIRONMENT = 4
_TRY_AGAIN = 11
_LONGEST_TEXT = 1000
_BUSY_TRIES = 4
_BUSY_S = 0.5
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class PluginFailed(errors.Unavailable):
    """A plugin said no; ``cni_code`` is the number it gave, -1 when it gave none."""

    def __init__(self, message: str, *, ref: str, cni_code: int, hint: str = "") -> None:
        again = cni_code == _TRY_AGAIN
        super().__init__(message, kind="plugin", ref=ref, hint=hint, retryable=again)
        self.cni_code = cni_code


@dataclass(frozen=True, slots=True)
class Call:
    """What a plugin is asked to do: parameters of the specification, section 2.

    STATUS and GC have no container, interface or arguments.
    """

    command: str
    container_id: str = ""
    netns: str = ""
    ifname: str = ""
    args: tuple[tuple[str, str], ...] = ()


class Plugins:
    """The plugins of ``bin_dirs``, each given ``timeout_s`` for a call."""

    def __init__(self, bin_dirs: Sequence[str], reaper: Reaper, timeout_s: float) -> None:
        self.bin_dirs = tuple(bin_dirs)
        self._reaper = reaper
        self._timeout_s = timeout_s
        self._versions: dict[tuple[str, int, int], tuple[str, ...]] = {}

    def find(self, name: str) -> str:
        """Path of plugin ``name``; raises FailedPrecondition."""
        for folder in self.bin_dirs:
            path = f"{folder}/{name}"
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return path
        raise errors.FailedPrecondition(
            f'Failed to find plugin: "{name}". It is in none of {", ".join(self.bin_dirs)}',
            kind="plugin",
            ref=name,
            hint="install the CNI plugin there, or name its directory in cni-bin-dir",
        )

    async def add(self, conf: dict[str, Any], call: Call) -> dict[str, Any]:
        """The result of an ADD, in the version of ``conf``; raises EngineError."""
        name, version = str(conf["type"]), str(conf["cniVersion"])
        out = await self.run(conf, call)
        try:
            raw = json.loads(out)
            return result.convert(result.validate(raw, version), version)
        except (ValueError, RecursionError, errors.InvalidArgument) as error:
            raise errors.Internal(
                f"plugin {name} gave no valid result: {_clean(str(error))}",
                kind="plugin",
                ref=name,
            ) from error

    async def run(self, conf: dict[str, Any], call: Call) -> bytes:
        """What the plugin of ``conf`` printed; raises EngineError when it fails."""
        name = str(conf["type"])
        path = self.find(name)
        out, err, code = await self._execute(path, name, json.dumps(conf).encode(), call)
        if code == 0:
            if err:
                log.debug("plugin %s (%s): %s", name, call.command, _clean(err))
            return out
        raise await self._failed(path, name, call.command, (out, err, code))

    async def supported(self, name: str) -> tuple[str, ...]:
        """Versions that a plugin says it speaks, asked once per binary; () when it says none."""
        return await self._supported(self.find(name), name)

    async def _supported(self, path: str, name: str) -> tuple[str, ...]:
        found = os.stat(path)
        key = (path, found.st_mtime_ns, found.st_ino)
        if key not in self._versions:
            question = json.dumps({"cniVersion": versions.NEWEST}).encode()
            # netns and interface are dummies: old plugins want every variable
            call = Call("VERSION", "dummy", "dummy", "dummy")
            out, _, code = await self._execute(path, name, question, call)
            self._versions[key] = _versions_in(out) if code == 0 else ()
        return self._versions[key]

    async def _execute(
        self, path: str, name: str, data: bytes, call: Call
    ) -> tuple[bytes, bytes, int]:
        env = self._environment(call)
        for attempt in range(_BUSY_TRIES):
            try:
                code, out, err = await self._reaper.run(
                    [path], data=data, timeout_s=self._timeout_s, env=env, group=True
                )
            except TimeoutError as error:
                raise errors.DeadlineExceeded(
                    f"plugin {name} ({call.command}) did not end within {self._timeout_s:g} s"
                    " and was killed",
                    kind="plugin",
                    ref=name,
                ) from error
            except OSError as error:
                # somebody is writing the program: an upgrade
                if error.errno == errno.ETXTBSY and attempt < _BUSY_TRIES - 1:
                    await asyncio.sleep(_BUSY_S)
                    continue
                raise errors.FailedPrecondition(
                    f"plugin {name} cannot be run: {error}", kind="plugin", ref=name
                ) from error
            return out, err, code
        raise AssertionError  # the last attempt returned or raised

    def _environment(self, call: Call) -> Mapping[str, str]:
        return {
            "PATH": _PATH,
            **os.environ,
            "CNI_COMMAND": call.command,
            "CNI_CONTAINERID": call.container_id,
            "CNI_NETNS": call.netns,
            "CNI_IFNAME": call.ifname,
            "CNI_ARGS": ";".join(f"{key}={value}" for key, value in call.args),
            "CNI_PATH": ":".join(self.bin_dirs),
        }

    async def _failed(
        self, path: str, name: str, command: str, answer: tuple[bytes, bytes, int]
    ) -> PluginFailed:
        """The error that a plugin's answer is, whatever it printed."""
        out, err, status = answer
        number, text = _error_in(out)
        text = text or _clean(err) or _clean(out)
        how = f"signal {status - 128}" if status > 128 else f"exit status {status}"
        hint = ""
        if number == INCOMPATIBLE_VERSION:
            spoken = await self._supported(path, name)
            hint = f"it speaks CNI {', '.join(spoken)}: change cniVersion" if spoken else ""
        return PluginFailed(
            f"plugin {name} failed ({command}): {text or how}",
            ref=name,
            cni_code=number,
            hint=hint,
        )


def end_plugins(container_id: str) -> None:
    """Ends plugins that work for a container still although the engine that asked has ended."""
    wanted = f"CNI_CONTAINERID={container_id}".encode()
    process.end_all("environ", lambda found: wanted in found.split(b"\0"))


def _error_in(out: bytes) -> tuple[int, str]:
    """Code and text of an error document, (-1, '') when ``out`` is none."""
    try:
        raw = json.loads(out)
    except (ValueError, RecursionError):
        return -1, ""
    if not isinstance(raw, dict):
        return -1, ""
    code = raw.get("code")
    number = code if isinstance(code, int) and not isinstance(code, bool) else -1
    texts = [_clean(raw[key]) for key in ("msg", "details") if isinstance(raw.get(key), str)]
    return number, "; ".join(text for text in texts if text)


def _versions_in(out: bytes) -> tuple[str, ...]:
    try:
        said = json.loads(out)["supportedVersions"]
        return tuple(sorted((item for item in said if isinstance(item, str)), key=versions.parse))
    except (ValueError, RecursionError, TypeError, LookupError, errors.InvalidArgument):
        return ()


def _clean(text: str | bytes) -> str:
    """One line of printable text: it ends in errors and logs."""
    if isinstance(text, bytes):
        text = text[-4 * _LONGEST_TEXT :].decode(errors="replace")
    text = text.encode(errors="replace").decode()
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _LONGEST_TEXT else line[:_LONGEST_TEXT] + "…"
