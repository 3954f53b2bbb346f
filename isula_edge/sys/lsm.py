"""Which Linux security modules confine processes on this machine."""

from __future__ import annotations

import os

__all__ = ["apparmor_enabled", "apparmor_has", "selinux_enabled"]

_APPARMOR = "/sys/module/apparmor/parameters/enabled"
_PROFILES = "/sys/kernel/security/apparmor/profiles"
_SELINUX = "/sys/fs/selinux/enforce"


def apparmor_enabled() -> bool:
    """Whether the kernel confines by AppArmor, whether or not securityfs is mounted."""
    try:
        with open(_APPARMOR, encoding="ascii") as file:
            return file.read(1) == "Y"
    except OSError:
        return False


def apparmor_has(profile: str) -> bool:
    """Whether ``profile`` is loaded; True where the kernel does not show what is."""
    try:
        with open(_PROFILES, encoding="utf-8", errors="surrogateescape") as file:
            # "name (enforce)", and a name may have blanks
            return any(line.rstrip("\n").rpartition(" (")[0] == profile for line in file)
    except OSError:
        return True


def selinux_enabled() -> bool:
    """Whether the kernel has an SELinux policy to label processes by."""
    return os.path.exists(_SELINUX)
