"""CNI plugins that write down how they were called, and answer what a test wants."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, TypeVar

from isula_edge.network import Network
from isula_edge.sys.inotify import Watcher
from isula_edge.sys.process import Reaper

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

__all__ = ["NETNS", "FakeCni"]

T = TypeVar("T")

# a namespace that is always there
NETNS = "/proc/self/ns/net"
RESULT = {
    "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": NETNS}],
    "ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 0}],
    "routes": [{"dst": "0.0.0.0/0"}],
    "dns": {"nameservers": ["10.1.0.1"]},
}
_VERSIONS = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]

_SCRIPT = """\
#!/bin/sh
{{ printf '{{"plugin":"{name}","command":"%s","id":"%s","netns":"%s","ifname":"%s","args":"%s",' \
"$CNI_COMMAND" "$CNI_CONTAINERID" "$CNI_NETNS" "$CNI_IFNAME" "$CNI_ARGS"
printf '"path":"%s","conf":' "$CNI_PATH"; cat; echo '}}'; }} >{folder}/call.$$
cat {folder}/call.$$ >>{folder}/calls
answer={folder}/answers/{name}.$CNI_COMMAND
[ ! -e $answer ] || cat $answer
[ ! -e $answer.err ] || cat $answer.err >&2
[ ! -e $answer.sh ] || . $answer.sh
[ ! -e $answer.status ] || exit $(cat $answer.status)
"""


class FakeCni:
    """Plugins, configurations and a result cache below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf, self.bin = folder / "net.d", folder / "bin"
        self.cache = folder / "cache"
        self.answers = folder / "answers"
        for path in (self.conf, self.bin, self.answers):
            path.mkdir()

    def plugin(self, name: str) -> None:
        """A plugin that answers as CNI 1.1's do, ADD with RESULT."""
        path = self.bin / name
        path.write_text(_SCRIPT.format(name=name, folder=self.folder))
        path.chmod(0o755)
        self.answer(name, "ADD", RESULT)
        self.answer(name, "VERSION", {"cniVersion": "1.1.0", "supportedVersions": _VERSIONS})

    def answer(self, name: str, command: str, out: object, status: int = 0, err: str = "") -> None:
        """What a plugin answers from now on: JSON, or bytes as they are."""
        base = f"{name}.{command}"
        text = out if isinstance(out, bytes) else json.dumps(out).encode()
        (self.answers / base).write_bytes(text)
        (self.answers / f"{base}.status").write_text(str(status))
        (self.answers / f"{base}.err").write_text(err)

    def fail(self, name: str, command: str, code: int = 100, text: str = "no") -> None:
        """A plugin fails from now on, as the specification wants."""
        self.answer(name, command, {"code": code, "msg": text, "details": "details"}, 1)

    def shell(self, name: str, command: str, text: str) -> None:
        """What a plugin does from now on."""
        (self.answers / f"{name}.{command}.sh").write_text(text)

    def network(self, file: str, name: str, *plugins: str | dict[str, Any], **more: Any) -> None:
        """A list of plugins by name; those that do not exist are made."""
        listed = [p if isinstance(p, dict) else {"type": p} for p in plugins]
        for plugin in listed:
            if not (self.bin / plugin["type"]).exists():
                self.plugin(plugin["type"])
        document = {"cniVersion": "1.0.0", "name": name, "plugins": listed, **more}
        (self.conf / file).write_text(json.dumps(document))

    def run(
        self, work: Callable[[Network], Awaitable[T]], *, timeout_s: float = 60, owner: str = "us"
    ) -> T:
        """``work`` with an engine's network in a loop of its own."""

        async def main() -> T:
            reaper, watcher = Reaper(), Watcher()
            reaper.install()
            network = Network(
                str(self.conf),
                [str(self.folder / "none"), str(self.bin)],
                str(self.cache),
                reaper,
                watcher,
                timeout_s=timeout_s,
                owner=owner,
            )
            try:
                return await work(network)
            finally:
                network.close()
                watcher.close()

        return asyncio.run(main())

    def calls(self, *commands: str) -> list[dict[str, Any]]:
        """Calls so far, of all commands or only these."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        every = [json.loads(line) for line in lines]
        return [call for call in every if not commands or call["command"] in commands]

    def order(self, *commands: str) -> list[str]:
        """``command plugin`` of the calls."""
        return [f"{call['command']} {call['plugin']}" for call in self.calls(*commands)]

    def cached(self) -> list[str]:
        """Files of the result cache."""
        folder = self.cache / "results"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []
