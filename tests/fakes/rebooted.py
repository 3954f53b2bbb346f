"""An isulad that finds another boot id than the kernel's: ``BOOT_ID [words of isulad]``."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main(words: list[str]) -> int:
    """Runs isulad in the boot that the first word names."""
    from isula_edge.daemon import main as daemon
    from isula_edge.sys import boot

    boot._boot_id = words.pop(0)
    return daemon.main(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
