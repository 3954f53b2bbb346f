"""``storage-opts`` of daemon.json and ``--storage-opt`` of isulad: read once, into one value."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.oci import values
from isula_edge.snapshot.base import StorageOptions
from isula_edge.sys import syscalls

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["parse"]

_FLAGS = {
    "nosuid": syscalls.MS_NOSUID,
    "nodev": syscalls.MS_NODEV,
    "noexec": syscalls.MS_NOEXEC,
}
_DATA = re.compile(
    r"(metacopy|index|nfs_export|uuid)=(on|off|null|auto)|xino=(on|off|auto)|"
    r"redirect_dir=(on|off|follow|nofollow)"
)
_SIZES = ("size", "basesize")
# what they ask for is so already: the kernel is tried, and no directory is mounted on itself
_MET = ("override_kernel_check", "skip_mount_home")


def parse(items: Sequence[str]) -> StorageOptions:
    """The options of ``items`` (``overlay2.NAME=VALUE``); InvalidArgument naming a bad one."""
    size, flags, data = 0, 0, list[str]()
    for item in items:
        key, equals, value = item.partition("=")
        prefix, _, name = key.lower().partition(".")
        if not equals:
            raise _bad(f"Invalid storage option '{item}'")
        if prefix not in ("overlay2", "overlay"):
            raise _bad(f"Unknown storage option: {key}")
        if name in _SIZES:
            size = values.parse_quota(value)
        elif name == "mountopt":
            for word in filter(None, value.split(",")):
                if word in _FLAGS:
                    flags |= _FLAGS[word]
                elif _DATA.fullmatch(word):
                    data.append(word)
                elif word == "userxattr":
                    raise _bad(
                        f"{key}: {word} is not supported, layers have the marks of overlayfs in "
                        "trusted attributes"
                    )
                else:
                    raise _bad(f"{key}: {word} is no option that a root file system can have")
        elif name in _MET:
            values.parse_bool(key, value)
        else:
            raise _bad(f"Unknown storage option: {key}")
    return StorageOptions(size, flags, tuple(dict.fromkeys(data)))


def _bad(text: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(
        text,
        kind="key",
        ref="storage-opts",
        hint="there are overlay2.size, overlay2.basesize, overlay2.mountopt, "
        "overlay2.override_kernel_check and overlay2.skip_mount_home",
    )
