"""Mounts with shared propagation for LXC, which makes every mount of the host a slave first.

A short-lived program, run by LXC on the host when the container's root is complete: it
clones the source in the host's mount namespace (open_tree(2)) and attaches the clone, still
a peer of the host's mount, inside the container's (move_mount(2)).  Both are of Linux 5.2.
Paths of the target are resolved by the container's root.

Arguments: pid of the container's init, then SOURCE TARGET FLAGS for each mount, FLAGS being
words of mount(8) with commas, or nothing.
"""

from __future__ import annotations

import os
import sys

from isula_edge.sys import syscalls

__all__ = ["main"]

_FLAGS = {
    "ro": (syscalls.MS_RDONLY, os.ST_RDONLY),
    "nosuid": (syscalls.MS_NOSUID, os.ST_NOSUID),
    "nodev": (syscalls.MS_NODEV, os.ST_NODEV),
    "noexec": (syscalls.MS_NOEXEC, os.ST_NOEXEC),
    "noatime": (1 << 10, os.ST_NOATIME),
    "nodiratime": (1 << 11, os.ST_NODIRATIME),
    "relatime": (1 << 21, os.ST_RELATIME),
}
"""Words of mount(8), and what mount(2) and statvfs(3) have for them."""


def main() -> int:
    """Attaches the mounts: the exit status, with one line on standard error for a failure."""
    words = sys.argv[1:]
    try:
        pid = int(words[0])
        clones = [
            (syscalls.open_tree(words[at]), words[at + 1], words[at + 2])
            for at in range(1, len(words), 3)
        ]
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        syscalls.setns(namespace, syscalls.CLONE_NEWNS)
        os.fchdir(root)
        os.chroot(".")
        os.chdir("/")
        for clone, target, named in clones:
            before, wanted = os.fstatvfs(clone).f_flag, set(filter(None, named.split(",")))
            present = {name for name, (_, shown) in _FLAGS.items() if before & shown}
            syscalls.move_mount(clone, target)
            if wanted - present:
                flags = sum(_FLAGS[name][0] for name in wanted | present)
                syscalls.mount("", target, "", syscalls.MS_REMOUNT | syscalls.MS_BIND | flags)
    except OSError as error:
        print(f"shared mount: {error}", file=sys.stderr)  # noqa: T201  # LXC keeps it
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
