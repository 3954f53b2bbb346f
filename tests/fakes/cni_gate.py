"""CNI plugins that wait, or fail, when a test wants it.

``gate`` stands at the end of a chain; ``bridge`` stands before the real one.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Gate"]

_PROGRAM = """\
#!/bin/sh
echo "$CNI_COMMAND $CNI_CONTAINERID" >>{folder}/calls
if [ "$CNI_COMMAND" = VERSION ]; then
    echo '{{"cniVersion":"0.4.0","supportedVersions":["0.4.0"]}}'
    exit
fi
while [ -e {folder}/$CNI_COMMAND.wait ]; do sleep 0.02; done
if [ -e {folder}/$CNI_COMMAND.fail ]; then
    echo '{{"code":100,"msg":"the gate is shut"}}'
    exit 1
fi
[ "$0" = {folder}/bin/gate ] || exec {real}/${{0##*/}}
[ "$CNI_COMMAND" != ADD ] || exec {python} -I -c '
import json, sys
json.dump(json.load(sys.stdin)["prevResult"], sys.stdout)'
"""


class Gate:
    """The plugins, in a directory of their own below ``folder``; the real ones are in ``real``."""

    def __init__(self, folder: Path, real: str = "/usr/lib/cni", *names: str) -> None:
        self.folder = folder / "gate"
        self.bin = self.folder / "bin"
        self.bin.mkdir(parents=True)
        text = _PROGRAM.format(folder=self.folder, python=sys.executable, real=real)
        for name in names or ("gate",):
            program = self.bin / name
            program.write_text(text)
            program.chmod(0o755)

    @classmethod
    def last_of(cls, conflist: dict[str, Any], folder: Path) -> Gate:
        """A gate at the end of the network that an engine of ``folder`` takes."""
        made = cls(folder)
        made.join(conflist, folder / "net.d/05-gate.conflist")
        return made

    def join(self, conflist: dict[str, Any], path: Path) -> None:
        """Writes a network whose chain ends with the gate."""
        path.parent.mkdir(parents=True, exist_ok=True)
        plugins = [*conflist["plugins"], {"type": "gate"}]
        path.write_text(json.dumps({**conflist, "plugins": plugins}))

    def wait(self, command: str = "ADD") -> None:
        """Calls wait from now on."""
        (self.folder / f"{command}.wait").touch()

    def fail(self, command: str = "ADD") -> None:
        """Calls fail from now on, the waiting ones too."""
        (self.folder / f"{command}.fail").touch()

    def open(self) -> None:
        """All calls go through, the waiting ones too."""
        for path in (*self.folder.glob("*.wait"), *self.folder.glob("*.fail")):
            path.unlink()

    def calls(self, command: str) -> list[str]:
        """Container ids of the calls so far."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split()[1] for line in lines if line.startswith(f"{command} ")]
