"""``isula version``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

from isula_edge.version import COMMIT, VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = ()
ARGUMENTS = ()
MISCOUNT = ('"version" requires 0 arguments.', 1)
EXAMPLES = ("isula version",)


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Print the client's part, then ask the daemon for its own."""
    ctx.out(_part("Client", VERSION, COMMIT, ""))
    server = ctx.client.version()
    text = "\n" + _part("Server", server["version"], server["commit"], server.get("built", ""))
    oci = server.get("oci") or {}
    text += f"\nOCI config:\n  Version:\t{oci.get('version', '')}\n"
    text += f"  Default file:\t{oci.get('default_file', '')}\n"
    ctx.out(text)
    return 0


def _part(title: str, version: str, commit: str, built: str) -> str:
    built = built or "unknown"
    return f"{title}:\n  Version:\t{version}\n  Git commit:\t{commit}\n  Built:\t{built}\n"
