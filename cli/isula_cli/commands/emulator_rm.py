"""``isula emulator rm``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

from isula_cli.targets import for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = ()
ARGUMENTS = (("arch", "+", "ARCH..."),)
MISCOUNT = ('"emulator rm" requires at least 1 argument.', 1)
EXAMPLES = ("isula emulator rm riscv64",)


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Take back what is registered for each architecture."""

    def remove(arch: str) -> None:
        found = ctx.client.remove_emulator(arch)
        ctx.out(f"{found['arch']}: {', '.join(found['names'])} is registered no more\n")

    return for_each(ctx, args, remove)
