"""``isula emulator install``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

from isula_cli.parser import UsageError
from isula_cli.targets import for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = (
    ("force", "f", "bool", "", "replace what is registered, also by somebody else"),
    ("quiet", "q", "bool", "", "say nothing of what is registered already"),
)
ARGUMENTS = (("arch", "+", "ARCH...|all"),)
MISCOUNT = ('"emulator install" requires at least 1 argument: architectures, or all.', 1)
EXAMPLES = ("isula emulator install arm64", "isula emulator install all")


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Register each emulator; with ``all`` every one that is installed."""
    force, quiet = bool(options.get("force")), bool(options.get("quiet"))
    if "all" in args:
        if len(args) > 1:
            raise UsageError("all stands alone", 1)
        args = _every(ctx)
        if not args:
            ctx.err("Error: no emulator is installed; Debian's package is qemu-user-static\n")
            return 1

    def install(arch: str) -> None:
        found = ctx.client.install_emulator(arch, force=force)
        what = f"{found['arch']}: {found['path']}"
        if found["changed"]:
            ctx.out(f"{what} registered\n")
        elif not quiet:
            ctx.out(f"{what} is registered already\n")

    return for_each(ctx, args, install)


def _every(ctx: Context) -> list[str]:
    """Architectures with an emulator; those without one that can be used are told."""
    found = []
    for row in ctx.client.emulators():
        # what is unusable is tried, so that the engine says why
        if row["state"] in ("available", "registered", "unusable"):
            found.append(row["arch"])
        elif row["state"] == "absent":
            ctx.err(f"{row['arch']}: {row['name']}-static is not installed, {row['reason']}\n")
    return found
